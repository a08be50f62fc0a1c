"""The processes of a running gateway, by the kernel's word: who they are, and how they end."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from pathlib import Path

import pytest

from oegw.powers.orders import ListWorkers
from oegw.powers.tohands import Ends, HandsGone, ToHands
from oegw.status import render
from tests.support.powers_gateway import (
    PATIENCE,
    a_link,
    a_place,
    configuration,
    is_there,
    running,
    started,
    until,
)

pytestmark = pytest.mark.netns

NETWORK = {"net_raw", "net_bind_service"}


def facts(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def test_who_reads_what_strangers_write_has_no_power_over_routes() -> None:
    with running() as gateway:
        processes = gateway.processes()
        assert processes["hands"]["pid"] == gateway.process.pid == gateway.status()["pid"]
        names = set(processes)
        assert {"hands", "mind", "signer", "opening 0", "sealing 0"} <= names
        assert set(processes["mind"]["capabilities"]) == NETWORK
        assert "net_admin" in processes["hands"]["capabilities"]
        for name in names - {"hands"}:
            told = facts(processes[name]["pid"])
            allowed = 1 << 13 | 1 << 10 if name == "mind" else 0
            for word in ("CapPrm", "CapEff", "CapBnd", "CapAmb", "CapInh"):
                assert int(told[word], 16) & ~allowed == 0, (name, word)
            assert (told["NoNewPrivs"], told["Seccomp"]) == ("1", "2"), name


def test_with_a_user_of_its_own_nothing_but_the_hands_is_root() -> None:
    with running(gateway='user = "nobody"') as gateway:
        processes = gateway.processes()
        assert {name for name, row in processes.items() if row["user"] == "root"} == {"hands"}
        for name in set(processes) - {"hands"}:
            told = facts(processes[name]["pid"])
            assert told["Uid"].split() == ["65534"] * 4, name
            assert told["Groups"] == "", name
        with pytest.raises(PermissionError):  # the key is the signer's, which has read it
            open_as_nobody(gateway.place / "gateway.pem")
        assert gateway.ask("reload")["notes"] == []
        first = processes["signer"]["pid"]
        until(lambda: not is_there(first))
        assert gateway.processes()["signer"]["pid"] != first


def open_as_nobody(path: Path) -> None:
    child = os.fork()
    if not child:
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
        os._exit(os.access(path, os.R_OK))
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0:
        raise PermissionError(path)


@pytest.mark.parametrize("victim", ["hands", "mind", "signer"])
def test_none_outlives_another_and_what_drops_packets_stays(victim: str) -> None:
    with running('[default]\non_failure = "drop"') as gateway:
        pids = {name: row["pid"] for name, row in gateway.processes().items()}
        os.kill(pids[victim], signal.SIGKILL)
        code = gateway.process.wait(20)
        assert code == (-signal.SIGKILL if victim == "hands" else 1)
        for pid in pids.values():
            until(lambda pid=pid: not is_there(pid))  # type: ignore[misc]
        assert "table inet oegw" in gateway.nft()
        said = gateway.errors()
        assert "nothing passes until a restart" in said, said
        assert "Traceback" not in said


def test_the_supervisor_hears_nothing_while_the_hands_hang(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """No packet comes out of a queue then, and the mind is well."""
    supervisor = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    with supervisor:
        supervisor.bind(str(tmp_path / "notify"))
        supervisor.settimeout(0.5)  # the time of five pings
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "300000")

        def hears() -> bool:
            try:
                return b"WATCHDOG=1" in supervisor.recv(4096)
            except TimeoutError:
                return False

        with running() as gateway:
            until(hears)
            gateway.process.send_signal(signal.SIGSTOP)
            try:
                until(lambda: not hears())
            finally:
                gateway.process.send_signal(signal.SIGCONT)
            until(hears)


def test_a_signal_to_the_main_process_is_the_minds_to_act_on() -> None:
    with running() as gateway:
        pids = {name: row["pid"] for name, row in gateway.processes().items()}
        gateway.process.send_signal(signal.SIGHUP)
        until(lambda: [e for e in gateway.events() if e["event"] == "reloaded"])
        gateway.process.send_signal(signal.SIGTERM)
        assert gateway.process.wait(20) == 0, gateway.errors()
        for pid in pids.values():
            until(lambda pid=pid: not is_there(pid))  # type: ignore[misc]
        assert "oegw" not in gateway.nft()


def test_a_key_that_cannot_be_read_at_a_reload_leaves_the_old_one() -> None:
    with running() as gateway:
        first = gateway.processes()["signer"]["pid"]
        (gateway.place / "gateway.pem").chmod(0o644)
        answer = gateway.ask("reload")
        assert "mode 0644 lets others at the private key" in answer["error"]
        assert gateway.processes()["signer"]["pid"] == first


def test_a_user_that_is_not_there_is_named() -> None:
    with a_place() as place, a_link():
        its = started(configuration(place, gateway='user = "nosuch"'))
        assert its.process.wait(20) == 1
        assert its.errors() == "oegw: cannot start: gateway.user: there is no user 'nosuch'\n"


def test_a_second_one_is_refused_and_leaves_the_first_alone() -> None:
    with running() as gateway:
        other = configuration(gateway.place)
        again = started(other)
        assert again.process.wait(20) == 1
        assert "another oegw is running there" in gateway.errors()
        assert set(gateway.processes()) >= {"hands", "mind", "signer", "opening 0"}
        assert "table inet oegw" in gateway.nft()


CHILDREN = """
[moniker]
socket = "oegw/moniker.sock"
addresses = ["127.0.0.1"]
[moniker.firewall]
deny = true
outside = ["out0"]
[socks]
socket = "oegw/socks.sock"
[[socks.listener]]
address = "127.0.0.1"
port = 80
encrypted = true
"""


def test_moniker_and_socks_do_with_little_and_their_firewalls_stand_all_the_same() -> None:
    with running(CHILDREN, gateway='user = "nobody"') as gateway:

        def both() -> dict[str, dict[str, object]] | None:
            status = gateway.status()
            rows = {row["name"]: row for row in status["processes"]}
            here = all((status[name] or {}).get("pid") for name in ("moniker", "socks"))
            return rows if here else None

        rows = until(both)
        for name in ("moniker", "socks"):
            row = rows[name]
            assert row["user"] == "nobody"
            assert set(row["capabilities"]) <= NETWORK
            assert row["seccomp"]
            assert row["no_new_privileges"]
        assert "table inet oegw_moniker" in gateway.nft()  # by the hands
        assert not gateway.errors()


def test_the_status_says_in_words_who_may_do_what() -> None:
    with running() as gateway:
        told = gateway.status()
        (line,) = [line for line in render(told).splitlines() if line.startswith("Processes")]
        assert "hands as root with" in line
        assert "net_bind_service, net_raw" in render(told)
        assert not [warning for warning in told["warnings"] if "CAP_NET_ADMIN" in warning]


def test_the_guard_of_the_next_boot_is_written_by_the_hands() -> None:
    """So root's nft never loads what the mind alone has written."""
    with running('[default]\non_failure = "drop"', gateway='user = "nobody"') as gateway:
        saved = next(gateway.place.rglob("guard.nft"))
        assert saved.stat().st_uid == 0
        assert saved.read_text().endswith("# complete\n")


