"""The tables of keys in `oegw/docs/configuration.md`: `python -m tests.support.configuration_page`
writes them anew, and a test holds the page to it.

Keys, defaults and values come from the code that reads a configuration, which is watched while it
reads one that has every table; the page has what each key means.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from inspect import signature
from pathlib import Path
from typing import Any

from oegw.config import examine_values
from oegw.configfile import Section
from tests.support.reference import DOCUMENT

HEADER = "| key | default | value | meaning |\n| --- | --- | --- | --- |\n"
EVERY_TABLE: dict[str, Any] = {
    "version": 1,
    "rule": [{"category": "configured"}],
    "nat": [{}],
    "decision_point": [{}],
    "audit": {},
    "sst": {"enabled": True, "requests": []},  # read only if they are there
    "moniker": {
        "grant": [{}], "rule": [{}], "host": [{}], "gateway": {}, "export": {"peer": [{}]},
        "client": {"rule": [{}]},
    },
    "socks": {"listener": [{}], "user": [{"connections": 1}], "rule": [{}]},
}  # fmt: skip
SAME = {"moniker.client.rule": "moniker.rule"}
"""Tables that have the keys of another one, which the page says in words."""

KINDS = {
    "path_relative_to": "path", "socket_path": "path", "paths_relative_to": "paths",
    "interface": "interface", "interfaces": "interfaces", "address": "address",
    "addresses": "addresses", "networks": "prefixes", "text": "text", "texts": "texts",
}  # fmt: skip
"""What the ways of reading read, but for those that have a range or words."""
RAW = {"protocol": "name or number", "password": "text", "requests": "texts"}
NEEDED = ("needed", "required")
RATES = {"queries"}
"""Read as seconds are, being any numbers, and something else."""
ELSEWHERE = {"sst.enabled", "socks.user.connections"}
"""Keys whose absence means something else than the default that they are read with."""

_HEADING = re.compile(r"^##+ `\[+([\w.]+)\]+`$", re.M)
_TABLE = re.compile(r"^\| key \|.*\n\|[-| ]*\n((?:\|.*\n)+)", re.M)
_NUMBER = re.compile(r"\[\d+\]")


@dataclass(frozen=True, slots=True)
class Key:
    """What the code says of a key.  ``default``: as TOML has it, "" if there is no fixed one."""

    default: str
    value: str


Keys = dict[str, dict[str, Key]]


def keys() -> Keys:
    """All keys that are read, by table; those that are tables themselves are not among them."""
    found: Keys = {}
    with _watched(found):
        examine_values(EVERY_TABLE, Path("/etc/oegw/oegw.toml"))
    for table, same in SAME.items():
        assert found[table].keys() == found[same].keys()
    return {
        table: {key: each for key, each in those.items() if f"{table}.{key}" not in found}
        for table, those in found.items()
        if table and table not in SAME  # "": version, and the tables
    }


@contextmanager
def _watched(found: Keys) -> Iterator[None]:
    """Notes what sections are asked for meanwhile; of calls within calls the outermost counts."""
    names = ("raw", "integer", "seconds", "truth", "choice", "subsection", "tables", *KINDS)
    before: dict[str, Callable[..., Any]] = {name: getattr(Section, name) for name in names}
    depth = 0

    def watched(name: str) -> Callable[..., Any]:
        parameters = signature(before[name])

        def call(section: Section, *arguments: Any) -> Any:
            nonlocal depth
            given = parameters.bind(section, *arguments).arguments
            if depth == 0 and name not in ("subsection", "tables"):
                those = found.setdefault(_NUMBER.sub("", section.path), {})
                key = given["key"]
                if name != "raw" or key not in those:
                    those[key] = _key(name, given)
            # What reads a table is no part of the call.
            depth += name not in ("subsection", "tables")
            try:
                return before[name](section, *arguments)
            finally:
                depth -= name not in ("subsection", "tables")

        return call

    for name in names:
        setattr(Section, name, watched(name))
    try:
        yield
    finally:
        for name, method in before.items():
            setattr(Section, name, method)


def _key(name: str, given: dict[str, Any]) -> Key:
    key, default = given["key"], given.get("default")
    if name == "integer":
        hexadecimal = key.endswith(("_mask", "_mark"))
        shown = f"{default:#x}" if hexadecimal else str(default)
        return Key(f"`{shown}`", "bits" if hexadecimal else f"{given['low']} to {given['high']}")
    if name == "seconds":
        unit = "" if key in RATES else "seconds, "
        return Key(f"`{default:g}`", f"{unit}{given['low']:g} to {given['high']:.15g}")
    if name == "truth":
        return Key(f"`{str(default).lower()}`", "`true`, `false`")
    if name == "choice":
        words = ", ".join(f'`"{word}"`' for word in given["choices"])
        chosen = [word for word, value in given["choices"].items() if value == default]
        return Key(f'`"{chosen[0]}"`' if chosen else "", words)
    if name == "raw":
        return Key("", RAW.get(key, "port or range" if key.endswith("ports") else "text"))
    plain = default.value if isinstance(default, Enum) else default
    return Key("" if plain is None else f"`{plain}`", KINDS[name])


def with_tables(page: str) -> str:
    """The page with its tables as the code has them.  Raises AssertionError if one of the two has
    a table or a key that the other has not."""
    there = keys()
    heads = list(_HEADING.finditer(page))
    names = {head[1] for head in heads}
    assert there.keys() - names == set(), "tables that the page does not have"
    parts = [page[: heads[0].start()]]
    for head, after in zip(heads, [*heads[1:], None], strict=True):
        text = page[head.start() : after.start() if after else len(page)]
        parts.append(_with_table(text, head[1], there.get(head[1], {})))
    return "".join(parts)


def _with_table(text: str, table: str, ours: dict[str, Key]) -> str:
    found = _TABLE.search(text)
    rows = [] if found is None else [_cells(line) for line in found[1].splitlines()]
    theirs = {cells[0].strip("`"): cells for cells in rows}
    assert theirs.keys() == ours.keys(), (table, theirs.keys() ^ ours.keys())
    if found is None:
        return text
    lines = []
    for key, cells in theirs.items():
        default = _default(f"{table}.{key}", ours[key].default, cells[1])
        lines.append(f"| `{key}` | {default} | {ours[key].value} | {cells[-1]} |\n")
    return text[: found.start()] + HEADER + "".join(lines) + text[found.end() :]


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split(" | ")]


def _default(place: str, ours: str, theirs: str) -> str:
    """The code's.  Where it has none, the page says in words or an example what holds then; what
    the page has in the code's own value, written otherwise (`2.0`, `2`), stays."""
    words = "`" not in theirs
    if not ours or place in ELSEWHERE or (words and (ours == "`0`" or theirs in NEEDED)):
        return theirs
    return theirs if not words and _same(ours, theirs) else ours


def _same(ours: str, theirs: str) -> bool:
    one, other = ours.strip("`").strip('"'), theirs.strip("`").strip('"')
    try:
        return float(one) == float(other)
    except ValueError:
        return one == other


def main(path: Path = DOCUMENT) -> None:
    path.write_text(with_tables(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
