"""Dead peer detection, RFC 3706: is the peer of this channel still there?

    HDR*, HASH, N(R-U-THERE, n)        -->
                                       <--  HDR*, HASH, N(R-U-THERE-ACK, n)

It is asked only when there is reason to doubt: we have sent something and nothing came
back for a while.  Any packet of the tunnels and any authenticated message is proof of life
(section 5.4).  Each R-U-THERE has its own number; the answer to any one of the unanswered
ones counts.
"""

from __future__ import annotations

from typing import Protocol

from ike.alarms import Alarm
from ike.constants import DPD_RETRY
from ike.errors import MalformedPayload, ReplayedSequence, UnexpectedMessage
from ike.registry import NotifyType
from ike.station import Station
from ike.v1.payloads import Notification
from ike.v1.transitions import LIVENESS, LivenessState, LivenessStep, Progress

_SEQUENCE_OCTETS = 4
_SEQUENCE_MASK = 0x7FFF_FFFF  # the first number has a clear high bit, so it never wraps


class Owner(Protocol):
    """The session, as dead peer detection sees it."""

    def send_notification(self, notify: NotifyType, octets: bytes) -> bytes: ...
    def peer_died(self, now: float) -> None: ...


def _sequence(notification: Notification, cookies: bytes) -> int:
    if notification.spi != cookies:
        raise MalformedPayload("R-U-THERE with other cookies than the channel's")
    if len(notification.octets) != _SEQUENCE_OCTETS:
        raise MalformedPayload(f"sequence number of {len(notification.octets)} octets")
    return int.from_bytes(notification.octets, "big")


class Liveness:
    """Both directions of one channel.  ``asks`` is whether the peer understands R-U-THERE."""

    def __init__(self, station: Station, owner: Owner, now: float, asks: bool) -> None:
        configuration = station.configuration
        self._interval = configuration.dpd_interval
        self._tries = configuration.dpd_tries
        self._asks = asks and self._interval > 0
        self._station = station
        self._owner = owner
        self._progress = Progress(LIVENESS, LivenessState.ALIVE)
        self._received = now
        self._sent = now
        self._number = int.from_bytes(station.random_octets(4), "big") & _SEQUENCE_MASK
        self._before_first = self._number
        self._unanswered = 0
        self._peers_last: int | None = None
        self._alarm: Alarm | None = None

    @property
    def state(self) -> LivenessState:
        return self._progress.state

    # What happens.

    def heard(self, when: float) -> None:
        """Something that only the peer can have sent came at ``when``."""
        if when <= self._received or self.state is LivenessState.DEAD:
            return
        self._received = when
        self._progress.advance(LivenessStep.HEARD)
        self._unanswered = 0
        self._silence_alarm()

    def traffic_seen(self, now: float, received: float | None, sent: float | None) -> None:
        """When the last packets of a tunnel went by."""
        if received is not None:
            self.heard(received)
        if sent is not None:
            self._sent = max(self._sent, sent)
        if self._asks and self._sent > self._received and self.state is LivenessState.ALIVE:
            self._set_alarm(max(now, self._received + self._interval))

    def _set_alarm(self, when: float) -> None:
        self._silence_alarm()
        self._alarm = self._station.alarms.set(when, self._doubt)

    def _silence_alarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()

    def _doubt(self, now: float) -> None:
        """Nothing came for too long."""
        if self._unanswered >= self._tries:
            self._progress.advance(LivenessStep.GAVE_UP)
            self._owner.peer_died(now)
            return
        self._number += 1
        self._unanswered += 1
        self._progress.advance(LivenessStep.ASKED)
        octets = self._number.to_bytes(_SEQUENCE_OCTETS, "big")
        self._owner.send_notification(NotifyType.R_U_THERE, octets)
        self._set_alarm(now + min(DPD_RETRY, self._interval))

    # What the peer says, under a right HASH.

    def asked(self, notification: Notification, cookies: bytes) -> bytes:
        """R-U-THERE: answers it; returns the answer.  Raises ``Dropped``."""
        number = _sequence(notification, cookies)
        if self._peers_last is not None and number <= self._peers_last:
            raise ReplayedSequence(f"{number} after {self._peers_last}")
        self._peers_last = number
        return self._owner.send_notification(NotifyType.R_U_THERE_ACK, notification.octets)

    def check_answer(self, notification: Notification, cookies: bytes) -> None:
        """R-U-THERE-ACK; raises ``Dropped`` unless it answers one of our last questions."""
        number = _sequence(notification, cookies)
        if not max(self._before_first, self._number - self._tries) < number <= self._number:
            raise UnexpectedMessage("R-U-THERE-ACK for no question of ours")

    def close(self) -> None:
        self._silence_alarm()
