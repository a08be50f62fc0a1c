"""Services by name, ports at random (Moniker).  What an application needs is imported here."""
