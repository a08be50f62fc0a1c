"""The parts of `tests/bench/datapath` that compute: what they say of made-up measurements.

The bench itself is run by hand.
"""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.bench.datapath import ours_gateway, page, pings
from tests.bench.datapath.claims import claims
from tests.bench.datapath.contenders import (
    fastd,
    nebula,
    openvpn,
    ours,
    plain,
    strongswan,
    tinc,
    wireguard,
)
from tests.bench.datapath.drawing import drawing
from tests.bench.datapath.figures import About, Run
from tests.bench.datapath.profile import samples
from tests.bench.datapath.roundtrip import RoundTrip
from tests.bench.datapath.small import Trial, highest
from tests.bench.datapath.table import markdown
from tests.interop.processes import InteropError

EVERYBODY = (
    *plain.PLAIN, *openvpn.OPENVPN, *wireguard.WIREGUARD, *tinc.TINC, *fastd.FASTD, *nebula.NEBULA,
    *strongswan.STRONGSWAN, *ours.OURS,
)  # fmt: skip


@pytest.mark.parametrize("limit", [900.0, 30_000.0, 74_000.0, 410_000.0])
@pytest.mark.parametrize("known", [None, 40_000.0, 70_000.0])
def test_the_search_finds_what_a_tunnel_carries(limit: float, known: float | None) -> None:
    found = highest(lambda rate: Trial(rate, rate, min(rate, limit)), known)
    assert 0.93 * limit < found <= limit


def test_the_search_ends_where_the_sender_can_send_no_more() -> None:
    asked: list[float] = []

    def attempt(rate: float) -> Trial:
        asked.append(rate)
        sent = min(rate, 100_000.0)
        return Trial(rate, sent, sent)

    assert highest(attempt) == 100_000.0
    assert len(asked) < 6


def test_what_is_known_makes_the_search_short() -> None:
    asked: list[float] = []

    def attempt(rate: float) -> Trial:
        asked.append(rate)
        return Trial(rate, rate, min(rate, 52_000.0))

    assert highest(attempt, 50_000.0) > 49_000.0
    assert len(asked) <= 6


def test_one_bad_moment_does_not_end_the_search() -> None:
    chance = random.Random(1)

    def attempt(rate: float) -> Trial:
        came = min(rate, 50_000.0)
        return Trial(rate, rate, came * (0.5 if chance.random() < 0.1 else 1.0))

    assert highest(attempt) > 45_000.0


def test_a_tunnel_that_carries_nothing_has_no_rate() -> None:
    assert highest(lambda rate: Trial(rate, rate, 0.0)) == 0.0


def test_round_trips_have_a_middle_and_an_end() -> None:
    found = RoundTrip.of([number + 0.5 for number in range(100, 0, -1)], 104)
    assert (found.median, found.p99, found.lost) == (51.0, 99.5, 4)
    with pytest.raises(InteropError):
        RoundTrip.of([], 104)


def test_a_ping_has_a_checksum() -> None:
    packet = pings.request(0x1234, 7)
    assert (packet[0], len(packet), pings.checksum(packet)) == (8, 64, 0)


def run_of(**medians: dict[str, float]) -> Run:
    """Three rounds each, around these values; a contender's name with _ for -."""
    run = Run({"kernel": "6.1"}, {"rounds": 3})
    for name, found in medians.items():
        real = name.replace("_", "-")
        ours_too = real.startswith("ours")
        run.contenders[real] = About(real.title(), ours_too, real == "plain")
        for factor in (0.9, 1.0, 1.2):
            run.add(real, {key: value * factor for key, value in found.items()})
    return run


RUN = run_of(
    plain={"tcp1": 30_000, "udp": 150_000, "road_ratio": 0.5},
    openvpn_256={"tcp1": 600, "tcp4": 500, "udp": 60_000, "rtt_idle": 0.13, "rtt_loaded": 2.0},
    openvpn_128={"tcp1": 500, "tcp4": 500, "udp": 50_000, "rtt_idle": 0.15, "rtt_loaded": 3.0},
    nebula={"tcp1": 650, "udp": 70_000},
    ours_compiled={
        "tcp1": 3601, "tcp4": 3000, "udp": 70_001, "rtt_idle": 0.13, "rtt_loaded": 2.1,
        "road_ratio": 0.48, "road_replays": 10, "road_repeated": 11,
    },
    ours_python={
        "tcp1": 1499, "few_tcp1": 1500, "many_tcp1": 1400, "road_ratio": 0.47, "road_replays": 10,
    },
)  # fmt: skip


