"""Sequence numbers and octets at their limits, under traffic that takes many at once; and thousands
of SAs that come and go."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from tests.support.amount import amount
from tests.support.datapath_rough import (
    RoughLab,
    Subject,
    Tunnel,
    await_progress,
    connected,
    keys_of,
    of_kind,
    tunnel,
    wait_for,
)
from tests.support.datapath_sas import B4

pytestmark = pytest.mark.netns

LAST = 2**32 - 1
SOFT = LAST - LAST // 16


def set_senders(gateways: tuple[Subject, Subject], both: Tunnel, number: int) -> None:
    """Both gateways have sent so many packets."""
    for subject, sas in zip(gateways, both, strict=True):
        sending = [sa for sa in sas if sa["direction"] == "out"]
        subject.ask("set-sequence", [[key, number] for key in keys_of(sending)])


def sent_by(subject: Subject, sas: list[dict[str, Any]]) -> list[int]:
    """The record of the SA that sends: sequence, packets, octets, last used."""
    record: list[int] = subject.ask(
        "records", keys_of([sa for sa in sas if sa["direction"] == "out"])
    )[0]
    return record


@pytest.mark.parametrize(
    ("algorithm", "settings"),
    [
        ("gcm-128", {}),
        ("cbc-sha2", {"core": "python", "offloads": False}),
        ("gcm-128", {"core": "python"}),
        ("cbc-sha2", {"workers": 2}),
    ][: amount(4, 2)],
)
def test_extended_numbers_cross_their_half(algorithm: str, settings: dict[str, Any]) -> None:
    """2^32 is crossed in both directions on a road that reorders and replays; and once it was,
    workers that are new know the upper half."""
    with RoughLab(seed=4) as lab:
        both = tunnel(0, algorithm=algorithm, extended_sequence_numbers=True)
        gateways = connected(lab, both, **settings)
        assert lab.ping("-c", "2"), lab.last
        set_senders(gateways, both, LAST - 1500)
        lab.harm(reorder=0.02, reach=64, replay=0.02)
        with lab.serving():
            talk = lab.talk()
            for subject, sas in zip(gateways, both, strict=True):
                wait_for(lambda subject=subject, sas=sas: sent_by(subject, sas)[0] > LAST + 3000)
            for subject in gateways:
                for kind in ("sealing", "opening"):
                    os.kill(of_kind(subject, kind)[0], signal.SIGKILL)
            await_progress(talk)
            talk.tell("end")
            talked = talk.read("whole")
        assert talked["whole"], talked
        for subject, road in zip(gateways, reversed(lab.counts()["roads"]), strict=True):
            counters = subject.counters()
            print(counters, subject.events, road)
            assert counters["drop_in_replay"] > 0
            # An old number from before the crossing is taken for one of the next half, and its ICV
            # tells (RFC 4303 appendix A2.1); nothing else is ever invalid, or dropped.
            dropped = counters["drop_in_replay"] + counters["drop_in_invalid"]
            assert dropped <= road["replayed"], "the wrong upper half"
            assert counters["drop_out_expired"] == 0
            assert subject.events == []
        numbers = {number for _, number, _, _ in lab.on_the_wire()}
        assert LAST in numbers
        assert 0 in numbers
        lab.no_nonce_twice()


@pytest.mark.parametrize("settings", [{}, {"core": "python"}, {"workers": 2}][: amount(3, 1)])
def test_without_extended_numbers_the_last_one_is_the_last(settings: dict[str, Any]) -> None:
    """The replacement is asked for once, at 15/16; past the last number nothing is sent."""
    with RoughLab(seed=4) as lab:
        both, next_both = tunnel(0), tunnel(1)
        gwa, gwb = connected(lab, both, **settings)
        assert lab.ping("-c", "2"), lab.last
        set_senders((gwa, gwb), both, SOFT - 300)
        with lab.serving():
            talk = lab.talk()
            wait_for(lambda: len(gwa.heard("SaExpired")) + len(gwb.heard("SaExpired")) >= 2)
            assert [each["hard"] for each in gwa.events + gwb.events] == [False, False]
            assert {each["spi"] for each in gwa.events + gwb.events} == {0x10000, 0x20000}
            set_senders((gwa, gwb), both, LAST - 2000)

            def used_up() -> list[Subject]:
                """Who has no number left; the other then hears no answer, and hardly goes on."""
                return [each for each in (gwa, gwb) if each.counters()["drop_out_expired"]]

            wait_for(lambda: bool(used_up()))
            for subject, sas in ((gwa, both[0]), (gwb, both[1])):
                assert sent_by(subject, sas)[0] <= LAST
            for subject in used_up():  # the drop is counted at once, the event is under way
                wait_for(lambda subject=subject: len(subject.heard("SaExpired")) == 2)
                assert [each["hard"] for each in subject.heard("SaExpired")] == [False, True]
            # The replacement, as it should have been asked for: all goes on where it stopped.
            for subject, sas in ((gwb, next_both[1]), (gwa, next_both[0])):
                subject.ask("install", sas)
            await_progress(talk)
            talk.tell("end")
            assert talk.read("whole")["whole"]
        assert gwa.counters()["drop_in_replay"] == gwb.counters()["drop_in_replay"] == 0
        wire = [(spi, number) for spi, number, _, _ in lab.on_the_wire()]
        last = []
        for spi in (0x10000, 0x20000):
            numbers = [number for each, number in wire if each == spi]
            aged = next(place for place, number in enumerate(numbers) if number >= SOFT - 300)
            assert min(numbers[aged:]) >= SOFT - 300, "the numbers began anew"
            last.append(max(numbers))
        assert LAST - max(last) < 64, "more numbers were thrown away than one frame takes"
        lab.no_nonce_twice()


@pytest.mark.parametrize(
    "settings", [{}, {"core": "python"}, {"workers": 2, "core": "python"}][: amount(3, 1)]
)
def test_no_octet_more_than_the_limit(settings: dict[str, Any]) -> None:
    """Not even of a frame of many packets; and what is under the limit is all used."""
    limit = 3_000_000
    with RoughLab() as lab:
        both = tunnel(0, hard_bytes=limit, soft_bytes=limit // 2)
        gateways = connected(lab, both, **settings)
        with lab.serving():
            talk = lab.talk()
            wait_for(
                lambda: any(
                    each["hard"]
                    for each in (*gateways[0].heard("SaExpired"), *gateways[1].heard("SaExpired"))
                )
            )
            talk.end()
        hard = 0
        for subject, sas in zip(gateways, both, strict=True):
            for record in subject.ask("records", keys_of(sas)):
                assert record[2] <= limit
                hard += record[2] > limit - 65536
            softened = [each["spi"] for each in subject.events if not each["hard"]]
            assert len(softened) == len(set(softened))
        assert hard >= 1


def test_thousands_of_sas_come_and_go_under_traffic() -> None:
    """A stream passes while they are installed and removed, and none of them is left."""
    count = amount(5_000, 200)  # tunnels; twice as many SAs
    with RoughLab() as lab:
        gwa, gwb = connected(lab, tunnel(0))
        with lab.serving():
            talk = lab.talk()
            await_progress(talk)
            # Their selectors are of other hosts: the stream keeps its own SA.
            sas = [
                sa
                | {
                    "inner": [
                        f"10.{number >> 8}.{number & 255}.1",
                        f"172.16.{number >> 8}.{number & 255}",
                    ]
                }
                for number in range(1, count + 1)
                for sa in tunnel(number)[0]
            ]
            for _ in range(2):
                assert gwa.ask("install-at-once", sas) == []
                await_progress(talk)
                assert len(gwa.ask("usage")) == len(sas) + 2
                for kind in ("sealing", "opening"):  # all of them are handed to a successor
                    os.kill(of_kind(gwa, kind)[0], signal.SIGKILL)
                await_progress(talk)
                assert len(gwa.ask("usage")) == len(sas) + 2
                assert gwa.ask("remove", keys_of(sas)) == [0] * len(sas)
                await_progress(talk)
            talk.tell("end")
            assert talk.read("whole")["whole"]
        assert {row[1] for row in gwa.ask("usage")} == {0x10000, 0x20000}
        assert gwa.events == gwb.events == []
        assert lab.ping("-c", "1", target=B4), lab.last
        assert lab.no_nonce_twice() > 100
