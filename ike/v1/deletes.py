"""Deletes of tunnels that wait for the peer's own Delete (RFC 4322 section 3.4.2)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from ike.alarms import Alarm, Alarms
from ike.constants import DELETE_INTERVAL, DELETE_TRIES
from ike.registry import Protocol as SecurityProtocol
from ike.v1.payloads import Delete, Payload


class Owner(Protocol):
    """The session, as its Deletes see it."""

    def send_informational(self, payloads: list[Payload]) -> bytes: ...
    def send(self, name: str, message: bytes, retransmission: bool = False) -> None: ...


class _Pending:
    __slots__ = ("alarm", "inbound_spi", "message", "sent")

    def __init__(self, inbound_spi: bytes) -> None:
        self.inbound_spi = inbound_spi
        self.message = b""
        self.sent = 0
        self.alarm: Alarm | None = None

    def cancel(self) -> None:
        if self.alarm is not None:
            self.alarm.cancel()


class Deletes:
    """Those of one channel, by the SPI that the peer's answer will name.

    ``all_done(now)`` is called when the last one was answered or given up.
    """

    def __init__(self, alarms: Alarms, owner: Owner, all_done: Callable[[float], None]) -> None:
        self._alarms = alarms
        self._owner = owner
        self._all_done = all_done
        self._pending: dict[bytes, _Pending] = {}

    def __len__(self) -> int:
        return len(self._pending)

    def begin(self, now: float, inbound_spi: bytes, outbound_spi: bytes) -> None:
        """Tell the peer that we no longer receive on ``inbound_spi``, until it says the same."""
        former = self._pending.get(outbound_spi)
        if former is not None:  # the peer chose one SPI for two tunnels
            former.cancel()
        pending = _Pending(inbound_spi)
        self._pending[outbound_spi] = pending
        self._send(now, outbound_spi, pending)

    def _send(self, now: float, outbound_spi: bytes, pending: _Pending) -> None:
        if pending.message:
            self._owner.send("INFO", pending.message, retransmission=True)
        else:
            payload = Delete(SecurityProtocol.ESP, (pending.inbound_spi,))
            pending.message = self._owner.send_informational([payload])
        pending.sent += 1

        def silence(now: float) -> None:
            if pending.sent < DELETE_TRIES:
                self._send(now, outbound_spi, pending)
            else:
                self.answered(now, outbound_spi)

        pending.alarm = self._alarms.set(now + DELETE_INTERVAL, silence)

    def answered(self, now: float, outbound_spi: bytes) -> None:
        """The peer has deleted its side, or nothing more can be done."""
        pending = self._pending.pop(outbound_spi, None)
        if pending is not None:
            pending.cancel()
            if not self._pending:
                self._all_done(now)

    def move(self, now: float, other: Deletes) -> None:
        """Say the rest over another channel with the same peer."""
        pending, self._pending = self._pending, {}
        for outbound_spi, one in pending.items():
            one.cancel()
            other.begin(now, one.inbound_spi, outbound_spi)

    def close(self) -> None:
        for pending in self._pending.values():
            pending.cancel()
        self._pending.clear()
