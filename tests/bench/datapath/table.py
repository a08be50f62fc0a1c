"""The figures as Markdown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.bench.datapath.claims import PLAIN, claims
from tests.bench.datapath.figures import QUANTITIES, Run

_NOTHING = "–"


@dataclass(frozen=True, slots=True)
class Column:
    title: str
    cell: Callable[[Run, str], str]


def _spread(key: str) -> Column:
    """The median, and from where to where."""
    quantity = QUANTITIES[key]

    def cell(run: Run, name: str) -> str:
        values, median = run.of(name, key), run.median(name, key)
        if median is None:
            return _NOTHING
        least, middle, most = (
            f"{v:,.{quantity.digits}f}" for v in (min(values), median, max(values))
        )
        return f"{middle} ({least} to {most})"

    return Column(f"{quantity.title}, {quantity.unit}", cell)


def _median(key: str) -> Column:
    quantity = QUANTITIES[key]

    def cell(run: Run, name: str) -> str:
        median = run.median(name, key)
        return _NOTHING if median is None else f"{median:,.{quantity.digits}f}"

    return Column(f"{quantity.title}, {quantity.unit}", cell)


def _ratio(key: str, title: str, others: Callable[[Run], list[str]]) -> Column:
    """To the best of the others."""

    def cell(run: Run, name: str) -> str:
        best, median = run.best(others(run), key), run.median(name, key)
        return _NOTHING if best is None or median is None else f"{median / best[1]:.2f}"

    return Column(title, cell)


def _plain(key: str) -> Column:
    return _ratio(key, "of plain's", lambda run: [PLAIN])


def _openvpn(key: str) -> Column:
    return _ratio(key, "of OpenVPN's", lambda run: run.openvpns)


def _best(key: str) -> Column:
    return _ratio(key, "of the best peer's", lambda run: run.peers)


TABLES: dict[str, list[Column]] = {
    "TCP": [
        _spread("tcp1"), _openvpn("tcp1"), _best("tcp1"),
        _spread("tcp4"), _openvpn("tcp4"), _best("tcp4"),
    ],
    "UDP datagrams of 64 octets, less than 1 % lost": [
        _spread("udp"), _openvpn("udp"), _best("udp"),
    ],
    "Round trip": [
        _spread("rtt_idle"), _openvpn("rtt_idle"), _median("rtt_idle_p99"),
        _spread("rtt_loaded"), _openvpn("rtt_loaded"), _median("rtt_loaded_p99"),
    ],
    "Cost": [
        _spread("cpu_gateways"), _spread("cpu_machine"), _openvpn("cpu_machine"), _median("memory"),
    ],
    "Many SAs": [
        _median("memory_sas"), _median("memory_tunnels"), _median("many_seconds"),
        _spread("few_tcp1"), _spread("many_tcp1"),
        _spread("few_udp"), _spread("many_udp"),
    ],
    "A relay that loses, reorders and duplicates": [
        _spread("road_smooth"), _spread("road_rough"), _spread("road_ratio"), _plain("road_ratio"),
        _median("road_repeated"), _median("road_replays"),
    ],
}  # fmt: skip


def _keys_present(run: Run, columns: list[Column]) -> list[str]:
    return [name for name in run.contenders if any(c.cell(run, name) != _NOTHING for c in columns)]


def _table(run: Run, title: str, columns: list[Column]) -> str:
    names = _keys_present(run, columns)
    if not names:
        return ""
    head = "| " + " | ".join(["", *(column.title for column in columns)]) + " |\n"
    line = "|" + " --- |" * (len(columns) + 1) + "\n"
    rows = "".join(
        "| "
        + " | ".join([run.contenders[name].title, *(c.cell(run, name) for c in columns)])
        + " |\n"
        for name in names
    )
    return f"### {title}\n\n{head}{line}{rows}\n"


def _conditions(run: Run) -> str:
    machine = "".join(f"| {key} | {value} |\n" for key, value in run.machine.items())
    versions = "".join(
        f"| {about.title} | {about.version} |\n"
        for about in run.contenders.values()
        if about.version
    )
    asked = ", ".join(f"{key} {value}" for key, value in run.asked.items())
    text = f"### Where and with what\n\n| | |\n| --- | --- |\n{machine}{versions}"
    text += f"\nAsked for: {asked}.\n"
    for about in run.contenders.values():
        if about.missing:
            text += (
                f"\nNot measured, since not installed: {about.title} ({', '.join(about.missing)})."
            )
        for failure in about.failures:
            text += f"\nFailed: {about.title}: {failure.splitlines()[0]}"
    return text.rstrip("\n") + "\n"


def claims_table(run: Run) -> str:
    rows = "".join(
        f"| {claim.text} | {claim.found or _NOTHING} | "
        f"{ {True: 'yes', False: '**no**', None: 'not measured'}[claim.holds] } |\n"
        for claim in claims(run)
    )
    return f"### What was to be shown\n\n| | found | |\n| --- | --- | --- |\n{rows}\n"


def markdown(run: Run) -> str:
    tables = "".join(_table(run, title, columns) for title, columns in TABLES.items())
    return f"{tables}{claims_table(run)}{_conditions(run)}"
