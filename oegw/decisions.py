"""The decisions' desk: what points elsewhere say of our packets and of peers' proposals.

Hooks of the initiator's and the responder's desk; without decision points it does nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ike.events import TunnelProposed
from oegw import commands as do
from oegw import peer as peers
from oegw.connection import Connection, Selectors
from oegw.decision import Reply, Role, Ruling, question_about, ruling
from oegw.ledger import Ledger
from policy.rule import Category, OnFailure, Rule


@dataclass(slots=True)
class Approval:
    """Our question about a peer's proposal.

    ``waiting``: the responder's desk has said yes, and waits for the answer.
    """

    proposal: TunnelProposed
    replies: tuple[Reply, ...] | None = None
    waiting: Selectors | None = field(default=None)


class Decisions:
    """Asks when a connection or a proposal is to be decided on, and applies what comes back."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._approvals: dict[int, Approval] = {}  # by the number of the proposed tunnel

    # Packets of ours.

    def ask(self, lookup: int, connection: Connection) -> None:
        """Ask about a connection of ours, beside the DNS."""
        question = question_about(connection.selectors, connection.rule, Role.INITIATOR)
        self._ledger.do(do.StartDecision(lookup, question))

    def settles(self, connection: Connection, replies: tuple[Reply, ...], now: float) -> bool:
        """Apply the replies; whether that was all that is to be done for the connection."""
        ledger = self._ledger
        found = self._ruling(connection.rule, replies, connection.selectors)
        connection.rule = found.rule
        if found.ttl is not None:
            connection.ruled_until = now + found.ttl
        if found.point is None or found.ttl is None:
            return False
        reason = f"decision point {found.point!r}: {found.category.value}"
        if found.reason:
            reason += f" ({found.reason})"
        if found.category is Category.OPPORTUNISTIC:
            if found.rule.initiate:
                return False
            ledger.fall_back(connection, found.ttl, f"{reason}, begins none", now)
        elif found.category is Category.DENY:
            ledger.fall_back(connection, found.ttl, reason, now, deny=True)
        else:
            assert found.rule.relax or found.rule.on_failure is OnFailure.CLEAR
            ledger.pass_clear(connection, found.ttl, reason, now)
        return True

    # What a peer proposes.

    def proposed(self, event: TunnelProposed) -> None:
        """Ask about what a stranger proposes, while the DNS is asked for its authority."""
        ledger = self._ledger
        if not ledger.decision_points:
            return
        try:
            selectors = peers.proposed_selectors(event)
            if peers.configured_rule(event, selectors, ledger.table, ledger.peers) is not None:
                return
            rule = peers.opportunistic_rule(selectors, ledger.table)
        except peers.Refusal:
            return  # the responder's desk says so to the peer
        approval = self._approvals[event.tunnel] = Approval(event)
        question = question_about(
            selectors, rule, Role.RESPONDER, event.identity, event.remote.address
        )
        ledger.do(do.StartDecision(ledger.start_lookup(approval), question))

    def approved(self, event: TunnelProposed, selectors: Selectors, rule: Rule) -> Rule | None:
        """The rule under which a proposal is accepted; None: it is to wait for the answer.

        Raises Refusal.
        """
        approval = self._approvals.get(event.tunnel)
        if approval is None or rule.category is not Category.OPPORTUNISTIC:
            return rule
        if approval.replies is None:
            approval.waiting = selectors
            return None
        del self._approvals[event.tunnel]
        found = self._ruling(rule, approval.replies, selectors)
        if found.category is not Category.OPPORTUNISTIC:
            said = f": {found.reason}" if found.reason else ""
            raise peers.Refusal(
                f"decision point {found.point!r} says {found.category.value}{said}"
            )
        return found.rule

    def answered(self, approval: Approval, replies: tuple[Reply, ...]) -> Selectors | None:
        """The answer about a proposal; returns what waits to be accepted."""
        approval.replies = replies
        return approval.waiting

    def over(self, tunnel: int) -> None:
        """A proposal was refused, or given up."""
        approval = self._approvals.pop(tunnel, None)
        for number, asker in list(self._ledger.lookups.items()) if approval else ():
            if asker is approval:
                del self._ledger.lookups[number]
                self._ledger.do(do.CancelLookup(number))

    def _ruling(self, rule: Rule, replies: tuple[Reply, ...], selectors: Selectors) -> Ruling:
        found = ruling(rule, self._ledger.decision_points, replies)
        if found.overruled:
            self._ledger.trace.drop(
                "decision", "not_relaxed", detail=found.overruled,
                source=selectors.local, destination=selectors.remote,
            )  # fmt: skip
        return found
