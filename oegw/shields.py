"""Which gateways' ports are encrypted around IKE and ESP in UDP, and for whom (SST-38, ``outer``).

A pair of gateways is shielded while a tunnel or a keying channel between them needs it, and a
little longer: their last Deletes shall not show what went on before.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from policy.flow import IPAddress

# Our choice, seconds: a Delete is said three times, ten seconds apart (RFC 4322 section 3.4.2).
AFTER_THE_LAST = 30.0


@dataclass(frozen=True, slots=True)
class Ends:
    """Two gateways: our outer address and the peer's."""

    local: IPAddress
    remote: IPAddress


@dataclass(slots=True)
class _Shield:
    tunnels: set[int] = field(default_factory=set)
    channels: set[int] = field(default_factory=set)
    up: bool = False  # the shell has said that it works
    ends_at: float | None = None  # nobody needs it any more

    @property
    def needed(self) -> bool:
        return bool(self.tunnels or self.channels)


class Shields:
    """Books only.  What is bounded is the number of tunnels and channels."""

    def __init__(self) -> None:
        self._shields: dict[Ends, _Shield] = {}
        self._of_tunnel: dict[int, Ends] = {}
        self._of_channel: dict[int, Ends] = {}

    def __contains__(self, ends: Ends) -> bool:
        """Whether what we send there is sealed."""
        shield = self._shields.get(ends)
        return shield is not None and shield.up

    def raise_for(self, tunnel: int, ends: Ends) -> None:
        """A tunnel is to be negotiated behind the shield."""
        self._shields.setdefault(ends, _Shield()).tunnels.add(tunnel)
        self._of_tunnel[tunnel] = ends

    def raised(self, tunnel: int) -> None:
        """The shell has it up."""
        self._shields[self._of_tunnel[tunnel]].up = True

    def tunnel_over(self, tunnel: int) -> None:
        ends = self._of_tunnel.pop(tunnel, None)
        if ends is not None:
            self._shields[ends].tunnels.discard(tunnel)

    def channel_up(self, channel: int, ends: Ends) -> None:
        """What is said on a channel goes behind the shield, too, if there is one."""
        shield = self._shields.get(ends)
        if shield is not None:
            shield.channels.add(channel)
            self._of_channel[channel] = ends

    def channel_over(self, channel: int) -> None:
        ends = self._of_channel.pop(channel, None)
        if ends is not None:
            self._shields[ends].channels.discard(channel)

    def lower_for(self, tunnel: int) -> Ends | None:
        """The shield does not work for a tunnel: it is gone, unless there are others that it works
        for; says so."""
        ends = self._of_tunnel.get(tunnel)
        self.tunnel_over(tunnel)
        if ends is None or self._shields[ends].tunnels:
            return None
        for channel in self._shields.pop(ends).channels:
            del self._of_channel[channel]
        return ends

    def settle(self, now: float) -> None:
        """Something has ended or begun: those that nobody needs have a last moment."""
        for shield in self._shields.values():
            if shield.needed:
                shield.ends_at = None
            elif shield.ends_at is None:
                shield.ends_at = now + AFTER_THE_LAST

    def next_timer(self) -> float | None:
        moments = (shield.ends_at for shield in self._shields.values())
        return min((moment for moment in moments if moment is not None), default=None)

    def take_over(self, now: float) -> Iterator[Ends]:
        """Those whose last moment has come."""
        for ends, shield in list(self._shields.items()):
            if shield.ends_at is not None and shield.ends_at <= now and not shield.needed:
                del self._shields[ends]
                yield ends
