"""Does this box translate sources?  Reads the rules of others: nftables, and iptables before it."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

from oegw.intercept.nft import Nft

# Our choices.
SHOWN = 4  # rules: enough to know which ones are meant
_PATIENCE = 10.0  # seconds for a program that lists rules

_TABLE = re.compile(r"table (\w+) (\S+) \{")
_SOURCE_HOOK = re.compile(r"type nat hook (?:postrouting|input) ")
_TRANSLATES = re.compile(r"\b(?:masquerade|snat|netmap)\b", re.IGNORECASE)
_LEGACY = (
    ("iptables-legacy-save", "ip_tables_names"),
    ("ip6tables-legacy-save", "ip6_tables_names"),
)


def translating_rules(own_table: str) -> tuple[str, ...]:
    """The rules, of whomever but us, that translate sources; the first few of them.

    Raises InterceptError if the rules can't be read: only root may.
    """
    found = [*_of_nftables(own_table), *_of_iptables()]
    return tuple(found[:SHOWN])


def _of_nftables(own_table: str) -> Iterator[str]:
    nft = Nft()
    try:
        table, tables = "", dict[str, None]()
        for line in nft.run("list chains").splitlines():
            if match := _TABLE.match(line):
                table = f"{match[1]} {match[2]}"
            elif _SOURCE_HOOK.search(line) and table != f"inet {own_table}":
                tables[table] = None
        for table in tables:
            for line in nft.run(f"list table {table}").splitlines():
                if _TRANSLATES.search(line.partition(" comment ")[0]):
                    yield f"nft table {table}: {line.strip()}"
    finally:
        nft.close()


def _of_iptables() -> Iterator[str]:
    for program, names in _LEGACY:
        try:
            loaded = Path("/proc/thread-self/net", names).read_text().split()
        except OSError:
            continue
        if "nat" not in loaded:
            continue
        try:
            done = subprocess.run(
                [program, "-t", "nat"], capture_output=True, text=True, timeout=_PATIENCE
            )
        except (OSError, subprocess.TimeoutExpired):
            yield f"iptables table nat, which {program} can't show"
            continue
        for line in done.stdout.splitlines():
            if line.startswith("-A") and _TRANSLATES.search(line.rpartition(" -j ")[2]):
                yield f"{program.removesuffix('-save')}: {line}"
