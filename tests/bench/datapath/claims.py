"""What issue 9 must show of speed, each with the figure that was found."""

from __future__ import annotations

from dataclasses import dataclass

from tests.bench.datapath.figures import Run

COMPILED, PYTHON, PLAIN = "ours-compiled", "ours-python", "plain"
_NOISE = 0.95  # a ratio of ratios differs by so much from run to run, with nothing else changed


@dataclass(frozen=True, slots=True)
class Claim:
    """``holds`` is None where the run did not measure what it needs."""

    text: str
    found: str
    holds: bool | None

    def line(self) -> str:
        verdict = {True: "yes", False: "NO", None: "not measured"}[self.holds]
        return (
            f"{verdict:<12} {self.text}: {self.found}"
            if self.found
            else f"{verdict:<12} {self.text}"
        )


def claims(run: Run) -> list[Claim]:
    return [
        _times_openvpn(run, PYTHON, "pure Python", 2.5),
        _times_openvpn(run, COMPILED, "compiled core", 6.0),
        *(
            _four_streams(run, *each)
            for each in ((COMPILED, "compiled core"), (PYTHON, "pure Python"))
        ),
        _packets(run),
        *(
            _round_trip(run, name, title, key, when)
            for key, when in (("rtt_idle", "idle"), ("rtt_loaded", "loaded"))
            for name, title in ((COMPILED, "compiled core"), (PYTHON, "pure Python"))
        ),
        *(_many(run, *each) for each in ((COMPILED, "compiled core"), (PYTHON, "pure Python"))),
        *(_road(run, *each) for each in ((COMPILED, "compiled core"), (PYTHON, "pure Python"))),
    ]


def _times_openvpn(run: Run, name: str, title: str, wanted: float) -> Claim:
    text = f"one TCP stream, {title}, at least {wanted:g} times OpenVPN"
    ours, theirs = run.median(name, "tcp1"), run.best(run.openvpns, "tcp1")
    if ours is None or theirs is None:
        return Claim(text, "", None)
    ratio = ours / theirs[1]
    return Claim(
        text, f"{ratio:.2f} ({ours:,.0f} and {theirs[1]:,.0f} Mbit/s, {theirs[0]})", ratio >= wanted
    )


def _four_streams(run: Run, name: str, title: str) -> Claim:
    text = f"four TCP streams, {title}, at least 0.9 of one"
    one, four = run.median(name, "tcp1"), run.median(name, "tcp4")
    if one is None or four is None:
        return Claim(text, "", None)
    return Claim(text, f"{four / one:.2f} ({four:,.0f} and {one:,.0f} Mbit/s)", four >= 0.9 * one)


def _packets(run: Run) -> Claim:
    text = "UDP with 64 octets, compiled core, more packets a second than the best peer"
    ours, best = run.median(COMPILED, "udp"), run.best(run.peers, "udp")
    if ours is None or best is None:
        return Claim(text, "", None)
    python = run.median(PYTHON, "udp")
    beside = f"; pure Python {python:,.0f}" if python is not None else ""
    return Claim(text, f"{ours:,.0f}, {best[0]} {best[1]:,.0f}{beside}", ours > best[1])


def _round_trip(run: Run, name: str, title: str, key: str, when: str) -> Claim:
    text = f"round trip {when}, {title}, at most OpenVPN's"
    ours, theirs = run.median(name, key), run.best(run.openvpns, key)
    if ours is None or theirs is None:
        return Claim(text, "", None)
    p99 = [run.median(each, f"{key}_p99") or 0.0 for each in (name, theirs[0])]
    return Claim(
        text,
        f"{ours:.3f} and {theirs[1]:.3f} ms, {theirs[0]} (99 %: {p99[0]:.3f} and {p99[1]:.3f})",
        ours <= theirs[1],
    )


def _many(run: Run, name: str, title: str) -> Claim:
    text = f"10,000 SAs, {title}, within 10 % of one SA's throughput"
    few, many = run.median(name, "few_tcp1"), run.median(name, "many_tcp1")
    if few is None or many is None:
        return Claim(text, "", None)
    packets = [run.median(name, f"{which}_udp") for which in ("few", "many")]
    spread = (
        f"; over 1,000 of them {packets[1]:,.0f} packets/s, over one {packets[0]:,.0f}"
        if all(packets)
        else ""
    )
    return Claim(
        text, f"{many / few:.2f} ({many:,.0f} and {few:,.0f} Mbit/s{spread})", many >= 0.9 * few
    )


def _road(run: Run, name: str, title: str) -> Claim:
    text = (
        f"a relay that loses, reorders and duplicates, {title}, falls no more than plain does "
        f"(at least {_NOISE:g} of what plain keeps), replays dropped"
    )
    ours, plain = run.median(name, "road_ratio"), run.median(PLAIN, "road_ratio")
    replays = run.of(name, "road_replays")
    if ours is None or plain is None or not replays:
        return Claim(text, "", None)
    rates = [run.median(name, f"road_{which}") or 0.0 for which in ("rough", "smooth")]
    spread = run.of(name, "road_ratio")
    return Claim(
        text,
        f"{ours:.2f} is left ({min(spread):.2f} to {max(spread):.2f}; {rates[0]:,.0f} of "
        f"{rates[1]:,.0f} Mbit/s), of plain's {plain:.2f}; {sum(replays):,.0f} replays dropped of "
        f"{sum(run.of(name, 'road_repeated')):,.0f} packets sent twice",
        ours >= _NOISE * plain and min(replays) > 0,
    )
