"""`oegw socks` as a user meets it, beside a server on this host's loopback."""

from __future__ import annotations

import base64
import io
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from oegw import cli
from oegw.exitcodes import FAILED, FINE, NO_DAEMON, USAGE
from oegw.socks5.passwords import check, hashed
from oegw.socks5.settings import User
from tests.support.socks_server import SETTINGS, Destination, Names, Running, running

ROOT = Path(__file__).parents[2]
SECONDS = 20.0

NAMES = Names(
    of={"six.test": ("::1",), "both.test": ("::1", "127.0.0.1")}, reverse={"::1": "six.test"}
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("socks"), names=NAMES) as found:
        yield found


class Result:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def oegw(capsys: pytest.CaptureFixture[str]) -> Any:
    def run(*arguments: object) -> Result:
        code = cli.main(["socks", *map(str, arguments)])
        captured = capsys.readouterr()
        assert all(line.startswith("oegw: ") for line in captured.err.splitlines()), captured.err
        return Result(code, captured.out, captured.err)

    return run


def proxy(server: Running, user: str = "") -> tuple[str, str]:
    return "--proxy", f"{user}127.0.0.1:{server.server.ports[0]}"


def started(*words: object, **options: Any) -> subprocess.Popen[bytes]:
    line = [sys.executable, "-m", "oegw", "socks", *map(str, words)]
    return subprocess.Popen(line, cwd=ROOT, **options)


# ------------------------------------------------------------------------------ connect


@pytest.mark.parametrize("optimistic", [(), ("--optimistic",)], ids=["", "optimistic"])
def test_the_pipe_reaches_the_other_family(server: Running, optimistic: tuple[str, ...]) -> None:
    with Destination("::1") as destination:
        words = ("connect", *proxy(server), *optimistic, "six.test", destination.port)
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with started(*words, **pipes) as process:
            with destination.accept() as far:
                assert process.stdin is not None
                process.stdin.write(b"request")
                process.stdin.close()
                process.stdin = None
                received = b""
                while octets := far.recv(100):  # until the end of standard input is passed on
                    received += octets
                far.sendall(b"answer" * 20_000)
            out, err = process.communicate(timeout=SECONDS)
        assert (received, out, err) == (b"request", b"answer" * 20_000, b"")
        assert process.returncode == FINE


def test_the_connection_itself_is_handed_on(server: Running) -> None:
    """As ssh's ProxyUseFdpass wants it; the process is over by then."""
    here, there = socket.socketpair()
    with here, there, Destination() as destination:
        words = ("connect", *proxy(server), "--pass-fd", "127.0.0.1", destination.port)
        process = started(*words, stdin=subprocess.DEVNULL, stdout=there)
        far = destination.accept()
        here.settimeout(SECONDS)
        _, descriptors, _, _ = socket.recv_fds(here, 16, 1)
        assert process.wait(SECONDS) == FINE
        with socket.socket(fileno=descriptors[0]) as connection, far:
            connection.sendall(b"by way of ssh")
            assert far.recv(100) == b"by way of ssh"


def test_a_connection_that_is_refused(server: Running, oegw: Any) -> None:
    with Destination() as destination:
        port = destination.port
    result = oegw("connect", *proxy(server), "127.0.0.1", port)
    assert (result.code, result.err) == (
        FAILED, f"oegw: 127.0.0.1 port {port}: connection refused\n",
    )  # fmt: skip
    result = oegw("connect", *proxy(server), "nowhere.test", port)
    assert result.err == f"oegw: nowhere.test port {port}: host unreachable\n"


def test_no_server(oegw: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    result = oegw("connect", "--proxy", f"127.0.0.1:{port}", "bob", 80)
    text = f"oegw: the SOCKS server at 127.0.0.1:{port}: Connection refused\n"
    assert (result.code, result.err) == (FAILED, text)


def test_a_service_has_its_port_itself(tmp_path: Path, oegw: Any) -> None:
    with Destination("::1") as destination:
        name = "starwars.theforce.test.mon"
        names = Names(of={name: ("::1",)}, ports={name: destination.port})
        with running(tmp_path, names=names) as server:
            process = started("connect", *proxy(server), name, stdout=subprocess.PIPE)
            with destination.accept() as far:
                far.sendall(b"a long time ago")
            out, _ = process.communicate(timeout=SECONDS)
            assert out == b"a long time ago"
            result = oegw("connect", *proxy(server), "nowhere.mon")
            assert (result.code, result.err) == (FAILED, "oegw: nowhere.mon: host unreachable\n")


# -------------------------------------------------------------------- user and password


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Running]:
    user = User("alice", hashed(b"secret", bytes(16)))
    listeners = tuple(replace(each, authentication="password") for each in SETTINGS.listeners)
    settings = replace(SETTINGS, users=(user,), listeners=listeners)
    with running(tmp_path, settings, NAMES) as found:
        yield found


