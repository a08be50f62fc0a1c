"""The daemon as a process: its start and its failures, signals, and its life beside the gateway."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from oegw import childprocess, config
from oegw.childprocess import ChildProcess
from oegw.control import ControlError
from oegw.environment import Environment, UnsuitableBox
from oegw.exitcodes import CONFIGURATION
from oegw.moniker.settings import FirewallSettings, MonikerSettings
from oegw.monikerchild import PROGRAM, moniker_child
from oegw.monikerprocess import settings_of
from oegw.monikerstatus import status, status_text
from oegw.status import moniker_section
from oegw.trace import JsonTrace
from tests.support.moniker_daemon import PATIENCE, Application, until

COMMAND = [sys.executable, "-m", "oegw", "moniker"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def configuration(
    directory: Path, more: str = "", *, port: int | None = None, name: str = "oegw.toml"
) -> Path:
    path = directory / name
    path.write_text(
        "version = 1\n[moniker]\n"
        f'port = {port or free_port()}\naddresses = ["127.0.0.1"]\nsocket = "m.sock"\n{more}'
    )
    return path


@contextmanager
def serving(path: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [*COMMAND, "serve", "--config", str(path)], stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            until(lambda: answers(path) or process.poll() is not None)
            yield process
        finally:
            process.kill()


def answers(path: Path) -> bool:
    try:
        return bool(status(path.parent / "m.sock", 1.0))
    except ControlError:
        return False


def test_it_serves_reloads_and_ends(tmp_path: Path) -> None:
    path = configuration(tmp_path)
    with serving(path) as process:
        said = subprocess.run(
            [*COMMAND, "status", "--config", str(path)], capture_output=True, text=True, check=True
        )
        assert f"process {process.pid}" in said.stdout
        with Application(tmp_path / "m.sock") as application:
            path.write_text(path.read_text() + '[moniker.client]\nencrypt = "require"\n')
            process.send_signal(signal.SIGHUP)
            until(lambda: application.ask("policy")["encrypt"] == "require")
        good = path.read_text()
        path.write_text(good + "lease = soon\n")
        process.send_signal(signal.SIGHUP)
        assert process.stderr is not None
        assert "the old settings stay" in process.stderr.readline()
        path.write_text(good.replace('addresses = ["127.0.0.1"]', 'addresses = ["127.0.0.2"]'))
        process.send_signal(signal.SIGHUP)
        assert "[moniker] addresses changed" in process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
    assert not (tmp_path / "m.sock").exists()


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with serving(configuration(tmp_path, port=port)) as process:
            assert process.wait(PATIENCE) == 1
            assert process.stderr is not None
            reason = process.stderr.read()
    assert f"TCP port {port} of 127.0.0.1: Address already in use" in reason


def test_two_daemons_do_not_share_a_socket(tmp_path: Path) -> None:
    path = configuration(tmp_path)
    with serving(path):
        second = configuration(tmp_path, name="second.toml")
        done = subprocess.run(
            [*COMMAND, "serve", "--config", str(second)], capture_output=True, text=True,
            timeout=PATIENCE,
        )  # fmt: skip
        assert done.returncode == 1
        assert "another oegw is running there" in done.stderr
        assert answers(path)


def test_a_key_that_is_not_there_is_named(tmp_path: Path) -> None:
    path = configuration(tmp_path, 'private_key = "x25519.pem"\n')
    done = subprocess.run(
        [*COMMAND, "serve", "--config", str(path)], capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 1
    assert "x25519.pem: No such file or directory" in done.stderr


# -------------------------------------------------------------------- beside the gateway


def told(path: Path) -> dict[str, Any]:
    return status(path.parent / "m.sock", 1.0)


async def until_it(condition: Any) -> None:
    await asyncio.to_thread(until, condition)


def present(path: Path) -> MonikerSettings:
    return MonikerSettings(present=True, socket=path.parent / "m.sock")


def test_a_child_is_started_again_when_it_dies_and_ends_with_its_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(childprocess, "FIRST_PAUSE", 0.01)
    path = configuration(tmp_path)
    trace = JsonTrace(None, time.time)

    async def scenario() -> None:
        child = moniker_child(path, trace)
        await child.follow(MonikerSettings())
        assert await child.row() is None
        await child.follow(present(path))
        assert await child.row() == {"reason": "it is being started"}
        await until_it(lambda: answers(path))
        first = told(path)["pid"]
        os.kill(first, signal.SIGKILL)
        await until_it(lambda: answers(path) and told(path)["pid"] != first)
        row = await child.row()
        assert row is not None
        assert row["services"] == 0
        await child.follow(present(path))  # read again, by the same process
        await until_it(lambda: told(path)["counters"].get("moniker.reloaded") == 1)
        await child.follow(MonikerSettings())
        assert not answers(path)
        with pytest.raises(ProcessLookupError):
            os.kill(row["pid"], 0)

    asyncio.run(scenario())
    assert trace.counters["moniker.ended"] == 1
    assert "the moniker daemon ended by signal 9; again in 0.01 s" in capfd.readouterr().err


def test_a_reload_while_the_child_starts_is_not_its_end(tmp_path: Path) -> None:
    """SIGHUP ends a process that has no handler for it yet."""
    path = configuration(tmp_path)
    trace = JsonTrace(None, time.time)

    async def scenario() -> None:
        child = moniker_child(path, trace)
        await child.follow(present(path))
        while (await child.row() or {}).get("reason") == "it is being started":
            await asyncio.sleep(0)
        await child.follow(present(path))
        await until_it(lambda: answers(path))
        await until_it(lambda: told(path)["counters"].get("moniker.reloaded") == 1)
        await child.close()

    asyncio.run(scenario())
    assert trace.counters["moniker.ended"] == 0


def test_a_reload_cuts_the_pause_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(childprocess, "FIRST_PAUSE", 60.0)
    path = configuration(tmp_path, "port = 0\n")
    trace = JsonTrace(None, time.time)

    async def scenario() -> None:
        child = moniker_child(path, trace)
        await child.follow(present(path))
        await until_it(lambda: trace.counters["moniker.ended"] == 1)
        configuration(tmp_path)
        await child.follow(present(path))
        await until_it(lambda: answers(path))
        await child.close()

    asyncio.run(scenario())


def test_a_reload_says_what_the_child_does_not_take_over(tmp_path: Path) -> None:
    """To who asked for it, not just among the messages of the daemon."""
    path = configuration(tmp_path)

    async def scenario() -> None:
        child = moniker_child(path, JsonTrace(None, time.time))
        assert await child.follow(present(path)) == []
        await until_it(lambda: answers(path))
        assert await child.follow(replace(present(path), lease=7)) == []
        (note,) = await child.follow(replace(present(path), socket=tmp_path / "other.sock"))
        assert "socket changed: takes effect at the next restart" in note
        row = await child.row()
        assert row is not None
        assert "services" in row, "where it listens, not where it will"
        absent = replace(present(path), private_key=tmp_path / "none.pem")
        (note,) = await child.follow(absent)
        assert "the old settings stay" in note
        assert "none.pem: No such file" in note
        assert await child.follow(MonikerSettings()) == []
        denying = replace(present(path), firewall=FirewallSettings(deny=True))
        await child.follow(denying)
        await until_it(lambda: answers(path))
        (note,) = await child.follow(MonikerSettings())
        assert "stays denied" in note
        await child.close()

    asyncio.run(scenario())


def test_a_child_that_can_not_start_is_tried_with_longer_and_longer_pauses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(childprocess, "FIRST_PAUSE", 0.01)
    program = replace(PROGRAM, module="oegw.no_such_program")
    lines: list[dict[str, Any]] = []
    trace = JsonTrace(None, time.time)
    trace.listeners.append(lambda line: lines.append(dict(line)))

    async def scenario() -> None:
        child = ChildProcess(program, tmp_path / "none.toml", trace)
        await child.follow(present(tmp_path / "none.toml"))
        await until_it(lambda: len(lines) >= 3)
        async with asyncio.timeout(PATIENCE):
            while not str(await child.row()).startswith("{'reason': 'it ended with exit code 1;"):
                await asyncio.sleep(0)  # another try is under way
        await child.close()
        await child.close()

    asyncio.run(scenario())
    assert [line["again_in"] for line in lines[:3]] == [0.01, 0.02, 0.04]
    assert lines[0]["reason"] == "ended with exit code 1"


GATEWAY = """
import asyncio, sys
from pathlib import Path
from oegw.moniker.settings import MonikerSettings
from oegw.monikerchild import moniker_child
from oegw.status import moniker_section
from oegw.trace import JsonTrace

