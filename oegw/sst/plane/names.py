"""The names of maps, sets and chains that there are for each leg and each address family."""

from __future__ import annotations

from oegw.sst.interface import Leg

FAMILIES = (4, 6)
WORDS = {4: "ip", 6: "ip6"}
ADDRESS_TYPES = {4: "ipv4_addr", 6: "ipv6_addr"}


def outwards(leg: Leg, family: int) -> str:
    """The map from real ports, as they leave, to sealed ones."""
    return f"outwards_{leg.value}{family}"


def inwards(leg: Leg, family: int) -> str:
    """The map from sealed ports, as they arrive, to real ones."""
    return f"inwards_{leg.value}{family}"


def declined(leg: Leg, family: int) -> str:
    """The set of flows that go unsealed."""
    return f"declined_{leg.value}{family}"


def shielded(family: int) -> str:
    """The set of pairs of gateways."""
    return f"shielded{family}"


def chain(name: str, leg: Leg, family: int) -> str:
    return f"{name}_{leg.value}{family}"
