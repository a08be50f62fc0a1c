"""What is right in `[socks]` and does not do what its words say."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from oegw.settings import Settings
from oegw.socks5.settings import Rule, SocksSettings
from policy.rule import Category

_TUNNELLED = (Category.OPPORTUNISTIC, Category.CONFIGURED)


def socks_advice(settings: Settings) -> Iterator[str]:
    """What the operator should know of the SOCKS server, as sentences."""
    socks = settings.socks
    if not socks.present:
        return
    rules = (*settings.rules, settings.default)
    may_change = bool(settings.decision_points)
    tunnels = may_change or any(rule.category in _TUNNELLED for rule in rules)
    if socks.demands_encryption and not tunnels:
        yield "[socks]: what must be encrypted is always refused: no rule of the policy has tunnels"
    yield from _of_records(settings)
    yield from _of_passwords(socks)
    yield from _of_rules(socks)


def _of_records(settings: Settings) -> Iterator[str]:
    """Its flows have addresses of the gateway; a peer asks the DNS who speaks for them."""
    published = settings.publish.clients
    for address in settings.socks.outgoing or settings.gateway.addresses:
        if published and address not in published:
            yield (
                f"publish.clients: {address} is not among them, so peers may find nobody who "
                "speaks for what the SOCKS server opens"
            )


def _of_passwords(socks: SocksSettings) -> Iterator[str]:
    asking = [each for each in socks.listeners if each.authentication == "password"]
    if socks.users and not asking:
        yield "socks.user: no listener asks for passwords, so nobody is a user"
    for number, listener in enumerate(socks.listeners, 1):
        if listener in asking and not listener.address.is_loopback and listener.interface is None:
            yield (
                f"socks.listener[{number}]: {listener.address} may be reached from outside, and "
                "passwords cross the network in clear (RFC 1929)"
            )


def _of_rules(socks: SocksSettings) -> Iterator[str]:
    asking = any(each.authentication == "password" for each in socks.listeners)
    for_all: Rule | None = None
    for rule in socks.rules:
        if for_all is not None:
            yield f"{rule.origin} applies to nothing: {for_all.origin} before it is for all"
        elif rule.users and not asking:
            yield f"{rule.origin} applies to nothing: no listener asks for passwords"
        if replace(rule, encrypted=False, origin="") == Rule(rule.allow):
            for_all = for_all or rule