def test_a_user_with_a_password(guarded: Running, oegw: Any, tmp_path: Path) -> None:
    right, wrong = tmp_path / "right", tmp_path / "wrong"
    right.write_text("secret\n")
    wrong.write_text("guess")
    alice = proxy(guarded, "alice@")
    assert oegw("resolve", *alice, "--password-file", right, "six.test").out == "::1\n"
    result = oegw("resolve", *alice, "--password-file", wrong, "six.test")
    assert (result.code, result.err) == (
        FAILED, "oegw: the server does not accept user and password\n",
    )  # fmt: skip
    result = oegw("resolve", *proxy(guarded), "six.test")
    assert (result.code, result.err) == (FAILED, "oegw: the server wants a user\n")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--proxy", "alice@gateway", "bob"), "alice's password is missing"),
        (("--proxy", "alice:secret@gateway", "bob"), "other users of this host"),
        (("--password-file", __file__, "bob"), "whose password?"),
        (("--proxy", "alice@gateway", "--password-file", "/dev/null", "bob"), "1 to 255 octets"),
        (("--proxy", "http://gateway", "bob"), "is not socks5"),
        (("--seconds", "0", "bob"), "not a number within 1 to 3600"),
        (("-4", "-6", "bob"), "not allowed with"),
    ],
)
def test_command_lines_that_are_wrong(oegw: Any, words: tuple[str, ...], text: str) -> None:
    result = oegw("resolve", *words)
    assert result.code == USAGE
    assert text in result.err
    assert "secret" not in result.err


def test_a_password_that_is_not_there(oegw: Any, tmp_path: Path) -> None:
    path = tmp_path / "absent"
    result = oegw("resolve", "--proxy", "alice@gateway", "--password-file", path, "bob")
    assert (result.code, result.err) == (FAILED, f"oegw: {path}: No such file or directory\n")


@pytest.mark.parametrize("port", ["0", "65536", "http", "-1"])
def test_ports_that_are_none(oegw: Any, port: str) -> None:
    result = oegw("connect", "--", "bob", port)
    assert result.code == USAGE
    assert "not a number within 1 to 65535" in result.err


@pytest.mark.parametrize("host", ["bob.example", "192.2.0.66", "mon"])
def test_a_host_that_is_no_service_needs_a_port(oegw: Any, host: str) -> None:
    result = oegw("connect", host)
    text = f"oegw: PORT is missing: {host} is not the name of a service"
    assert (result.code, result.err.startswith(text)) == (USAGE, True)


# ------------------------------------------------------------------------------ resolve


@pytest.mark.parametrize(
    ("words", "out"),
    [
        (("both.test",), "::1\n127.0.0.1\n"),
        (("-4", "both.test"), "127.0.0.1\n"),
        (("-6", "both.test"), "::1\n"),
        (("six.test",), "::1\n"),
        (("::1",), "six.test\n"),
    ],
)
def test_names_and_addresses(server: Running, oegw: Any, words: tuple[str, ...], out: str) -> None:
    result = oegw("resolve", *proxy(server), *words)
    assert (result.code, result.out, result.err) == (FINE, out, "")


@pytest.mark.parametrize(
    ("words", "err"),
    [
        (("-4", "six.test"), "six.test: has no IPv4 address"),
        (("nowhere.test",), "nowhere.test: the server finds no address"),
        (("127.0.0.1",), "127.0.0.1: the server finds no name"),
    ],
)
def test_what_there_is_not(server: Running, oegw: Any, words: tuple[str, ...], err: str) -> None:
    result = oegw("resolve", *proxy(server), *words)
    assert (result.code, result.out, result.err) == (FAILED, "", f"oegw: {err}\n")


# --------------------------------------------------------------------------- the server


def test_a_password_becomes_a_hash(oegw: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    printed = set()
    for _ in range(2):
        monkeypatch.setattr(sys, "stdin", io.StringIO("secret\n"))
        result = oegw("password")
        assert result.code == FINE
        check(result.out.strip())
        assert "secret" not in result.out
        assert base64.b64encode(b"secret").decode() not in result.out
        printed.add(result.out)
    assert len(printed) == 2  # each has its own salt


@pytest.mark.parametrize("line", ["\n", "", "x" * 256])
def test_a_password_has_to_fit(oegw: Any, monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(line))
    result = oegw("password")
    assert (result.code, result.out) == (FAILED, "")
    assert "1 to 255 octets" in result.err


def configured(path: Path, server: Path) -> Path:
    path.write_text(f'version = 1\n[socks]\nsocket = "{server}"\n')
    return path


def test_the_state_of_the_server(server: Running, oegw: Any, tmp_path: Path) -> None:
    path = configured(tmp_path / "oegw.toml", server.settings.socket)
    status = json.loads(oegw("status", "--json", "--config", path).out)
    assert status["pid"] == os.getpid()
    for words in (("status", "--config", path), ("--config", path)):
        result = oegw(*words)
        assert result.code == FINE
        assert f"127.0.0.1:{server.server.ports[0]}" in result.out


def test_no_server_to_ask_for_its_state(oegw: Any, tmp_path: Path) -> None:
    path = configured(tmp_path / "oegw.toml", tmp_path / "socks.sock")
    for words in (("status", "--config", path), ("--config", path)):
        result = oegw(*words)
        assert result.code == NO_DAEMON
        assert "socks.sock" in result.err