async def scenario():
    child = moniker_child(Path(sys.argv[1]), JsonTrace(None, lambda: 0.0))
    await child.follow(MonikerSettings(present=True))
    await asyncio.sleep(60)

asyncio.run(scenario())
"""


def test_a_child_ends_with_a_gateway_that_was_killed(tmp_path: Path) -> None:
    """Else the next gateway's child would find the port taken."""
    path = configuration(tmp_path)
    with subprocess.Popen([sys.executable, "-c", GATEWAY, str(path)]) as gateway:
        try:
            until(lambda: answers(path))
        finally:
            gateway.kill()
    until(lambda: not answers(path))


def test_the_status_is_told_in_words(tmp_path: Path) -> None:
    found = {
        "pid": 7, "started": time.time() - 61, "port": 1, "addresses": ["192.1.0.4"],
        "socket": "/run/oegw/moniker.sock", "services": 3, "applications": 2, "key": "00ff",
        "firewall": "default deny", "gateway": "asks 192.2.0.1 for ports", "hosts": ["bob"],
        "export": {"records": 3}, "counters": {"moniker.drop.slow": 4},
        "leases": [
            {"client": "192.1.0.7", "host": "192.2.0.9", "transport": "tcp", "port": 4000,
             "service": "starwars", "namespace": "alice", "seconds": 9}
        ],
        "more_leases": 2,
    }  # fmt: skip
    text = status_text(found)
    for words in (
        "process 7, up for 61s", "port 1 of 192.1.0.4", "2 at /run/oegw/moniker.sock",
        "asks 192.2.0.1 for ports", "alice::starwars", "tcp/4000", "and 2 more",
        "moniker.drop.slow", "records 3", "bob",
    ):  # fmt: skip
        assert words in text
    assert status_text({}).startswith("Daemon")


