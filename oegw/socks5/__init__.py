"""SOCKS version 5, with the extensions for IPv6 and IPv4."""
