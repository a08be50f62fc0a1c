"""Keys of gateways whose TXT records have none: looked up while main mode runs (RFC 4322 4.2).

Message 1 does not wait for them.  Found, they are in the resolver's memory when `ike` asks for them
at message 6.  If not, nothing can come of the negotiation: only when all look-ups succeed is it one
(section 3.2.4).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dnsrecords.outcome import KeyOutcome, KeysFound, Malformed, NothingFound, Unanswered
from dnsrecords.trust import weakest
from ike.events import Failure, NegotiationFailed
from oegw import assurance
from oegw import commands as do
from oegw.connection import Connection
from oegw.ledger import Ledger
from policy.flow import IPAddress


@dataclass(frozen=True, slots=True)
class GatewayKey:
    """Our question: the KEY records of the gateway with which ``tunnel`` is being negotiated."""

    tunnel: int
    gateway: IPAddress


class LateKeys:
    """``failed`` is told of a negotiation that the keys were not found for."""

    def __init__(self, ledger: Ledger, failed: Callable[[NegotiationFailed, float], None]) -> None:
        self._ledger = ledger
        self._failed = failed

    def look_up(self, connection: Connection, number: int, gateway: IPAddress) -> None:
        """A tunnel has been ordered without keys."""
        lookup = self._ledger.start_lookup(GatewayKey(number, gateway))
        connection.tunnels[number].key_lookup = lookup
        self._ledger.do(do.StartKeyLookup(lookup, gateway, purpose="gateway-key"))

    def known(self, asker: GatewayKey, outcome: KeyOutcome, now: float) -> None:
        """What the KEY records say."""
        ledger = self._ledger
        connection = ledger.connections.of_tunnel(asker.tunnel)
        if connection is None:
            return
        tunnel = connection.tunnels[asker.tunnel]
        tunnel.key_lookup = None
        if isinstance(outcome, KeysFound):
            trust = outcome.trust
            if tunnel.trust is not None:  # that of the record that names the gateway
                trust = weakest(trust, tunnel.trust)
            try:
                assurance.check(connection.rule, trust)
            except assurance.Unassured as why:
                outcome = NothingFound(outcome.ttl, str(why))
                if tunnel.agreed:
                    ledger.do(do.CloseTunnel(asker.tunnel))
                    return
            else:
                tunnel.trust = trust
                ledger.rests_on(connection, trust, asker.gateway)
                return
        if tunnel.agreed:  # on a channel that was there: its key was found when it was made
            return
        detail = f"key of {asker.gateway}: {outcome.detail}"
        if isinstance(outcome, Malformed):
            ledger.trace.event(
                "gateway", "malformed_record", destination=connection.selectors.remote,
                detail=detail,
            )  # fmt: skip
        worst = (connection.key_failure, outcome)
        connection.key_failure = next(
            each for kind in (Malformed, Unanswered, NothingFound) for each in worst
            if isinstance(each, kind)
        )  # fmt: skip
        ledger.do(do.CloseTunnel(asker.tunnel))
        failed = NegotiationFailed(asker.tunnel, Failure.NO_KEY, detail)
        self._failed(failed, now)
