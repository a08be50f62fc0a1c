"""Sends whole IP packets: probes of the path have a flag that no ordinary socket would set."""

from __future__ import annotations

import socket

from oegw.sst.interface import IPAddress, SstError

# Specification value: linux/in6.h; Python has no name for it.
_IPV6_HDRINCL = 36
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}


class RawSender:
    """One raw socket for each family that ``addresses`` has; ``mark`` is the gateway's own.

    Connection tracking makes an entry of what is sent, which ends by itself: the plane takes the
    answers out before they get there.
    """

    def __init__(self, addresses: tuple[IPAddress, ...], mark: int) -> None:
        self._versions = sorted({address.version for address in addresses})
        self._mark = mark
        self._sockets: dict[int, socket.socket] = {}

    def open(self) -> None:
        """Raises SstError."""
        try:
            for version in self._versions:
                raw = socket.socket(_FAMILIES[version], socket.SOCK_RAW, socket.IPPROTO_RAW)
                self._sockets[version] = raw
                raw.setblocking(False)
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, self._mark)
                if version == 6:
                    raw.setsockopt(socket.IPPROTO_IPV6, _IPV6_HDRINCL, 1)
        except OSError as error:
            self.close()
            raise SstError(f"raw socket for probes of the path: {error.strerror}") from error

    def send(self, packet: bytes, destination: IPAddress) -> None:
        """Raises OSError."""
        self._sockets[destination.version].sendto(packet, (str(destination), 0))

    def close(self) -> None:
        for each in self._sockets.values():
            each.close()
        self._sockets.clear()
