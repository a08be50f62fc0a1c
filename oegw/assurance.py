"""How far the records behind a tunnel can be trusted, and what the policy demands of them.

RFC 4322 section 3.2.4.1: an operator may allow unsigned records to delegate to their own address
only; whoever forges one can then redirect nothing.  ``require = "secure"`` demands of all records
that a tunnel rests on that DNSSEC vouches for them (RFC 4033 section 5).  Pure decisions over
values, for both roles.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from enum import Enum

from dnsrecords.outcome import Gateway, GatewaysFound, NothingFound
from dnsrecords.trust import Trust, weakest
from policy.flow import IPAddress
from policy.rule import Category, Require, Rule


class UnsignedDelegation(Enum):
    """To whom a record that DNSSEC does not vouch for may delegate (RFC 4322 section 3.2.4.1)."""

    ANY = "any"
    SELF = "self"  # to the address that holds it, and to nobody else


class Unassured(Exception):  # noqa: N818  (it names the fact)
    """The records are good, and not good enough for the policy; the text says why."""


def trust_in(server: IPAddress, named: Collection[IPAddress]) -> tuple[bool, str]:
    """Whether a name server's word about DNSSEC counts, and why; ``named`` is ``dns.trusted``.

    It counts on a trusted path only: of a server on this very box, or one that the operator names,
    because nobody on the way to it can put an AD flag into its mouth (RFC 4035 section 4.9.3).
    """
    if server.is_loopback:
        return True, "on this box"
    if server in named:
        return True, "named in dns.trusted"
    return False, "not on this box, not in dns.trusted: all of its answers count as insecure"


def check(rule: Rule, trust: Trust | None) -> None:
    """Whether records of this trust are enough for a tunnel under ``rule``.  Raises Unassured.

    None is the trust of a key from the configuration.
    """
    if rule.category is not Category.OPPORTUNISTIC or rule.require is not Require.SECURE:
        return
    if trust is not Trust.SECURE:
        word = trust.value if trust else "unknown"
        raise Unassured(f"records are {word}, and rule {rule.name!r} requires secure ones")


def is_enough(rule: Rule, trust: Trust | None) -> bool:
    """Whether a tunnel that is up may stay under a new policy."""
    try:
        check(rule, trust)
    except Unassured:
        return False
    return True


def admitted(
    outcome: GatewaysFound, client: IPAddress, rule: Rule, unsigned: UnsignedDelegation
) -> list[Gateway]:
    """The gateways that may speak for ``client`` under ``rule``, each with its whole trust.

    Raises Unassured if there are gateways and none is admitted.
    """
    found: list[Gateway] = []
    refused: Unassured | None = None
    for gateway in outcome.gateways:
        trust = weakest(outcome.trust, gateway.trust)
        try:
            check(rule, trust)
            _check_delegation(outcome.trust, gateway, client, unsigned)
        except Unassured as why:
            refused = refused or why
        else:
            found.append(replace(gateway, trust=trust))
    if refused is not None and not found:
        raise refused
    return found


def filtered(
    outcome: GatewaysFound, client: IPAddress, rule: Rule, unsigned: UnsignedDelegation
) -> GatewaysFound | NothingFound:
    """The gateways that are admitted; without any it is as if there were no record."""
    try:
        gateways = tuple(admitted(outcome, client, rule, unsigned))
    except Unassured as why:
        return NothingFound(outcome.ttl, str(why))
    return GatewaysFound(gateways, outcome.ttl, weakest(*(each.trust for each in gateways)))


def _check_delegation(
    trust: Trust, gateway: Gateway, client: IPAddress, unsigned: UnsignedDelegation
) -> None:
    """A name does not count as the address itself: who forges one record forges two."""
    if trust is Trust.SECURE or unsigned is UnsignedDelegation.ANY:
        return
    if gateway.address != client or gateway.fqdn is not None:
        to = gateway.fqdn if gateway.address is None else gateway.address
        raise Unassured(
            f"{trust.value} record of {client} delegates to {to}; unsigned ones may only to itself"
        )
