"""A road between two gateways that loses, reorders, duplicates, corrupts, truncates and replays:
what arrives is right, or does not arrive, and each packet that was dropped is counted."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import pytest

from tests.support.amount import amount
from tests.support.datapath_rough import PORT, RoughLab, Subject, connected, tunnel, wait_for
from tests.support.datapath_sas import A4, A6, B4, B6

pytestmark = pytest.mark.netns

BAD: dict[str, Any] = {
    "lose": 0.01,
    "reorder": 0.01,
    "duplicate": 0.01,
    "corrupt": 0.01,
    "truncate": 0.01,
    "replay": 0.02,
}


def dropped(counters: Counter[str]) -> int:
    """ESP packets that came and were not delivered."""
    return sum(count for name, count in counters.items() if name.startswith("drop_in_"))


def settled(lab: RoughLab, receiver: Subject) -> tuple[Counter[str], Counter[str]]:
    """What the road did on the way to B, and B's counters, once nothing is under way."""
    seen: list[Any] = []

    def at_rest() -> bool:
        seen[:] = [lab.counts()["roads"][0], receiver.counters(), *seen[:2]]
        time.sleep(0.03)  # longer than the road holds anything
        return seen[0]["esp"] > 0 and seen[:2] == seen[2:]

    wait_for(at_rest)
    return seen[0], seen[1]


@pytest.mark.parametrize(
    ("together", "family", "inner", "udp", "algorithm", "settings"),
    [
        (True, 4, 4, True, "gcm-128", {}),
        (True, 4, 4, True, "gcm-128", {"core": "python"}),
        (False, 4, 6, False, "gcm-256", {"workers": 2}),
        (True, 6, 6, True, "cbc-sha2", {}),
        (False, 4, 4, True, "gcm-128", {}),
        (True, 4, 4, True, "gcm-128", {"offloads": False}),
        (False, 4, 4, True, "gcm-128", {"workers": 2}),
    ][: amount(7, 3)],
)
def test_a_stream_is_whole(
    together: bool, family: int, inner: int, udp: bool, algorithm: str, settings: dict[str, Any]
) -> None:
    """Every octet of TCP, both ways at the same time, by the checksum of the whole stream."""
    octets = amount(50, 4) << 20
    target = B4 if inner == 4 else B6
    with RoughLab(seed=7, together=together) as lab:
        gwa, gwb = connected(
            lab,
            tunnel(0, family, inner, udp, algorithm=algorithm, extended_sequence_numbers=True),
            **settings,
        )
        assert lab.ping("-c", "1", target=target), lab.last
        lab.harm(**BAD)
        with lab.serving():
            talked = lab.talk(octets, target).read("whole", 100)
        counts = lab.counts()
        print(talked, counts, gwa.counters(), gwb.counters(), sep="\n")
        assert talked["whole"], talked
        assert talked["sent"] == talked["received"] == octets
        for road, receiver in zip(counts["roads"], (gwb, gwa), strict=True):
            counters = receiver.counters()
            assert min(road["replayed"], road["duplicated"], road["corrupted"]) > 0
            assert counters["drop_in_replay"] >= 0.8 * (road["duplicated"] + road["replayed"])
            assert counters["drop_in_invalid"] >= 0.5 * road["corrupted"]
        assert counts["watched"] == 0
        assert lab.no_nonce_twice() > octets // 1000


@pytest.mark.parametrize(
    ("together", "udp", "inner", "settings"),
    [
        (True, True, 4, {}),
        (False, True, 6, {"offloads": False}),
        (False, False, 4, {}),
        (True, True, 4, {"core": "python"}),
    ][: amount(4, 1)],
)
def test_each_datagram_is_right_or_counted(
    together: bool, udp: bool, inner: int, settings: dict[str, Any]
) -> None:
    """What the road put on and what came of it: not one packet is missing in the books."""
    count = amount(20_000, 3_000)
    with RoughLab(seed=11, together=together) as lab:
        _, gwb = connected(lab, tunnel(0, 4, inner, udp), **settings)
        assert lab.ping("-c", "1", target=B4 if inner == 4 else B6), lab.last
        lab.harm(**{name: chance * 3 for name, chance in BAD.items()}, reach=40)
        hearer = lab.program(lab.bob, "hear", str(PORT), "5")
        assert hearer.line() == "ready"
        target = B4 if inner == 4 else B6
        lab.program(lab.alice, "say", target, str(PORT), "5", str(count), "4000").read("said")
        road, counters = settled(lab, gwb)
        hearer.tell("end")
        heard = hearer.read("heard")
        print(heard, road, counters, lab.counts(), sep="\n")
        assert heard["wrong"] == 0, "plaintext that nobody sent"
        assert heard["again"] == 0, "a replay was delivered"
        assert counters["esp_in_packets"] + dropped(counters) == road["esp_on"]
        harmed = road["lost"] + road["corrupted"] + road["truncated"]
        assert road["esp"] - harmed == counters["esp_in_packets"]
        again = road["duplicated"] + road["replayed"]
        # A number that was harmed may be one that was there already.
        assert again <= counters["drop_in_replay"] <= again + road["corrupted"]
        assert heard["heard"] >= count - harmed - 1


def test_replays_at_full_speed_keep_nobody_out() -> None:
    """Old packets come as fast as the road can send them, while a stream passes."""
    with RoughLab(seed=3, together=True) as lab:
        _, gwb = connected(lab, tunnel(0, 4, 4, True), tunnel(1, 4, 6, True))
        assert lab.ping("-c", "20"), lab.last
        lab.harm(flood=32)
        wait_for(lambda: gwb.counters()["drop_in_replay"] > 20_000)
        before = gwb.counters()["drop_in_replay"]
        with lab.serving():
            talked = lab.talk(amount(20, 2) << 20).read("whole", 100)
        assert talked["whole"], talked
        assert lab.ping("-c", "3", target=B6), lab.last
        assert gwb.counters()["drop_in_replay"] > before
        answers = gwb.ask("usage")
        assert {key[1] for key in answers} == {0x10000, 0x10001, 0x20000, 0x20001}
        assert lab.counts()["watched"] == 0


@pytest.mark.parametrize("source", [A4, A6][: amount(2, 1)])
def test_a_packet_is_delivered_once_however_late_it_comes(source: str) -> None:
    """Overtaken by more than the window holds: it is dropped, and counted, and nothing else."""
    target = B4 if source == A4 else B6
    with RoughLab(seed=5) as lab:
        _, gwb = connected(lab, tunnel(0, 4, 4 if source == A4 else 6, True, replay_window=64))
        assert lab.ping("-c", "1", target=target), lab.last
        hearer = lab.program(lab.bob, "hear", str(PORT), "5")
        assert hearer.line() == "ready"
        lab.harm(reorder=0.05, reach=300)
        lab.program(lab.alice, "say", target, str(PORT), "5", "4000", "1000000").read("said")
        road, counters = settled(lab, gwb)
        hearer.tell("end")
        heard = hearer.read("heard")
        print(heard, counters, road)
        assert heard["wrong"] == heard["again"] == 0
        assert 0 < counters["drop_in_replay"] <= road["reordered"]
        assert dropped(counters) == counters["drop_in_replay"]
