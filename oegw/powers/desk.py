"""What the hands do with the kernel's packet rules for who asks, within what is permitted.

One desk for each who asks: the mind in its event loop, its other threads, and each process beside
it.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from oegw.intercept.interface import InterceptError
from oegw.intercept.nft import OUTPUTS, NftHandle
from oegw.intercept.tracking import Tracking
from oegw.powers import codec
from oegw.powers.frames import FrameError, Kind, Waiting
from oegw.powers.orders import (
    ANSWERS,
    Call,
    Code,
    Known,
    Knows,
    MarksFound,
    MarksOf,
    Nft,
    NfTransaction,
    Refused,
    Trouble,
)
from oegw.powers.permits import NftPermit, NotPermittedError
from oegw.sst.interface import SstError
from oegw.sst.plane.netlink import NfTables, RefusedError
from oegw.sst.plane.wire import Message


class Desk:
    """``answer`` does one order.  Raises what `refusal` knows.

    ``tracking``: whether who asks may ask for connections.  ``more``: what else it may ask for.
    """

    def __init__(
        self,
        permit: NftPermit,
        *,
        tracking: bool = False,
        more: Callable[[Call], Any] | None = None,
    ) -> None:
        self._permit = permit
        self._tracks = tracking
        self._more = more
        self._nft: NftHandle | None = None
        self._nf_tables: NfTables | None = None
        self._tracking = Tracking()

    def answer(self, order: Call) -> Any:
        match order:
            case Nft(command=command, flags=flags, dry=dry):
                self._permit.check(command)
                if flags not in OUTPUTS:
                    raise NotPermittedError(f"nft: not with the flags {flags:#x}")
                if self._nft is None:
                    self._nft = NftHandle()
                return self._nft.speak(command, flags, dry=dry)
            case NfTransaction() if self._tracks:
                return self._transaction(order)
            case Knows() if self._tracks:
                return Known(
                    self._tracking.knows(
                        order.source, order.destination, order.protocol, order.source_port,
                        order.destination_port,
                    )
                )  # fmt: skip
            case MarksOf(value=value, mask=mask) if self._tracks:
                return MarksFound(frozenset(self._tracking.marks(value, mask)))
        if self._more is None:
            raise NotPermittedError(f"{type(order).__name__} is not for who asks")
        return self._more(order)

    def reply(self, octets: bytes) -> tuple[Kind, bytes]:
        """To one order as it came.  Raises CodecError: what came is none."""
        order: Call = codec.decode(octets, Call)
        try:
            answer = self.answer(order)
        except TROUBLES as error:
            return Kind.REFUSAL, codec.encode(refusal(error), Refused)
        return Kind.ANSWER, codec.encode(answer, ANSWERS[type(order)])

    def close(self) -> None:
        if self._nft is not None:
            self._nft.close()
        if self._nf_tables is not None:
            self._nf_tables.close()
        self._tracking.close()

    def _transaction(self, order: NfTransaction) -> Code:
        self._permit.check_messages(order.messages)
        if self._nf_tables is None:
            self._nf_tables = NfTables()
        messages = [Message(each.kind, each.flags, each.body) for each in order.messages]
        try:
            self._nf_tables.run(messages)
        except RefusedError as refused:
            return Code(refused.code)
        return Code(0)


def attend(stream: socket.socket, desk: Desk) -> None:
    """Answer what comes, in a thread of its own, until the stream ends."""
    line = Waiting(stream)
    stream.settimeout(None)
    try:
        while True:
            kind, octets = line.receive()
            if kind is not Kind.CALL:
                return
            line.send(*desk.reply(octets))
    except (FrameError, codec.CodecError):
        return  # who asked has ended, or is none of ours
    finally:
        line.close()
        desk.close()


TROUBLES = (InterceptError, SstError, NotPermittedError, OSError)


def refusal(error: Exception) -> Refused:
    match error:
        case SstError():
            return Refused(Trouble.SST, str(error))
        case OSError():
            return Refused(Trouble.SYSTEM, error.strerror or str(error), error.errno or 0)
        case _:
            return Refused(Trouble.INTERCEPT, str(error))
