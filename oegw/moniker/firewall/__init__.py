"""Ports opened by lease: our own firewall, and the gateway in front that is asked for it."""
