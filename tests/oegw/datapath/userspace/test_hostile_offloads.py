"""Kernels without this or that: what each offload does without is slower, and says so; what it
carries is the same."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.amount import thorough
from tests.support.datapath_rough import RoughLab, Subject, connected, tunnel, wait_for
from tests.support.datapath_sas import B6
from tests.support.refusing_kernel import LACKING

pytestmark = pytest.mark.netns

SECOND = {"workers": 2}  # steering is for several queues

# What is lacking, and the offload that must be told as off, or None where others do the same.
EACH: list[tuple[str, str | None, dict[str, Any]]] = [
    ("tun-offload", "tcp-segmentation", {}),
    ("tun-offload", "tcp-segmentation", {"core": "python"}),
    ("tun-uso", "udp-segmentation", {}),
    ("tun-features", None, {}),
    ("tun-header", None, {}),
    ("steering", "flow-steering", SECOND),
    ("bpf", "flow-steering", SECOND),
    ("udp-segment", "send-segmentation", {}),
    ("udp-segment", "send-segmentation", {"core": "python"}),
    ("udp-gro", "receive-coalescing", {}),
    ("sendmmsg,udp-segment", "send-segmentation", {}),
    ("sendmmsg,udp-segment", "send-segmentation", {"core": "python"}),
    ("recvmmsg", None, {}),
    ("recvmmsg", None, {"core": "python"}),
    ("recvmmsg-allowed", None, {"core": "python"}),
    ("recvmmsg-allowed", None, {}),
    # All but recvmsg, without which nothing can be received.
    (",".join(name for name in LACKING if name != "recvmsg"), None, SECOND),
]
EVERY_DAY = [EACH[0], EACH[7], *EACH[-2:]]


def told(subject: Subject) -> dict[str, str]:
    """Offload -> why it is off; empty if it is on."""
    return {name: "" if on else reason for name, on, reason in subject.capability["offloads"]}


@pytest.mark.parametrize(("lacking", "name", "settings"), EACH if thorough() else EVERY_DAY)
def test_a_kernel_without(lacking: str, name: str | None, settings: dict[str, Any]) -> None:
    with RoughLab() as lab:
        lab.lacking = lacking
        gwa, gwb = connected(
            lab,
            tunnel(0),
            tunnel(1, inner=6, udp=False, extended_sequence_numbers=True),
            **settings,
        )
        if name is not None:
            assert told(gwa)[name], "it is off, and that needs a reason"
            assert told(gwb)[name]
        if lacking.count(",") > 5:
            assert all(told(gwa).values())
        with lab.serving():
            assert lab.talk(2 << 20).read("whole")["whole"]
            assert lab.talk(1 << 20, B6).read("whole")["whole"]
        for subject in (gwa, gwb):
            counters = subject.counters()
            assert counters["drop_in_replay"] == counters["drop_in_invalid"] == 0
            assert counters["drop_out_socket"] == counters["drop_out_path_mtu"] == 0
            assert counters["drop_in_device"] == counters["drop_in_socket"] == 0
            assert subject.events == []
        assert lab.counts()["watched"] == 0
        lab.no_nonce_twice()


def test_none_at_all_by_configuration() -> None:
    with RoughLab() as lab:
        gwa, _ = connected(lab, tunnel(0), offloads=False)
        assert set(told(gwa).values()) == {"switched off"}
        with lab.serving():
            assert lab.talk(1 << 20).read("whole")["whole"]


@pytest.mark.parametrize("core", ["auto", "python"] if thorough() else ["auto"])
def test_a_kernel_that_lets_nothing_be_received(core: str) -> None:
    """No CPU is kept busy, and after some seconds the datapath says what is wrong."""
    with RoughLab() as lab:
        lab.lacking = "recvmmsg,recvmsg"
        gwb = lab.subject("b", core=core)
        lab.lacking = ""
        gwa = lab.subject("a")
        at_a, at_b = tunnel(0)
        gwa.ask("install", at_a)
        gwb.ask("install", at_b)
        assert not lab.ping("-c", "1", "-W", "1")
        # Pauses between the errors: without, thousands fit into a second.
        assert 1 <= gwb.counters()["drop_in_socket"] < 1000
        wait_for(lambda: gwb.heard("DatapathFailed") != [])
        [failed] = gwb.heard("DatapathFailed")
        assert failed["reason"].endswith("an outer socket cannot be read: Operation not permitted")
