"""What the kernel is asked, done by the hands: `elsewhere.Kernel`, and a queue of packets."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from oegw.intercept.interface import InterceptError
from oegw.intercept.nfqueue import Taker
from oegw.powers.orders import (
    Address,
    CloseQueue,
    CountQueue,
    ForgetSources,
    Iptables,
    IptablesDone,
    Knows,
    MarksOf,
    NfMessage,
    Nft,
    NfTransaction,
    OpenQueue,
    Spoken,
    TakeImprint,
)
from oegw.powers.packets import Packet, Verdict
from oegw.powers.tohands import HandsGone, ToHands

# Our choices.
_BURST = 64  # packets read before the event loop gets its turn again
_LARGEST = 1 << 17


class DistantKernel:
    """See `elsewhere.Kernel`."""

    def __init__(self, hands: ToHands) -> None:
        self._hands = hands

    def nft(self, command: str, flags: int, *, dry: bool) -> Spoken:
        """Raises InterceptError."""
        try:
            spoken: Spoken = self._hands.call(Nft(command, flags, dry))
        except HandsGone as error:
            raise InterceptError(str(error)) from None
        return spoken

    def nf_tables(self, messages: tuple[NfMessage, ...]) -> int:
        try:
            code: int = self._hands.call(NfTransaction(messages)).number
        except HandsGone:
            return errno.EPIPE
        return code

    def imprint(self, family: str, table: str) -> str:
        """Raises InterceptError."""
        try:
            text: str = self._hands.call(TakeImprint(family, table)).text
        except HandsGone as error:
            raise InterceptError(str(error)) from None
        return text

    async def iptables(self, order: Iptables) -> IptablesDone:
        """Raises InterceptError."""
        try:
            done: IptablesDone = await self._hands.ask(order)
        except HandsGone as error:
            raise InterceptError(str(error)) from None
        return done

    def queue(
        self, number: int, length: int, taker: Taker, said: Callable[[str], None], whole: bool
    ) -> DistantQueue:
        return DistantQueue(self._hands, OpenQueue(number, length, whole), taker, said)

    def knows(
        self, source: Address, destination: Address, protocol: int, source_port: int,
        destination_port: int,
    ) -> bool:  # fmt: skip
        """Raises OSError."""
        order = Knows(source, destination, protocol, source_port, destination_port)
        try:
            known: bool = self._hands.call(order).known
        except HandsGone as error:
            raise OSError(errno.EPIPE, str(error)) from None
        return known

    def marks(self, value: int, mask: int) -> set[int]:
        """Raises OSError."""
        try:
            return set(self._hands.call(MarksOf(value, mask)).marks)
        except HandsGone as error:
            raise OSError(errno.EPIPE, str(error)) from None

    async def forget_other_sources(
        self, source: Address, destination: Address, outside: Address
    ) -> int:
        """Raises OSError."""
        try:
            answer = await self._hands.ask(ForgetSources(source, destination, outside))
        except HandsGone as error:
            raise OSError(errno.EPIPE, str(error)) from None
        number: int = answer.number
        return number


class DistantQueue:
    """See `nfqueue.KernelQueue`: the hands hold the packets."""

    def __init__(
        self, hands: ToHands, order: OpenQueue, taker: Taker, said: Callable[[str], None]
    ) -> None:
        self._hands = hands
        self._order = order
        self._taker = taker
        self._said = said
        self._packets: socket.socket | None = None

    def open(self) -> None:
        """Raises InterceptError."""
        try:
            opened, descriptor = self._hands.call_for_gift(self._order)
        except HandsGone as error:
            raise InterceptError(str(error)) from None
        self._packets = socket.socket(fileno=descriptor)
        for words in opened.said:
            self._said(words)

    def fileno(self) -> int:
        assert self._packets is not None
        return self._packets.fileno()

    def read(self) -> None:
        """A burst of what waits; what the taker raises on one comes out behind the others."""
        failure: Exception | None = None
        for _ in range(_BURST):
            if self._packets is None:
                break
            try:
                octets = self._packets.recv(_LARGEST, socket.MSG_DONTWAIT)
            except OSError:
                break
            if not octets:  # they have ended, which others say
                break
            packet = Packet.parse(octets)
            held = _HeldPacket(self._hands, self._order.number, packet)
            try:
                self._taker(held, packet.octets)
            except Exception as error:
                failure = failure or error
        if failure is not None:
            raise failure

    @property
    def overflows(self) -> int:
        counted: int = self._count().overflows
        return counted

    def dropped(self) -> dict[str, int]:
        counted: dict[str, int] = self._count().dropped
        return counted

    def close(self) -> None:
        if self._packets is None:
            return
        with suppress(HandsGone):  # and with them the queue
            self._hands.call(CloseQueue(self._order.number))
        self._packets.close()
        self._packets = None

    def _count(self) -> Any:
        try:
            return self._hands.call(CountQueue(self._order.number))
        except HandsGone as error:
            raise InterceptError(str(error)) from None


class _HeldPacket:
    """See `nfqueue.HeldPacket`."""

    def __init__(self, hands: ToHands, queue: int, packet: Packet) -> None:
        self._hands = hands
        self._queue = queue
        self._number = packet.number
        self._octets = packet.octets
        self._mark, self._other_mark = packet.mark, False
        self._other: bytes | None = None
        self.hook, self.indev, self.outdev = packet.hook, packet.indev, packet.outdev

    def get_payload(self) -> bytes:
        return self._octets if self._other is None else self._other

    def set_payload(self, payload: bytes) -> None:
        self._other = payload

    def get_mark(self) -> int:
        return self._mark

    def set_mark(self, mark: int) -> None:
        self._mark, self._other_mark = mark, True

    def accept(self) -> None:
        mark = self._mark if self._other_mark else None
        self._give(Verdict(self._queue, self._number, True, mark, self._other))

    def drop(self) -> None:
        self._give(Verdict(self._queue, self._number, False))

    def _give(self, verdict: Verdict) -> None:
        self._hands.give_verdict(verdict.serialize())
