"""What a process beside the mind keeps, and the door by which it asks the hands for the rest."""

from __future__ import annotations

import socket
import threading

from oegw.intercept.interface import InterceptError
from oegw.powers import codec, elsewhere
from oegw.powers.dropping import Cap, drop
from oegw.powers.frames import FrameError, Kind, Waiting
from oegw.powers.orders import Call, Nft, Refused, Spoken
from oegw.powers.tohands import GONE, error_of

KEPT = (Cap.NET_RAW, Cap.NET_BIND_SERVICE)
"""To mark sockets, and for ports below 1024; NET_ADMIN stays where marks still take it."""


def keep_little(door: int) -> None:
    """At the start of such a process: give up what is not needed, and have the hands do what is not
    kept.  Raises PowerError."""
    drop(None, KEPT, pass_on=True)
    elsewhere.use(DoorKernel(socket.socket(fileno=door)))


class DoorKernel(elsewhere.OnlyNft):
    """Speaks nft, within what the hands permit; nothing else."""

    def __init__(self, stream: socket.socket) -> None:
        self._line = Waiting(stream)
        self._turn = threading.Lock()

    def nft(self, command: str, flags: int, *, dry: bool) -> Spoken:
        """Raises InterceptError."""
        body = codec.encode(Nft(command, flags, dry), Call)
        try:
            with self._turn:
                self._line.send(Kind.CALL, body)
                kind, octets = self._line.receive()
        except FrameError as error:
            raise InterceptError(f"{GONE}: {error}") from None
        if kind is Kind.REFUSAL:
            raise error_of(codec.decode(octets, Refused))
        spoken: Spoken = codec.decode(octets, Spoken)
        return spoken
