"""Octets between two connected sockets, moved by the kernel."""

from oegw.socks5.relay.relay import SpliceRelay as SpliceRelay