def test_hands_that_take_too_long_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """What they say later would be taken for the answer to something else."""
    monkeypatch.setattr("oegw.powers.frames.PATIENCE", 0.05)

    async def live() -> list[str]:
        ours, theirs = Ends.pair()
        hands, failed = ToHands(ours), asyncio.Event()
        reasons: list[str] = []
        hands.failed = lambda reason: (reasons.append(reason), failed.set())[1]
        hands.begin()
        with pytest.raises(HandsGone):
            hands.call(ListWorkers())
        await asyncio.wait_for(failed.wait(), PATIENCE)
        theirs.close()
        hands.end()
        return reasons

    (reason,) = asyncio.run(live())
    assert "has ended" in reason


def test_the_guard_of_a_new_policy_does_not_wait_for_a_child() -> None:
    """The power may fail meanwhile."""
    with running(CHILDREN) as gateway:

        def moniker() -> int | None:
            pid: int | None = (gateway.status()["moniker"] or {}).get("pid")
            return pid

        pid = until(moniker)
        guard = next(gateway.place.rglob("guard.nft"))
        os.kill(pid, signal.SIGSTOP)  # its end takes all the time that it is given
        configuration(
            gateway.place, '[[rule]]\nname = "new"\ncategory = "opportunistic"\n'
            'destination = "192.0.2.0/24"\non_failure = "drop"\n',
        )  # fmt: skip
        gateway.process.send_signal(signal.SIGHUP)
        until(lambda: "192.0.2.0" in guard.read_text())
        assert is_there(pid)
        until(lambda: [e for e in gateway.events() if e["event"] == "reloaded"])


def children(pid: int) -> set[int]:
    return set(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def test_reloads_that_come_to_nothing_do_not_heap_up_signers() -> None:
    with running() as gateway:
        text = gateway.place / "oegw.toml"
        good, before = text.read_text(), children(gateway.process.pid)
        point = '[[decision_point]]\nname = "p"\nurl = "https://127.0.0.1/"\nca = "none.pem"\n'
        text.write_text(good + point)
        for _ in range(4):
            assert "error" in gateway.ask("reload")
        until(lambda: len(children(gateway.process.pid)) <= len(before) + 1)
        text.write_text(good)
        gateway.ask("reload")
        until(lambda: len(children(gateway.process.pid)) == len(before))
