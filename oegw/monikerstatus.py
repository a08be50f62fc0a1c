"""The state of Moniker's daemon: asked over its Unix socket, and as text."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from oegw.control import ControlError, NotPermittedError, request
from oegw.status import columns, plain, span

STATUS_SECONDS = 10.0

Row = Mapping[str, Any]


def status(path: Path, timeout: float = STATUS_SECONDS) -> dict[str, Any]:
    """What the daemon at the Unix socket ``path`` says of itself.

    Raises ControlError; NotPermittedError for who is not root.
    """
    for answer in request(path, {"do": "status", "tag": 1}, timeout):
        found = answer.get("status")
        if isinstance(found, dict):
            return found
        text = plain(answer.get("text", "no status"))
        if answer.get("code") == "denied":
            raise NotPermittedError(f"{path}: {text}; be root")
        raise ControlError(f"{path}: {text}")
    raise ControlError(f"{path}: no answer")


def status_text(status: Row) -> str:
    """The whole of it, for people."""
    facts = [
        ["Daemon", f"process {status.get('pid', '?')}, up for {_age(status.get('started'))}"],
        ["Questions at", f"port {status.get('port', '?')} of {_words(status.get('addresses'))}"],
        ["Applications", f"{status.get('applications', 0)} at {plain(status.get('socket', '?'))}"],
        ["Services", str(status.get("services", 0))],
        ["Encrypted", plain(status.get("key") or "no: this host has no key")],
        ["Firewall", plain(status.get("firewall", "none"))],
    ]
    if gateway := status.get("gateway"):
        facts.append(["Gateway", plain(gateway)])
    if hosts := status.get("hosts"):
        facts.append(["Hosts", _words(hosts)])
    if export := status.get("export"):
        facts.append(["Export", ", ".join(f"{plain(k)} {plain(v)}" for k, v in export.items())])
    lines = columns(facts)
    if leases := status.get("leases"):
        more = status.get("more_leases", 0)
        rows = [["CLIENT", "HOST", "PORT", "SERVICE", "LEFT"], *(_lease(each) for each in leases)]
        lines += ["", "Leases", *(f"  {line}" for line in columns(rows, right=(4,)))]
        lines += [f"  and {more} more"] if more else []
    if counters := status.get("counters"):
        lines += ["", "Counters"]
        width = max(len(plain(name)) for name in counters)
        lines += [f"  {plain(name):<{width}}  {value:>10}" for name, value in counters.items()]
    return "\n".join(lines) + "\n"


def _age(started: object) -> str:
    return span(time.time() - started) if isinstance(started, int | float) else "-"


def _words(values: object) -> str:
    return ", ".join(plain(each) for each in values) if isinstance(values, list) else "-"


def _lease(row: Row) -> list[str]:
    namespace = row.get("namespace")
    service = plain(row.get("service", "?"))
    return [
        plain(row.get("client", "?")),
        plain(row.get("host", "?")),
        f"{plain(row.get('transport', '?'))}/{plain(row.get('port', '?'))}",
        f"{plain(namespace)}::{service}" if namespace else service,
        span(row.get("seconds")),
    ]