def test_each_claim_has_its_verdict() -> None:
    found = {claim.text: claim.holds for claim in claims(RUN)}
    assert found == {
        "one TCP stream, pure Python, at least 2.5 times OpenVPN": False,
        "one TCP stream, compiled core, at least 6 times OpenVPN": True,
        "four TCP streams, compiled core, at least 0.9 of one": False,
        "four TCP streams, pure Python, at least 0.9 of one": None,
        "UDP with 64 octets, compiled core, more packets a second than the best peer": True,
        "round trip idle, compiled core, at most OpenVPN's": True,
        "round trip idle, pure Python, at most OpenVPN's": None,
        "round trip loaded, compiled core, at most OpenVPN's": False,
        "round trip loaded, pure Python, at most OpenVPN's": None,
        "10,000 SAs, compiled core, within 10 % of one SA's throughput": None,
        "10,000 SAs, pure Python, within 10 % of one SA's throughput": True,
        "a relay that loses, reorders and duplicates, compiled core, falls no more than plain does "
        "(at least 0.95 of what plain keeps), replays dropped": True,
        "a relay that loses, reorders and duplicates, pure Python, falls no more than plain does "
        "(at least 0.95 of what plain keeps), replays dropped": False,
    }


def test_a_relay_whose_replays_got_through_is_no_success() -> None:
    run = run_of(plain={"road_ratio": 0.5}, ours_compiled={"road_ratio": 0.5, "road_replays": 0})
    [claim] = [each for each in claims(run) if "relay" in each.text and "compiled" in each.text]
    assert claim.holds is False


def test_the_table_has_medians_spreads_and_ratios() -> None:
    text = markdown(RUN)
    assert "| Ours-Compiled | 3,601 (3,241 to 4,321) | 6.00 | 5.54 | 3,000" in text
    assert "| Plain | 150,000 (135,000 to 180,000) | 2.50 | 2.14 |" in text


def test_what_is_missing_or_failed_is_told() -> None:
    run = Run()
    run.contenders["tinc"] = About("tinc", missing=["tincd"])
    run.contenders["fastd"] = About("fastd", failures=["round 2: it ended\nwith a long story"])
    text = markdown(run)
    assert "Not measured, since not installed: tinc (tincd)." in text
    assert "Failed: fastd: round 2: it ended" in text
    assert "story" not in text


def test_figures_survive_their_json() -> None:
    assert Run.parse(RUN.serialize()) == RUN
    with pytest.raises(ValueError, match="version"):
        Run.parse("{}")


def test_the_drawing_has_a_bar_for_each_value() -> None:
    root = ElementTree.fromstring(drawing(RUN))
    bars = [each for each in root.iter("{http://www.w3.org/2000/svg}rect") if "x" in each.attrib]
    assert len(bars) == 6 + 3 + 5 + 3 + 3
    assert all(float(each.attrib["width"]) > 0 for each in bars)


def test_figures_go_into_the_page_between_its_marks() -> None:
    path = Path(__file__).parents[1] / page.PAGE
    text = path.read_text(encoding="utf-8")
    once = page.replaced(text, "new figures\n")
    assert "new figures" in once
    assert page.replaced(once, "others\n") == page.replaced(text, "others\n")
    with pytest.raises(ValueError, match="no place"):
        page.replaced("# Another page\n", "")


def test_contenders_have_names_of_their_own() -> None:
    assert len({each.name for each in EVERYBODY}) == len(EVERYBODY)


def test_both_gateways_have_the_same_sas() -> None:
    asked = {"sas": 100, "algorithm": "aes-128-cbc-sha2", "udp": True, "seed": "s"}
    ends = [
        {sa.spi: sa for sa in ours_gateway.associations({**asked, "side": side})} for side in "ab"
    ]
    assert len(ends[0]) == len(ends[1]) == 200
    for spi, sa in ends[0].items():
        other = ends[1][spi]
        assert sa.direction != other.direction
        assert replace(sa, direction=other.direction) == other
    pairs = ours_gateway.selectors(10_000)
    assert len(set(pairs)) == 10_000
    assert pairs[5000] == ("10.1.0.2", "10.2.0.2")


def test_a_variant_is_what_the_command_line_says() -> None:
    variant = ours.described("two:mtu=1400,udp=false,algorithm=aes-256-gcm")
    assert variant.settings == {"mtu": 1400}
    assert (variant.name, variant.udp, variant.algorithm) == ("two", False, "aes-256-gcm")
    with pytest.raises(InteropError, match="no setting 'speed'"):
        ours.described("two:speed=9")


SCRIPT = """\
         swapper     0  ffffffff8100 pv_native_safe_halt ([kernel.kallsyms])
          python  4242      7f0a1234 ossl_aes_gcm_decrypt_avx512 (/usr/lib/libcrypto.so.3)
 wireguard-go  12  ffffffff81aa _copy_to_iter ([kernel.kallsyms])
 a name with spaces    13          5555 [unknown] (/usr/bin/fastd)
          python  4242  ffffffff81bb tun_do_read ([kernel.kallsyms])
"""


def test_samples_of_perf_are_sorted() -> None:
    found = list(samples(SCRIPT))
    assert [(each.pid, each.idle, each.kind) for each in found[1:]] == [
        (4242, False, "cryptography"),
        (12, False, "copies"),
        (13, False, "user space, other"),
        (4242, False, "TUN"),
    ]
    assert found[0].idle
