"""The daemon: who is registered here, told to those who ask."""
