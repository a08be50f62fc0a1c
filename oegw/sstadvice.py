"""What is right in `[sst]` and in rules with ``sst``, and does not do what its words say."""

from __future__ import annotations

from collections.abc import Iterator

from oegw.nat import Nat, unserved
from oegw.settings import Settings
from oegw.sst.permutation import PROTOCOLS
from oegw.sst.place import PORTED
from policy.builtin import all_never_public, never_public
from policy.rule import Rule, Sst, SstStrength

_STATIC = (Sst.ONLY, Sst.OUTER)  # placements whose keys come from the DNS, not from IKE


def sst_advice(settings: Settings, nat: Nat) -> Iterator[str]:
    """What the operator should know of port encryption, as sentences."""
    rules = (*settings.rules, settings.default)
    if not settings.encrypts_ports:
        yield from _of_what_is_off(settings, rules)
        return
    yield from _of_keys(settings, rules)
    yield from _of_paths(settings, rules, nat)
    for rule in rules:
        if reason := _unsealed(rule, settings):
            # What has no ports passes (ICMP, ESP), even where sealed ports are required.
            dropped = rule.sst_strength is SstStrength.REQUIRED and rule.protocol in {None, *PORTED}
            other = "is dropped" if dropped else "goes on without"
            yield f"rule {rule.name!r} never seals ports, its traffic {other}: {reason}"


def seals_behind_nat(settings: Settings, nat: Nat) -> bool:
    """Whether ports are to be encrypted that this box's own NAT has changed before."""
    rules = (*settings.rules, settings.default)
    translates = bool(nat.translations or nat.noticed)
    return settings.encrypts_ports and translates and any(r.sst is Sst.ONLY for r in rules)


def _of_what_is_off(settings: Settings, rules: tuple[Rule, ...]) -> Iterator[str]:
    for rule in rules:
        if rule.sst is not Sst.OFF:
            yield f'rule {rule.name!r}: sst = "{rule.sst.value}", and sst.enabled is false'
        elif rule.sst_strength is SstStrength.REQUIRED:
            yield (
                f"rule {rule.name!r}: sst_strength is of no effect: port encryption is off, so "
                "that nobody's request is heard"
            )
    if settings.sst.forwarder is not None:
        yield "sst.forwarder: port encryption is off, so that nobody listens there"


def _of_keys(settings: Settings, rules: tuple[Rule, ...]) -> Iterator[str]:
    sst = settings.sst
    if sst.private_key is not None:
        return
    if sst.forwarder is not None:
        yield "sst.forwarder: without sst.private_key the keys that it finds are of no use"
    if sst.old_keys:
        yield "sst.old_keys: without sst.private_key they are not used"
    if not any(rule.sst is Sst.INNER for rule in rules):
        yield '[sst]: without private_key, and without a rule with sst = "inner", no port is sealed'


def _of_paths(settings: Settings, rules: tuple[Rule, ...], nat: Nat) -> Iterator[str]:
    """Translation behind us gives sealed ports another meaning."""
    if not any(rule.sst in _STATIC for rule in rules):
        return
    for address in settings.gateway.addresses:
        if never_public(address):
            yield (
                f"gateway.addresses: {address} is not public: where a NAT translates it, sealed "
                'ports can\'t be opened, so that sst = "only" and "outer" don\'t get through'
            )
    for by in nat.translations:
        if all_never_public(by.outside):
            yield (
                f"[[nat]] {by}: the address outside is not public: where another NAT translates "
                "it, sealed ports can't be opened"
            )


def _unsealed(rule: Rule, settings: Settings) -> str:
    """Why nothing of a rule can be sealed; empty if it may be."""
    if rule.sst in _STATIC and settings.sst.private_key is None:
        return "that takes a key of ours, and there is no sst.private_key"
    if rule.sst is Sst.ONLY and rule.protocol not in {None, *PROTOCOLS}:
        return "it is neither for TCP nor for UDP"
    networks = rule.destination
    if (
        rule.sst is Sst.ONLY
        and settings.sst.forwarder is None
        and isinstance(networks, tuple)
        and all(unserved(network, settings.dns.local_reverse) for network in networks)
    ):
        return "its destination is private, and not in dns.local_reverse: nobody knows its keys"
    return ""
