"""The state of the SOCKS server: asked over its Unix socket, and as text."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from oegw.control import ControlError, request
from oegw.status import columns, octets, plain, span

STATUS_SECONDS = 10.0

Row = Mapping[str, Any]


def status(path: Path, timeout: float = STATUS_SECONDS) -> dict[str, Any]:
    """What the server at the Unix socket ``path`` says of itself
    (`oegw.socks5.server.service.Server.snapshot`).

    Raises ControlError; NotPermittedError for who is not root.
    """
    for answer in request(path, {"do": "status"}, timeout):
        found = answer.get("status")
        if isinstance(found, dict):
            return found
        raise ControlError(f"{path}: {plain(answer.get('error', 'no status'))}")
    raise ControlError(f"{path}: no answer")


def status_text(status: Row) -> str:
    """The whole of it, for people."""
    connections = [_pairs(_table(status, key)) for key in ("connections", "under_way")]
    octets_of = _table(status, "octets")
    facts = [
        [
            "Server",
            f"process {plain(status.get('pid', '?'))}, up for {_age(status.get('started'))}",
        ],
        *(["Listens at", _listener(row)] for row in status.get("listeners") or ()),
        ["Connections", ", ".join(filter(None, connections)) or "none"],
        ["Octets", _pairs({name: octets(number) for name, number in octets_of.items()}) or "none"],
        ["ADDRESS IDs", _pairs(_table(status, "ids")) or "none"],
    ]
    lines = columns(facts)
    users = _table(status, "octets_of_users")
    if users:
        rows = [["USER", "OCTETS"], *([plain(name), octets(n)] for name, n in users.items())]
        lines += ["", "Users", *(f"  {line}" for line in columns(rows, right=(1,)))]
    if counters := _table(status, "counters"):
        lines += ["", "Counters"]
        width = max(len(plain(name)) for name in counters)
        lines += [f"  {plain(name):<{width}}  {value:>10}" for name, value in counters.items()]
    return "\n".join(lines) + "\n"


def _table(status: Row, key: str) -> Row:
    found = status.get(key)
    return found if isinstance(found, dict) else {}


def _pairs(table: Row) -> str:
    """``relayed 3, binding 0``, but for tables within it."""
    return ", ".join(
        f"{plain(name).replace('_', ' ')} {plain(value)}"
        for name, value in table.items()
        if not isinstance(value, dict | list)
    )


def _listener(row: Row) -> str:
    address = plain(row.get("address", "?"))
    words = f"[{address}]" if ":" in address else address
    words += f":{plain(row.get('port', '?'))}"
    if interface := row.get("interface"):
        words += f" of {plain(interface)}"
    if row.get("authentication") == "password":
        words += ", with password"
    if row.get("encrypted"):
        words += ", encrypted only"
    return words if row.get("listening", True) else words + " (not yet: there is no such address)"


def _age(started: object) -> str:
    return span(time.time() - started) if isinstance(started, int | float) else "-"
