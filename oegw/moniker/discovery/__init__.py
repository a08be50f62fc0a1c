"""DNS-SD: services that are told to the world, and found there."""
