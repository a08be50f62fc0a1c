"""NAT keepalives, RFC 3948 section 4: so that the translator before us forgets no mapping.

One octet, sent by the side behind the NAT, once per way however many channels and
tunnels go there.  It says nothing, and what comes back proves nothing.
"""

from __future__ import annotations

from ike.alarms import Alarm
from ike.constants import KEEPALIVE
from ike.events import Datagram
from ike.station import Station
from ike.v1.nat import Path


class Keepalives:
    """Which ways must be kept open, and for whom."""

    def __init__(self, station: Station) -> None:
        self._station = station
        self._users: dict[Path, set[object]] = {}
        self._alarms: dict[Path, Alarm] = {}

    def keep_open(self, now: float, path: Path, user: object) -> None:
        """``user`` needs ``path`` until it is released."""
        users = self._users.setdefault(path, set())
        users.add(user)
        if path not in self._alarms:
            self._arm(now, path)

    def release(self, path: Path, user: object) -> None:
        users = self._users.get(path)
        if users is None:
            return
        users.discard(user)
        if not users:
            del self._users[path]
            self._alarms.pop(path).cancel()

    def sent(self, when: float, path: Path) -> None:
        """A packet went out on ``path`` at ``when``: the next keepalive may wait as long again."""
        alarm = self._alarms.get(path)
        if alarm is not None and when + self._station.configuration.keepalive_interval > alarm.when:
            alarm.cancel()
            self._arm(when, path)

    def _arm(self, now: float, path: Path) -> None:
        def ring(now: float) -> None:
            self._station.datagrams.append(Datagram(KEEPALIVE, path.local, path.remote))
            self._arm(now, path)

        interval = self._station.configuration.keepalive_interval
        self._alarms[path] = self._station.alarms.set(now + interval, ring)
