"""Workers that are killed, stopped or never start, under traffic: it goes on, nothing leaves in
clear, and no nonce is on the wire twice."""

from __future__ import annotations

import json
import os
import signal
import time
from random import Random
from typing import Any

import pytest

from tests.support.amount import amount
from tests.support.datapath_rough import (
    RefusedError,
    RoughLab,
    await_progress,
    connected,
    keys_of,
    of_kind,
    successor,
    tunnel,
    wait_for,
)
from tests.support.datapath_sas import B6

pytestmark = pytest.mark.netns

KINDS = ("sealing", "opening")


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("algorithm", "settings", "most"),
    [
        ("gcm-128", {}, 100),
        ("cbc-sha2", {"core": "python", "workers": 2}, 100),
        ("gcm-128", {"core": "python"}, 25),
        ("gcm-256", {"workers": 2}, 25),
    ][: amount(4, 2)],
)
def test_workers_are_killed_under_traffic(
    algorithm: str, settings: dict[str, Any], most: int
) -> None:
    """At random moments, of both kinds, on both gateways; a newborn now and then."""
    kills, random = amount(most, 6), Random(algorithm + json.dumps(settings))
    with RoughLab() as lab:
        gateways = connected(
            lab,
            tunnel(0, algorithm=algorithm, extended_sequence_numbers=True),
            tunnel(1, inner=6, algorithm=algorithm),
            **settings,
        )
        assert lab.ping("-c", "1"), lab.last
        assert lab.ping("-c", "1", target=B6), lab.last
        with lab.serving():
            talks = [lab.talk(), lab.talk(target=B6)]
            for number in range(kills):
                kind, subject = KINDS[number % 2], random.choice(gateways)
                time.sleep(random.uniform(0, 0.2))
                victim = random.choice(of_kind(subject, kind))
                os.kill(victim, signal.SIGKILL)
                if number % 5 == 4:  # and what comes after it, just born
                    os.kill(successor(subject, kind, victim), signal.SIGKILL)
                for talk in talks:
                    await_progress(talk)
            for talk in talks:
                talk.tell("end")
            talked = [talk.read("whole") for talk in talks]
        for subject in gateways:
            counters = subject.counters()
            print(counters, subject.events)
            # Not "auto": the number of the next packet is taken in the same way by all workers.
            assert subject.ask("core-of-a-successor") == subject.capability["core"]
            assert not [each for each in subject.events if each["event"] == "DatapathFailed"]
            assert counters["esp_out_packets"] > 0
            for kind in KINDS:
                assert len(of_kind(subject, kind)) == settings.get("workers", 1)
            usage = {(row[0], row[1]): row[3] for row in subject.ask("usage")}
            assert all(packets > 0 for packets in usage.values()), usage
        assert [each["whole"] for each in talked] == [True, True], talked
        counts = lab.counts()
        print(talked, counts)
        assert counts["watched"] == 0, "a packet of the hosts left in clear"
        assert lab.no_nonce_twice() > 1000


def test_requests_under_way_when_a_worker_dies_are_carried_out_once() -> None:
    """Each SA is installed though workers die meanwhile, and none is refused as there already."""
    number = amount(2000, 100)
    with RoughLab() as lab:
        gwa, gwb = connected(lab, tunnel(0))
        for kind in KINDS:
            sas = [sa for each in range(1, number) for sa in tunnel(each)[0]]
            asked = gwa.begin("install-at-once", sas)
            os.kill(of_kind(gwa, kind)[0], signal.SIGKILL)
            assert gwa.answer(asked) == []
            usage = {(row[0], row[1]) for row in gwa.ask("usage")}
            assert usage == {(sa["direction"], sa["spi"]) for sa in (*sas, *tunnel(0)[0])}
            asked = gwa.begin("remove", keys_of(sas))
            os.kill(of_kind(gwa, kind)[0], signal.SIGKILL)
            assert gwa.answer(asked) == [0] * len(sas)
            assert len(gwa.ask("usage")) == 2
        wait_for(lambda: lab.ping("-c", "1"))
        assert gwb.events == []


