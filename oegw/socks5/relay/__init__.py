"""Octets between two connected sockets, moved by the kernel."""

from oegw.socks5.relay.processes import ProcessRelay as ProcessRelay
