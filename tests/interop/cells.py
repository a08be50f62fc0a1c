"""Reads ``cells.toml``: the cells, and the parameters of the tests that prove them."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields
from enum import Enum
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from tests.interop.site import Middle

FILE = Path(__file__).with_name("cells.toml")


# Where a cell runs: our datapath, strongSwan's plugin.
PLACES = {
    "host": ("userspace", "kernel-libipsec"),
    "kernel": ("kernel", "kernel-netlink"),
    "mixed": ("userspace", "kernel-netlink"),
}


class Role(Enum):
    """Who begins."""

    OURS = "ours-initiates"
    STRONGSWAN = "strongswan-initiates"


@dataclass(frozen=True)
class Cell:
    """One line of the matrix; the words are explained in ``cells.toml``."""

    name: str
    proves: str
    phase1: str
    phase2: str
    pfs: str
    selectors: str
    identities: str
    middle: Middle
    encapsulation: str
    port_encryption: str
    fragment: bool
    places: tuple[str, ...]
    what: str = ""
    by: str = ""


_WORDS = {
    "proves": {
        "traffic",
        "port-encryption",
        "fragments",
        "rekey",
        "dead-peer",
        "delete",
        "restart",
    },
    "selectors": {"subnets", "hosts"},
    "identities": {"addresses", "names"},
    "encapsulation": {"auto", "udp", "esp"},
    "port_encryption": {"off", "inner"},
    "what": {"", "tunnel", "channel", "close", "stop"},
    "by": {"", "ours", "strongswan"},
}


def _cell(usual: dict[str, Any], **own: Any) -> Cell:
    values = {**usual, **own}
    unknown = set(values) - {field.name for field in fields(Cell)}
    if set(values["places"]) - PLACES.keys():
        raise ValueError(f"{FILE.name}: {own['name']}: places = {values['places']}")
    if unknown:
        raise ValueError(f"{FILE.name}: {own['name']}: unknown keys {sorted(unknown)}")
    for key, words in _WORDS.items():
        if values.get(key, "") not in words:
            raise ValueError(f"{FILE.name}: {own['name']}: {key} = {values.get(key)!r}")
    return Cell(**{**values, "middle": Middle(values["middle"]), "places": tuple(values["places"])})


@cache
def cells() -> tuple[Cell, ...]:
    """All of the file."""
    text = tomllib.loads(FILE.read_text(encoding="utf-8"))
    usual, first, second = text["usual"], text["phase1"], text["phase2"]
    found = [
        _cell(
            usual,
            name=f"phase1-{proposal}-{group}",
            proves="traffic",
            phase1=f"{proposal}-{group}",
            pfs=group,
        )
        for proposal, group in product(first["proposals"], first["groups"])
    ]
    found += [
        _cell(
            usual,
            name=f"phase2-{proposal}-{'no-pfs' if group == 'none' else f'pfs-{group}'}",
            proves="traffic",
            places=second["places" if group == "none" else "places_with_pfs"],
            phase2=proposal,
            pfs=group,
        )
        for proposal, group in product(second["proposals"], second["pfs"])
    ]
    found += [_cell(usual, **own) for own in text["cell"]]
    names = [cell.name for cell in found]
    if len(set(names)) != len(names):
        raise ValueError(f"{FILE.name}: two cells of one name")
    return tuple(found)


def usual() -> Cell:
    """A cell with nothing special."""
    text = tomllib.loads(FILE.read_text(encoding="utf-8"))
    return _cell(text["usual"], name="usual", proves="traffic")


def parameters(proves: str) -> list[Any]:
    """Each cell that is about this, in both roles, for ``pytest.mark.parametrize``."""
    return [
        pytest.param(cell, role, id=f"{cell.name}-{role.value}")
        for cell in cells()
        if cell.proves == proves
        for role in Role
    ]
