"""What the gateway has a say in, of flows that the SOCKS server opens.

They are the box's own, so the interception applies the policy to them as to any other.  What must
be encrypted has a mark besides, without which the interception would let it out in clear where the
policy does (`oegw/intercept/demanded.py`).
"""

from __future__ import annotations

import socket
import struct
from typing import Protocol

from oegw.socks5.codes import ReplyCode
from oegw.socks5.terms import Demand, Refused
from policy.flow import IPAddress


class Guard(Protocol):
    """`oegw.intercept.guardcheck.GuardCheck`."""

    def stands(self) -> bool: ...


class GatewayDialler:
    """A `oegw.socks5.interface.Dialler`.

    ``mark``: the interception's, for what must be encrypted.  ``guard``: None where nothing could
    keep a flow from leaving in clear.
    """

    def __init__(self, mark: int, guard: Guard | None) -> None:
        self._mark = mark
        self._guard = guard

    async def allow(
        self, destination: IPAddress, port: int, transport: str, demand: Demand
    ) -> None:
        """Nothing is waited for: the kernel holds the first packet until there is a tunnel, or
        refuses it.  Without the guard it would let it out; then nothing may begin."""
        if demand.encrypted and (self._guard is None or not self._guard.stands()):
            text = f"{destination}: the gateway's guard is not there"
            raise Refused(ReplyCode.NOT_ALLOWED, "unguarded", text)

    def prepare(self, sock: socket.socket, demand: Demand) -> None:
        """Raises OSError: without CAP_NET_ADMIN nothing can be marked."""
        if demand.encrypted:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, struct.pack("=I", self._mark))
