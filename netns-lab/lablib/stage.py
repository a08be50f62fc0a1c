"""What the steps of a scenario share, and how steps and facts say that something is amiss."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Interface
from typing import Any

from lablib.errors import LabError
from lablib.lab import Lab
from lablib.run import Process


class Missed(Exception):  # noqa: N818  (it names the fact)
    """A step or a fact is not as expected; the text says what was seen."""


@dataclass(slots=True)
class Stage:
    """The lab and the processes left running; by host and link the addresses that were changed;
    by name the seconds between the packets of a ping, and which of them was looked at last; how
    much of what a program printed was read; megabytes of memory by what they are of; ADDRESS IDs
    by a name for them."""

    lab: Lab
    background: dict[str, Process] = field(default_factory=dict)
    addresses: dict[tuple[str, str], IPv4Interface] = field(default_factory=dict)
    intervals: dict[str, float] = field(default_factory=dict)
    looked_at: dict[str, int] = field(default_factory=dict)
    read: dict[str, int] = field(default_factory=dict)
    memory: dict[str, float] = field(default_factory=dict)
    ids: dict[str, str] = field(default_factory=dict)


def check_keys(entry: dict[str, Any], allowed: set[str]) -> None:
    """Raises LabError for a key that no one reads: most likely a typing error."""
    unknown = set(entry) - allowed - {"do", "kind", "text"}
    if unknown:
        raise LabError(f"{entry.get('do') or entry.get('kind')}: unknown {sorted(unknown)}")
