"""Records as a careless, or careful, operator publishes them: with some left out."""

from __future__ import annotations

import re
from collections.abc import Iterable

from lablib.errors import LabError
from lablib.scenario import Records


def type_of(line: str) -> str:
    """The type of a zone-file line as `oegw dns-records` prints it."""
    found = re.match(r"\S+\s+(?:\d+\s+)?(?:IN\s+)?([A-Z]+)\s", line)
    if found is None:
        raise LabError(f"record {line[:60]!r}: its type can't be read")
    return found[1]


def of_ports(line: str) -> bool:
    """Whether it publishes a key for port encryption."""
    return "X-SST-Key(" in line


def by_name(line: str, name: str) -> str:
    """A record of a port key at a domain name instead of a reverse name."""
    return f"_sst.{name}. {line.split(None, 1)[1]}"


def without_key(line: str) -> str:
    """A TXT delegation with its gateway only: what follows the first blank is the key."""
    found = re.match(r'(.*?\sTXT\s+\(?\s*"X-IPsec-Server\(\d+\)=[^\s"]+)', line, re.DOTALL)
    if found is None:
        raise LabError(f"record {line[:60]!r} is no delegation")
    return re.sub(r"\(\s*(?=\"X-IPsec)", "", found[1]) + '"'


def shaped(lines: Iterable[str], entries: Iterable[Records], gateway: str) -> list[str]:
    """The records of ``gateway`` as its entries in the scenario say."""
    mine = [entry for entry in entries if entry.gateway == gateway]
    omitted = {kind for entry in mine for kind in entry.omit}
    kept = [line for line in lines if type_of(line) not in omitted]
    if any(entry.only_ports for entry in mine):
        kept = [line for line in kept if of_ports(line)]
    if any(entry.keyless for entry in mine):
        kept = [without_key(line) if type_of(line) == "TXT" else line for line in kept]
    for name in (name for entry in mine for name in entry.names):
        kept = [by_name(line, name) if of_ports(line) else line for line in kept]
    return list(dict.fromkeys(kept))
