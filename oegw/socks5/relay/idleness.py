"""Who has been idle for how long.  Told the time."""

from __future__ import annotations

from oegw.socks5.relay.pair import Pair


class Idleness:
    """Connections in the order in which they are to be looked at, for each idle time that there
    is: usually one.  What moved octets since then is looked at again later, so that moving them
    costs nothing here."""

    def __init__(self) -> None:
        self._due: dict[float, dict[Pair, float]] = {}

    def watch(self, pair: Pair) -> None:
        self._due.setdefault(pair.idle, {})[pair] = pair.active_at + pair.idle

    def forget(self, pair: Pair) -> None:
        watched = self._due.get(pair.idle)
        if watched is not None:
            watched.pop(pair, None)
            if not watched:
                del self._due[pair.idle]

    def next(self) -> float | None:
        """When to ask for who is `over`."""
        return min((next(iter(each.values())) for each in self._due.values()), default=None)

    def over(self, now: float) -> list[Pair]:
        """Whose time is over; they are watched on until they are forgotten."""
        found = []
        for watched in self._due.values():
            while watched:
                pair, due = next(iter(watched.items()))
                if due > now:
                    break
                del watched[pair]
                due = pair.active_at + pair.idle
                watched[pair] = due if due > now else now + pair.idle
                if due <= now:
                    found.append(pair)
        return found