def test_a_successor_refuses_what_its_predecessor_accepted() -> None:
    """The replay window outlives the worker: not one old packet gets through."""
    with RoughLab(seed=2) as lab:
        _, gwb = connected(lab, tunnel(0, replay_window=2048))
        assert lab.ping("-c", "50", "-i", "0.005"), lab.last
        for _ in range(3):
            [victim] = of_kind(gwb, "opening")
            accepted = gwb.counters()["esp_in_packets"]
            lab.harm(flood=4)
            os.kill(victim, signal.SIGKILL)
            successor(gwb, "opening", victim)
            before = gwb.counters()["drop_in_replay"]
            wait_for(lambda before=before: gwb.counters()["drop_in_replay"] > before + 500)
            lab.harm()
            counters = gwb.counters()
            assert counters["esp_in_packets"] == accepted, "a replay was delivered"
            assert lab.ping("-c", "3", "-i", "0.01"), lab.last


def test_a_worker_that_hangs_lets_nothing_out_and_the_rest_goes_on() -> None:
    """SIGSTOP: what it should carry waits or is lost; its gateway still answers and can end it."""
    with RoughLab() as lab:
        gwa, gwb = connected(lab, tunnel(0))
        assert lab.ping("-c", "1"), lab.last
        [hanging] = of_kind(gwa, "sealing")
        os.kill(hanging, signal.SIGSTOP)
        assert gwa.counters()["esp_out_packets"] >= 1
        assert len(gwa.ask("usage")) == 2
        assert not lab.ping("-c", "1", "-W", "1")
        if hanging in gwa.workers():  # it may have been replaced meanwhile
            os.kill(hanging, signal.SIGCONT)
        wait_for(lambda: lab.ping("-c", "1"))
        [hanging] = of_kind(gwa, "opening")
        workers = gwa.workers()
        os.kill(hanging, signal.SIGSTOP)
        began = time.monotonic()
        gwa.ask("close")
        assert time.monotonic() - began < 30
        gwa.process.wait(30)
        assert gwa.process.returncode == 0
        assert not any(map(_alive, workers))
        assert gwb.counters()["esp_in_packets"] >= 1
        assert lab.counts()["watched"] == 0


def test_workers_that_cannot_start_are_reported_once_and_nothing_leaves() -> None:
    with RoughLab() as lab:
        gwa, _ = connected(lab, tunnel(0), tunnel(1, inner=6))
        assert lab.ping("-c", "1"), lab.last
        gwa.ask("break-starts")
        os.kill(of_kind(gwa, "sealing")[0], signal.SIGKILL)
        wait_for(lambda: bool(gwa.heard("DatapathFailed")))
        assert not lab.ping("-c", "1", "-W", "1")
        assert not lab.ping("-c", "1", "-W", "1", target=B6)
        with pytest.raises(RefusedError):
            gwa.ask("install", tunnel(2)[0])
        assert len(gwa.heard("DatapathFailed")) == 1
        gwa.ask("close")
        assert not lab.ping("-c", "1", "-W", "1")
        assert lab.counts()["watched"] == 0


@pytest.mark.parametrize("hanging", [None, *KINDS])
def test_the_control_process_is_killed_under_traffic(hanging: str | None) -> None:
    """Nothing stays behind that could carry or let out a packet, or keep the device from the next
    gateway."""
    with RoughLab() as lab:
        gwa, _ = connected(lab, tunnel(0), tunnel(1, inner=6))
        with lab.serving():
            talk = lab.talk()
            await_progress(talk)
            workers = gwa.workers()
            assert workers
            if hanging:
                os.kill(of_kind(gwa, hanging)[0], signal.SIGSTOP)
            gwa.process.kill()
            wait_for(lambda: not any(map(_alive, workers)))
            wait_for(lambda: "oegw0" not in lab.inside(lab.gwa, "ip", "link"))
            before = lab.counts()["roads"][0]["esp"]
            assert not lab.ping("-c", "1", "-W", "1")
            assert not lab.ping("-c", "1", "-W", "1", target=B6)
            counts = lab.counts()
            assert counts["watched"] == 0
            assert counts["roads"][0]["esp"] == before
            talk.end()


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_no_memory_for_another_record() -> None:
    """The SA is refused, those that there are go on, and there is room again once one goes."""
    with RoughLab() as lab:
        gwa, _ = connected(lab, tunnel(0))
        gwa.ask("no-more-memory")
        installed: list[dict[str, Any]] = []

        def fill() -> None:
            for number in range(1, 20_000):
                sa = tunnel(number, replay_window=1 << 16)[0][1]
                gwa.ask("install", [sa])
                installed.append(sa)

        with pytest.raises(RefusedError, match="memory"):
            fill()
        assert lab.ping("-c", "2"), lab.last
        gwa.ask("remove", keys_of(installed[:1]))
        gwa.ask("install", installed[:1])
        assert lab.ping("-c", "2"), lab.last
        assert len(gwa.ask("usage")) == len(installed) + 2
