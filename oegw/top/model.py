"""What there is to see, from two answers of the gateway: rates, and rows.  Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from oegw.status import host, plain, span, traffic
from oegw.tallies import drops, ways

Row = dict[str, Any]

STATES = ("keyed", "clear", "denied", "pending", "potential", "expiring")


@dataclass(frozen=True, slots=True)
class Rate:
    """Of one way; None: not known yet."""

    packets: float | None = None  # a second
    bits: float | None = None  # a second


@dataclass(frozen=True, slots=True)
class Line:
    """A connection.  Rates in bits a second."""

    state: str
    source: str
    destination: str
    traffic: str
    gateway: str
    rule: str
    age: str
    left: str
    rate_in: float | None
    rate_out: float | None
    octets_in: int
    octets_out: int
    reason: str = ""
    warning: str = ""


@dataclass(frozen=True, slots=True)
class View:
    """All of a page.  ``ways``: of ``in``, ``out`` and ``clear``; ``dropped``: a second."""

    version: str
    pid: int
    identity: str
    datapath: str
    uptime: float | None
    ways: dict[str, Rate]
    dropped: float | None
    causes: tuple[str, ...]  # of what is dropped now, the most frequent first
    states: dict[str, int]
    tunnels: int
    channels: int
    held: int
    lookups: int
    matching: int
    warnings: tuple[str, ...]
    lines: tuple[Line, ...] = field(default=())

    @property
    def connections(self) -> int:
        return sum(self.states.values())


def restarted(before: Row | None, now: Row) -> bool:
    """Whether the two answers are of two lives of the gateway."""
    return before is not None and any(before.get(k) != now.get(k) for k in ("pid", "started"))


def view_of(before: Row | None, now: Row) -> View:
    """``before``: an earlier answer, if there is one; of another life it counts for nothing."""
    if restarted(before, now):
        before = None
    totals = now.get("totals") or {}
    counters = now.get("counters") or {}
    seconds = None
    if before is not None:
        seconds = float(now.get("moment", 0)) - float(before.get("moment", 0))
    states: dict[str, int] = {}
    for state, by_category in (totals.get("connections") or {}).items():
        states[plain(state)] = sum(by_category.values())
    lost = _differences(drops((before or {}).get("counters") or {}), drops(counters), seconds)
    started = now.get("started")
    uptime = now["now"] - started if isinstance(started, int | float) and "now" in now else None
    return View(
        version=plain(now.get("version", "?")),
        pid=int(now.get("pid") or 0),
        identity=_identity(now),
        datapath=_datapath(now.get("datapath") or {}),
        uptime=uptime,
        ways=_ways((before or {}).get("counters") or {}, counters, seconds),
        dropped=None if lost is None else sum(lost.values()),
        causes=_causes(lost or {}),
        states=states,
        tunnels=int(totals.get("tunnels", 0)),
        channels=int(totals.get("channels", 0)),
        held=int((now.get("held") or {}).get("packets", 0)),
        lookups=int(now.get("lookups", 0)),
        matching=int(totals.get("matching", 0)),
        warnings=_warnings(now, totals),
        lines=tuple(_line(row) for row in now.get("rows") or ()),
    )


def _ways(before: Row, now: Row, seconds: float | None) -> dict[str, Rate]:
    earlier, later = ways(before), ways(now)
    if not seconds or seconds <= 0:
        return dict.fromkeys(later, Rate())
    return {
        way: Rate(
            max(0, packets - earlier[way][0]) / seconds,
            max(0, octets - earlier[way][1]) * 8 / seconds,
        )
        for way, (packets, octets) in later.items()
    }


def _differences(
    before: dict[tuple[str, str], int], now: dict[tuple[str, str], int], seconds: float | None
) -> dict[tuple[str, str], float] | None:
    if not seconds or seconds <= 0:
        return None
    more = {cause: number - before.get(cause, 0) for cause, number in now.items()}
    return {cause: number / seconds for cause, number in more.items() if number > 0}


def _causes(lost: dict[tuple[str, str], float]) -> tuple[str, ...]:
    most = sorted(lost.items(), key=lambda each: (-each[1], each[0]))
    return tuple(f"{plain(where)} {plain(why)}" for (where, why), _ in most)


def _identity(status: Row) -> str:
    if name := status.get("identity") or status.get("fqdn"):
        return plain(name)
    return ", ".join(plain(address) for address in status.get("addresses") or ()) or "?"


def _datapath(datapath: Row) -> str:
    words = plain(datapath.get("name") or "?")
    if datapath.get("core"):
        words += f", {plain(datapath['core'])} core"
    if workers := datapath.get("workers"):
        words += f", {len(workers)} workers"
    return words


def _warnings(status: Row, totals: Row) -> tuple[str, ...]:
    """What an operator should know before anything else."""
    said = [plain(text) for text in status.get("warnings") or ()]
    said += [f"firewall: {plain(gap)}" for gap in status.get("firewall_gaps") or ()]
    if number := totals.get("downgraded"):
        many = "connections are" if number > 1 else "connection is"
        said.insert(0, f"{number} {many} in clear, encrypted last time")
    for row in status.get("resolvers") or ():
        if row.get("standing") not in (None, "good"):
            said.append(f"resolver {plain(row.get('address'))} is {plain(row['standing'])}")
    return tuple(said)


def _line(row: Row) -> Line:
    return Line(
        state=plain(row.get("state", "?")),
        source=host(row.get("source")),
        destination=host(row.get("destination")),
        traffic=traffic(row.get("protocol"), row.get("port")),
        gateway=plain(row.get("gateway") or "-"),
        rule=plain(row.get("rule") or "-"),
        age=span(row.get("since")),
        left=span(row.get("lifespan_left")),
        rate_in=_bits(row.get("rate_in")),
        rate_out=_bits(row.get("rate_out")),
        octets_in=int(row.get("bytes_in") or 0),
        octets_out=int(row.get("bytes_out") or 0),
        reason=plain(row.get("reason") or ""),
        warning=plain(row.get("encrypted_before") or ""),
    )


def _bits(octets: object) -> float | None:
    return octets * 8 if isinstance(octets, int | float) else None


def history(before: Sequence[float], view: View, most: int) -> list[float]:
    """Bits a second, both ways together, of the last few looks."""
    moved = [rate.bits for rate in (view.ways["in"], view.ways["out"]) if rate.bits is not None]
    return [*before, sum(moved)][-most:] if moved else list(before)
