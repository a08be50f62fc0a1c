"""The gateway that runs: whether it does, and what it says of itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from oegw import __version__
from oegw.doctor.facts import Facts
from oegw.doctor.finding import NOTE, PROBLEM, WARNING, Finding, Kind, Shell

ABSENT = Kind(
    "daemon-not-running",
    WARNING,
    "no gateway runs",
    "nothing is encrypted; what an earlier run protects is dropped",
    "{start}",
)
SILENT = Kind(
    "daemon-silent",
    PROBLEM,
    "a gateway has the control socket, and does not answer",
    "it can't be told anything, and may not decide on packets either: they are dropped",
    "{kill}{start}",
)
COMPLAINS = Kind(
    "daemon-complains",
    PROBLEM,
    "the gateway that runs can't say how it is",
    "something that it needs is gone",
    "{restart}",
)
VERSION = Kind(
    "daemon-other-version",
    WARNING,
    "the gateway that runs is of another version than this program",
    "after an upgrade it has not been started again; commands may mean something else to it",
    "{restart}",
)
GATEWAYS = Kind(
    "gateways-silent",
    NOTE,
    "gateways that the DNS names have not answered lately",
    "until they are tried again, on_failure decides for the hosts behind them",
    "{forget}",
)
WORKERS = Kind(
    "workers-restarted",
    WARNING,
    "processes that move packets have ended, and been started again, several times",
    "each time packets are lost; it should never happen",
    "{status}",
)
COMPANION = Kind(
    "companion-down",
    PROBLEM,
    "a daemon beside the gateway, Moniker's or the SOCKS server, does not run",
    "its clients are not served; the gateway starts it again and again",
    "{status}",
)
SLOW = Kind(
    "resolver-slow",
    WARNING,
    "a name server takes longer to answer than the gateway waits before it asks again, or has not "
    "answered it lately",
    "first packets wait for it",
    "{status}",
)
HELD = Kind(
    "refused-tunnels",
    NOTE,
    "tunnels have been refused lately, by us or by peers",
    "traffic of these pairs is not encrypted",
    "{status}",
)
KINDS = (ABSENT, SILENT, COMPLAINS, VERSION, GATEWAYS, WORKERS, COMPANION, SLOW, HELD)

SEVERAL = 3  # our choice: one may have been killed by hand


def look(facts: Facts) -> Iterator[Finding]:
    daemon, mending = facts.daemon(), facts.mending
    status = daemon.status
    if status is None:
        if daemon.complains:
            yield COMPLAINS.found(daemon.reason, restart=mending.restart)
        elif daemon.hangs:
            kill = Shell(f"kill -9 {daemon.number}; " if daemon.number else "")
            yield SILENT.found(daemon.reason, kill=kill, start=mending.start)
        else:
            yield ABSENT.found(daemon.reason, start=mending.start)
        return
    if (version := status.get("version")) != __version__:
        what = f"it is {version}, and this program {__version__}"
        yield VERSION.found(what, restart=mending.restart)
    if silent := status.get("silent_gateways"):
        named = ", ".join(sorted(silent))
        yield GATEWAYS.found(f"no answer from {named}", forget=mending.oegw("forget 0.0.0.0/0"))
    words = {"status": mending.oegw("status")}
    workers: list[dict[str, Any]] = (status.get("datapath") or {}).get("workers") or []
    ended = [w for w in workers if int(w.get("restarts") or 0) >= SEVERAL]
    if ended:
        what = "ended: " + ", ".join(f"{w.get('name')} {w.get('restarts')} times" for w in ended)
        yield WORKERS.found(what, **words)
    for name in ("moniker", "socks"):
        row = status.get(name) or {}
        if set(row) == {"reason"}:
            yield COMPANION.found(f"{name}: {row['reason']}", **words)
    for server in status.get("resolvers") or ():
        if server.get("standing") in ("slow", "dead"):
            what = f"the gateway finds that {server.get('address')} is {server['standing']}"
            yield SLOW.found(what, **words)
    if refusals := status.get("refusals"):
        last = refusals[-1]
        what = (
            f"{len(refusals)} were refused, the last with {last.get('peer')}: {last.get('reason')}"
        )
        yield HELD.found(what, **words)
