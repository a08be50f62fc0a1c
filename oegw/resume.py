"""After a restart: what of the verdicts and silences before it goes on (`lasting.py`).

A verdict is put back without the kernel's knowledge: the next packet is trapped, looked up in the
policy, and finds it, without a question to the DNS and without being held.
"""

from __future__ import annotations

from collections.abc import Callable

from oegw import decided
from oegw.connection import Happening, Selectors
from oegw.gateways import SilentGateways
from oegw.lasting import Standing
from oegw.ledger import Ledger
from policy.flow import Flow
from policy.rule import Category, Rule


def resume(
    ledger: Ledger,
    wanted: Callable[[Flow, Rule], Selectors],
    silent: SilentGateways,
    now: float,
) -> None:
    """``wanted``: what is proposed for a flow under a rule today."""
    lasting, lifespans = ledger.lasting, ledger.settings.lifespans
    for gateway, left in lasting.silent(now, lifespans.silence):
        silent.fell_silent(gateway, left, now)
    resumed = forgotten = 0
    for verdict in lasting.standing(now, lifespans.longest):
        rule = _rule_of(ledger, wanted, verdict)
        if rule is None:
            lasting.withdraw(verdict.selectors, verdict.rule, urgent=False)
            forgotten += 1
            continue
        connection = ledger.connections.create(verdict.selectors, rule, now)
        denied, reason = verdict.denied, f"as before the restart: {verdict.reason}"
        happening = Happening.FELL_BACK_DENY if denied else Happening.FELL_BACK_CLEAR
        ledger.move(connection, happening, reason, now)
        ledger.expire_at(connection, verdict.until)
        decided.verdict_begins(ledger.trace, connection, verdict.until - now, now)
        resumed += 1
    if resumed or forgotten or len(silent):
        ledger.trace.event(
            "memory", "resumed", verdicts=resumed, forgotten=forgotten, silent=len(silent)
        )


def _rule_of(
    ledger: Ledger, wanted: Callable[[Flow, Rule], Selectors], verdict: Standing
) -> Rule | None:
    """The rule by which the verdict stands today as well; None if it is to be found anew.

    What had a tunnel once is asked about again before it is clear: it may have one to be had.
    """
    selectors, flow = verdict.selectors, verdict.selectors.flow()
    rule = ledger.table.lookup(flow).rule
    stands = (
        not ledger.decision_points  # who must have a say
        and not ledger.connections.full
        and rule.category is Category.OPPORTUNISTIC
        and rule.name == verdict.rule
        and ledger.lasting.basis(rule) == verdict.basis
        and wanted(flow, rule) == selectors
        and ledger.connections.exact(selectors, rule) is None
    )
    if not verdict.denied:
        encrypted = ledger.memory.encrypted_by(selectors) is not None
        stands = stands and not rule.protected and not encrypted
    return rule if stands else None
