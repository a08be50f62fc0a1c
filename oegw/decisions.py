"""The decisions' desk: what points elsewhere say of our packets and of peers' proposals.

Hooks of the initiator's and the responder's desk; without decision points it does nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ike.events import TunnelProposed
from oegw import commands as do
from oegw import peer as peers
from oegw.connection import Connection, Selectors
from oegw.decision import Question, Replies, Role, Ruling, ruling
from oegw.ledger import Ledger
from policy.flow import IPAddress
from policy.rule import Category, OnFailure, PortRange, Require, Rule

if TYPE_CHECKING:
    from oegw.responder import Claim


@dataclass(slots=True)
class Approval:
    """Our question about a peer's proposal.

    ``waiting``: a claim that is found in order otherwise.
    """

    proposal: TunnelProposed
    replies: Replies | None = None
    waiting: Claim | None = None


class Decisions:
    """Asks when a connection or a proposal is to be decided on, and applies what comes back."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    # Packets of ours.

    def ask(self, lookup: int, connection: Connection) -> None:
        """Ask about a connection of ours, beside the DNS."""
        self.put_aside(connection)
        question = question_about(connection.selectors, connection.rule, Role.INITIATOR)
        self._ledger.do(do.StartDecision(lookup, question))

    def put_aside(self, connection: Connection) -> None:
        """What was said before is over: the local rule is the beginning of what holds next."""
        if connection.unruled is not None:
            connection.rule = connection.unruled
        connection.unruled = connection.ruled_until = None

    def hold_on(self, connection: Connection, rule: Rule) -> None:
        """A new policy has ``rule`` for it: what was demanded beyond the rule before still is."""
        ruled, connection.rule = connection.rule, rule
        if connection.unruled is None:
            return
        connection.unruled = rule
        if ruled.on_failure is OnFailure.DROP:
            connection.rule = replace(connection.rule, on_failure=OnFailure.DROP)
        if ruled.require is Require.SECURE:
            connection.rule = replace(connection.rule, require=Require.SECURE)

    def against_renewal(self, connection: Connection, replies: Replies, now: float) -> str | None:
        """Why a tunnel that stands is not to be renewed, if the points say so."""
        found = self._apply(connection, replies, now)
        if found.point is None or found.category is Category.OPPORTUNISTIC:
            return None
        return _reason(found)

    def settles(self, connection: Connection, replies: Replies, now: float) -> bool:
        """Apply the replies; whether that was all that is to be done for the connection."""
        ledger = self._ledger
        found = self._apply(connection, replies, now)
        if found.point is None or found.ttl is None:
            return False
        reason = _reason(found)
        if found.category is Category.OPPORTUNISTIC:
            if found.rule.initiate:
                return False
            ledger.fall_back(connection, found.ttl, f"{reason}, begins none", now)
        elif found.category is Category.DENY:
            ledger.fall_back(connection, found.ttl, reason, now, deny=True)
        else:
            ledger.fall_back(connection, found.ttl, reason, now)
        return True

    def _apply(self, connection: Connection, replies: Replies, now: float) -> Ruling:
        found = self._ruling(connection.rule, replies, connection.selectors)
        if found.rule is not connection.rule:
            connection.unruled, connection.rule = connection.rule, found.rule
        if found.ttl is not None:
            connection.ruled_until = now + found.ttl
        return found

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
        approval = ledger.approvals[event.tunnel] = Approval(event)
        question = question_about(
            selectors, rule, Role.RESPONDER, event.identity, event.remote.address
        )
        ledger.do(do.StartDecision(ledger.start_lookup(approval), question))

    def awaited(self, claim: Claim) -> bool:
        """Whether a claim that is in order otherwise has to wait for the points."""
        approval = self._ledger.approvals.get(claim.proposal.tunnel)
        if approval is None or approval.replies is not None:
            return False
        approval.waiting = claim
        return True

    def approved(self, event: TunnelProposed, selectors: Selectors, rule: Rule) -> Rule:
        """The rule under which a proposal is accepted.  Raises Refusal."""
        approval = self._ledger.approvals.pop(event.tunnel, None)
        if approval is None or approval.replies is None:
            return rule
        found = self._ruling(rule, approval.replies, selectors)
        if found.category is not Category.OPPORTUNISTIC:
            said = f": {found.reason}" if found.reason else ""
            raise peers.Refusal(f"decision point {found.point!r} says {found.category.value}{said}")
        return found.rule

    def answered(self, approval: Approval, replies: Replies) -> Claim | None:
        """The answer about a proposal; returns the claim that waits for it."""
        approval.replies = replies
        return approval.waiting

    def over(self, tunnel: int) -> None:
        """A proposal was refused: don't ask about it any more."""
        if tunnel in self._ledger.approvals:
            self._ledger.proposal_over(tunnel)

    def _ruling(self, rule: Rule, replies: Replies, selectors: Selectors) -> Ruling:
        found = ruling(rule, replies)
        if found.overruled:
            self._ledger.trace.drop(
                "decision", "not_relaxed", detail=found.overruled,
                source=selectors.local, destination=selectors.remote,
            )  # fmt: skip
        return found


def _reason(found: Ruling) -> str:
    said = f" ({found.reason})" if found.reason else ""
    return f"decision point {found.point!r}: {found.category.value}{said}"


def question_about(
    selectors: Selectors,
    rule: Rule,
    role: Role,
    identity: object = None,
    gateway: IPAddress | None = None,
) -> Question:
    """The question about a connection of ``rule`` with these selectors."""
    ours = role is Role.INITIATOR
    return Question(
        role,
        rule.name,
        str(selectors.local.network_address),
        str(selectors.remote.network_address),
        selectors.protocol or None,
        rule.source_ports if ours else PortRange.of(selectors.local_port),
        rule.destination_ports if ours else PortRange.of(selectors.remote_port),
        None if identity is None else str(identity),
        None if gateway is None else str(gateway),
    )
