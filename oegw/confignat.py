"""Reading ``[[nat]]``: what sources this box translates, and to what."""

from __future__ import annotations

from typing import Any

from oegw.configfile import BadValue, Problems, Section, kind_of, network_from
from oegw.nat import NatRule, complaint
from policy.flow import IPNetwork

GATEWAY = "gateway"  # in place of an address: our own outer one


def read_nat(values: Any, problems: Problems) -> tuple[NatRule, ...]:
    """The rules of all ``[[nat]]``; what is wrong with them is in ``problems``."""
    if not isinstance(values, list):
        problems.add("nat", f"must be written [[nat]], in double brackets, not {kind_of(values)}")
        return ()
    faults = len(problems)
    rules = [_rule(number, each, problems) for number, each in enumerate(values, 1)]
    found = tuple(rule for rule in rules if rule is not None)
    if len(problems) == faults:
        for number, key, reason in complaint(found):
            problems.add(f"nat[{number}].{key}", reason)
    return found if len(problems) == faults else ()


def _rule(number: int, values: Any, problems: Problems) -> NatRule | None:
    if not isinstance(values, dict):
        problems.add(f"nat[{number}]", f"must be a table, not {kind_of(values)}")
        return None
    faults = len(problems)
    section = Section(values, f"nat[{number}]", problems)
    if "inside" not in section:
        section.wrong("inside", "is missing: which sources are translated?")
    inside = _network(section, "inside")
    outside = None if section.raw("outside") == GATEWAY else _network(section, "outside")
    section.end()
    if inside is not None:
        if inside.prefixlen == 0:
            section.wrong("inside", f"{inside} is everything, what is outside included")
        if outside is not None and (reason := _mismatch(inside, outside)):
            section.wrong("outside", reason)
    if inside is None or len(problems) != faults:
        return None
    return NatRule(inside, outside, problems.place(f"nat[{number}]"))


def _network(section: Section, key: str) -> IPNetwork | None:
    word = section.text(key)
    if word is None:
        return None
    try:
        return network_from(word)
    except BadValue as error:
        section.wrong(key, str(error))
        return None


def _mismatch(inside: IPNetwork, outside: IPNetwork) -> str:
    """Why sources of ``inside`` can't become ``outside``; empty if they can."""
    if inside.version != outside.version:
        return f"{outside} is of another address family than {inside}"
    if outside.prefixlen not in (inside.prefixlen, outside.max_prefixlen):
        return f"{outside} is neither one address nor as long a prefix as {inside}"
    if outside.network_address.is_multicast or outside.network_address.is_unspecified:
        return f"{outside} is not the address of a host"
    return ""