def test_the_gateways_status_has_a_line_of_it() -> None:
    assert moniker_section(None) == []
    told = {"pid": 7, "port": 1, "services": 3, "applications": 2, "leases": [{}], "more_leases": 4}
    assert moniker_section(told)[1] == (
        "Moniker: process 7, port 1: 3 services of 2 applications, 5 leases"
    )
    assert moniker_section({"reason": "no oegw is running there"})[1] == (
        "Moniker: does not answer: no oegw is running there"
    )


def test_a_firewall_needs_to_know_what_is_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_route(*_: object) -> Environment:
        raise UnsuitableBox("no interface has a default route")

    def one_route(*_: object) -> Environment:
        return Environment(("eth1",), (), frozenset(), ())

    read = config.parse("version = 1\n[moniker.firewall]\ndeny = true\n", Path("/nowhere/x.toml"))
    monkeypatch.setattr("oegw.environment.survey", one_route)
    assert settings_of(read).firewall.outside == ("eth1",)
    monkeypatch.setattr("oegw.environment.survey", no_route)
    with pytest.raises(config.ConfigError, match=r"moniker\.firewall\.outside: no interface"):
        settings_of(read)


def test_check_looks_at_its_key(tmp_path: Path) -> None:
    path = configuration(tmp_path, 'private_key = "x25519.pem"\n')
    check = [sys.executable, "-m", "oegw", "check", "--config", str(path)]
    said = subprocess.run(check, capture_output=True, text=True, check=False).stderr
    assert "note: moniker.private_key: " in said
    key = tmp_path / "x25519.pem"
    key.write_text("no key")
    key.chmod(0o600)
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    assert done.returncode == CONFIGURATION
    assert "moniker.private_key: " in done.stderr


def test_a_trace_that_can_not_be_written_is_named(tmp_path: Path) -> None:
    path = configuration(tmp_path, '[gateway]\ntrace = "none/trace.jsonl"\n')
    done = subprocess.run(
        [*COMMAND, "serve", "--config", str(path)], capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 1
    assert "gateway.trace" in done.stderr
