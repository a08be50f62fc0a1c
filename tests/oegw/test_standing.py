"""What somebody takes away from under a gateway that runs, and that it is put back."""

from __future__ import annotations

import asyncio
import subprocess
import time
from typing import Any

import pytest

from oegw.datapath.interface import DatapathError
from oegw.powers.orders import KernelChanged
from oegw.standing import LINES, PATIENCE, Standing
from oegw.trace import JsonTrace
from tests.support.powers_gateway import Gateway, running, until

PROTECTED = '[default]\non_failure = "drop"'
RULES = ("table inet oegw", "iptables's rule in PREROUTING", "ip6tables's rule in OUTPUT")


def sh(command: str) -> str:
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, timeout=20, check=True
    )
    return done.stdout


def put_back(gateway: Gateway, times: int = 1) -> list[dict[str, Any]]:
    """The lines of the trace, once there are so many."""
    return until(  # type: ignore[no-any-return]
        lambda: (
            found
            if len(found := [e for e in gateway.events() if e["event"] == "put_back"]) >= times
            else None
        ),
        10,
    )


def standing() -> str:
    """All that the gateway has put into the kernel, as the kernel lists it, but for numbers that
    count."""
    return sh(
        "nft -s list table inet oegw; iptables-save -t mangle | grep oegw; "
        "ip6tables-save -t mangle | grep oegw; ip rule; ip -6 rule; ip route show table 4500; "
        "ip -6 route show table 4500; ip -o address show oegw0"
    )


@pytest.mark.netns
@pytest.mark.parametrize(
    ("taken", "what"),
    [
        ("nft flush ruleset", RULES),
        ("nft delete table inet oegw", RULES[:1]),
        ("nft flush table inet oegw", RULES[:1]),
        ("nft flush chain inet oegw guard", RULES[:1]),
        ("nft add rule inet oegw guard4 accept", RULES[:1]),
        ("nft 'add table inet oegw { flags dormant; }'", RULES[:1]),
        ("iptables -t mangle -F", RULES[1:2]),
        ("iptables-restore < /dev/null; echo '*mangle\nCOMMIT' | iptables-restore", RULES[1:2]),
        ("ip rule del priority 4500", ("IPv4 rule of priority 4500",)),
        (
            "ip route flush table 4500; ip -6 route flush table 4500",
            ("IPv4 routes of table 4500", "IPv6 routes of table 4500"),
        ),
        ("ip link set oegw0 down", ("oegw0 up",)),
        ("ip address flush dev oegw0", ("address of oegw0",)),
    ],
)
def test_what_somebody_takes_away_is_put_back_as_it_was(taken: str, what: tuple[str, ...]) -> None:
    with running(PROTECTED) as gateway:
        before = standing()
        began = time.monotonic()
        sh(taken)
        until(lambda: standing_or_nothing() == before, 10)
        assert time.monotonic() - began < 5
        until(lambda: set(what) <= set(names_of(put_back(gateway))), 10)
        status = gateway.status()
        assert status["standing"]["put_back"] == len(put_back(gateway))
        assert any("took away" in warning for warning in status["warnings"])
        assert "took away" in gateway.errors()
        if taken.startswith("nft"):
            assert status["standing"]["author"].startswith("nft (process ")


def names_of(lines: list[dict[str, Any]]) -> list[str]:
    return [each for line in lines for each in line["what"]]


def standing_or_nothing() -> str:
    try:
        return standing()
    except subprocess.CalledProcessError:
        return ""


@pytest.mark.netns
def test_own_changes_and_those_to_others_tables_are_no_concern() -> None:
    with running(PROTECTED) as gateway:
        sh("nft add table inet mine; nft delete table inet mine; ip route add 10.7.0.0/16 dev lo")
        assert gateway.ask("reload")["notes"] == []
        sh("ip route del 10.7.0.0/16; nft add table ip other; nft flush table ip other")
        sh("nft delete table inet oegw")  # what came before was looked at before this
        assert [line["what"] for line in put_back(gateway)] == [["table inet oegw"]]


@pytest.mark.netns
def test_without_its_device_the_gateway_fails_and_says_so() -> None:
    with running(PROTECTED) as gateway:
        sh("ip link del oegw0")
        assert gateway.process.wait(20) == 1
        assert "nothing passes until a restart" in gateway.errors()
        assert "table inet oegw" in gateway.nft()


@pytest.mark.netns
def test_a_fight_is_bounded_and_said() -> None:
    with running(PROTECTED) as gateway:
        deadline = time.monotonic() + 3
        while time.monotonic() < deadline:
            subprocess.run(["nft", "delete", "table", "inet", "oegw"], stderr=subprocess.DEVNULL)
            assert "error" not in gateway.status(), "it answers without its table as well"
        until(lambda: "table inet oegw" in gateway.nft(), 5)
        times = len(put_back(gateway))
        assert 4 <= times <= 20, times
        assert gateway.errors().count("took away") <= LINES
        assert gateway.status()["standing"]["put_back"] == times


# ------------------------------------------------------------------------- without a kernel


class Taken:
    """Rules that a test takes away."""

    def __init__(self) -> None:
        self.gone = 0
        self.looks = 0
        self.failure: DatapathError | None = None

    async def mend(self, _: bool) -> tuple[str, ...]:
        self.looks += 1
        if self.failure is not None:
            raise self.failure
        gone, self.gone = self.gone, 0
        return ("rules",) * bool(gone)


async def watched(rules: Taken, seconds: float, failed: list[str]) -> Standing:
    trace = JsonTrace(None, time.time)
    watching = Standing((rules.mend,), (), (), trace, failed.append)
    task = asyncio.create_task(watching.watch())
    await asyncio.sleep(0)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        rules.gone += 1
        watching.changed(KernelChanged(True, True, "nft (process 7)"))
        await asyncio.sleep(0.002)
    task.cancel()
    return watching


def test_the_pauses_grow_with_the_fight() -> None:
    rules, failed = Taken(), list[str]()
    watching = asyncio.run(watched(rules, 2.0, failed))
    assert PATIENCE < watching.times <= PATIENCE + 8
    assert not failed
    [warning] = watching.warnings()
    assert warning.startswith("nft (process 7) took away rules: it was put back, as ")


def test_what_cannot_be_put_back_is_a_failure() -> None:
    rules, failed = Taken(), list[str]()
    rules.failure = DatapathError("no device")
    asyncio.run(watched(rules, 0.2, failed))
    assert failed == ["what somebody took away can't be put back: no device"]
    assert rules.looks == 1
