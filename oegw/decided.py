"""What becomes of packets, as lines of the trace: each decision once when it begins, and its end.

Category ``verdict``; the event is the decision, ``clear``, ``deny`` or ``encrypt``, or ``ended``.
`audit.py` writes them down for the auditor; pure, told the time.
"""

from __future__ import annotations

from typing import Any

from oegw.commands import Verdict
from oegw.connection import Connection, State, Tunnel
from oegw.memory import KeyMemory, identity_text
from oegw.trace import Trace
from policy.flow import Flow
from policy.rule import ANY_PORT, PortRange, Rule, Scope

DECISIONS = {State.CLEAR: "clear", State.DENIED: "deny", State.KEYED: "encrypt"}


def verdict_begins(trace: Trace, connection: Connection, lifespan: float, now: float) -> None:
    """A connection without a tunnel is clear or denied, for ``lifespan`` seconds.

    ``renewed``: it was so before, and the DNS has been asked again.
    """
    decision = DECISIONS[connection.state]
    _begins(trace, connection, decision, now, reason=connection.reason, lifespan=round(lifespan, 3))


def tunnel_begins(
    trace: Trace, connection: Connection, tunnel: Tunnel, memory: KeyMemory, now: float
) -> None:
    """A tunnel carries it from now on.  ``renewed``: another one did before."""
    trust = tunnel.trust or connection.trust
    _begins(
        trace, connection, "encrypt", now, reason=connection.reason, gateway=tunnel.gateway,
        peer=identity_text(tunnel.peer), key=memory.key_of(tunnel.peer),
        trust=trust and trust.value, tunnel=tunnel.number, initiator=tunnel.initiator,
        cipher=tunnel.cipher, spi_in=tunnel.inbound and f"{tunnel.inbound.spi:08x}",
        spi_out=tunnel.outbound and f"{tunnel.outbound.spi:08x}",
    )  # fmt: skip


def _begins(trace: Trace, connection: Connection, decision: str, now: float, **fields: Any) -> None:
    began = connection.decided
    renewed = began is not None and began[0] == decision
    if not renewed:
        connection.decided = decision, now
    trace.event(
        "verdict", decision, **_about(connection), rule=connection.rule.name,
        rule_category=connection.rule.category.value, renewed=renewed, **fields,
    )  # fmt: skip


def ends(trace: Trace, connection: Connection, reason: str, now: float) -> None:
    """What was decided holds no longer; nothing if nothing was."""
    began, connection.decided = connection.decided, None
    if began is None:
        return
    decision, since = began
    trace.event(
        "verdict", "ended", decision=decision, **_about(connection), rule=connection.rule.name,
        rule_category=connection.rule.category.value, reason=reason,
        seconds=round(now - since, 3),
    )  # fmt: skip


def ruled(
    trace: Trace, rule: Rule, verdict: Verdict, flow: Flow, scope: Scope | None, lifespan: float
) -> None:
    """A rule decides by itself: permit or deny.  ``scope``: what it holds for, ``lifespan`` seconds
    in the kernel; None: for this packet only."""
    about: dict[str, Any] = {
        "source": flow.source,
        "destination": flow.destination,
        "protocol": flow.protocol,
        "port": flow.destination_port,
    }
    if scope is not None:
        about = {
            "source": scope.source,
            "destination": scope.destination,
            "protocol": scope.protocol,
            "port": _port(scope.destination_ports),
        }
    trace.event(
        "verdict", "clear" if verdict is Verdict.CLEAR else "deny", connection=None, **about,
        rule=rule.name, rule_category=rule.category.value, renewed=False,
        reason=f"rule {rule.name!r}", lifespan=None if scope is None else lifespan,
    )  # fmt: skip


def _about(connection: Connection) -> dict[str, Any]:
    selectors = connection.selectors
    return {
        "connection": connection.number,
        "source": selectors.local,
        "destination": selectors.remote,
        "protocol": selectors.protocol or None,
        "port": selectors.remote_port or None,
    }


def _port(ports: PortRange) -> int | str | None:
    if ports == ANY_PORT:
        return None
    return ports.first if ports.first == ports.last else f"{ports.first}-{ports.last}"
