"""A look-up ahead: the key of who sent message 1 will be wanted at message 5 (RFC 4322 4.2).

Message 1 costs its sender nothing, and its source address may be forged.  So look-ups ahead have a
budget of their own: what exceeds it is looked up when message 5 asks for it, as if nothing had
been.  The answer goes into the resolver's memory; a look-up that is still under way is joined.
"""

from __future__ import annotations

from dataclasses import dataclass

from ike.events import ExchangeStarted
from oegw import commands as do
from oegw.ledger import Ledger
from policy.flow import IPAddress

# Our choices.
UNDER_WAY = 32  # at once
PER_SECOND = 50.0
BURST = 50.0  # after a while without any


@dataclass(frozen=True, slots=True)
class LookAhead:
    """Our question; nobody waits for the answer."""

    address: IPAddress


class Ahead:
    """The desk of message 1."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._under_way: set[IPAddress] = set()
        self._tokens = BURST
        self._filled_at = 0.0

    def exchange_started(self, event: ExchangeStarted, now: float) -> None:
        """Look the KEY records of the peer's address up, if we would do so at message 5."""
        ledger, address = self._ledger, event.remote.address
        if address in self._under_way or not ledger.may_look_up(address):
            return
        peers = ledger.peers.values()
        if any(p.key is not None and address in (p.address, p.identity) for p in peers):
            return
        self._tokens = min(BURST, self._tokens + PER_SECOND * max(0.0, now - self._filled_at))
        self._filled_at = now
        if len(self._under_way) >= UNDER_WAY or self._tokens < 1.0:
            ledger.trace.drop("gateway", "lookup_ahead_budget", remote=address)
            return
        self._tokens -= 1.0
        self._under_way.add(address)
        ledger.do(do.StartKeyLookup(ledger.start_lookup(LookAhead(address)), address))

    def ended(self, asker: LookAhead) -> None:
        """The answer is in the resolver's memory, or there is none."""
        self._under_way.discard(asker.address)
