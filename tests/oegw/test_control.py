"""The operator's socket: requests, garbage, crowds, and who may have the path."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from oegw import control
from oegw.control import (
    MAX_CLIENTS,
    MAX_REQUEST,
    ControlError,
    ControlServer,
    NoDaemonError,
    NotPermittedError,
    request,
)
from tests.support import control_socket

Message = dict[str, Any]


async def answer(message: Message) -> AsyncIterator[Message]:
    """A gateway that counts, echoes, or fails."""
    match message.get("command"):
        case "count":
            for number in range(message["to"]):
                yield {"number": number}
            yield {"done": True}
        case "echo":
            yield {"echo": message, "done": True}
        case "silent":
            yield {"half": True}
        case "fail":
            yield {"half": True}
            raise OSError("the disk is full")
        case other:
            yield {"error": f"no such command: {other!r}", "done": True}


@contextmanager
def serving(path: Path, answers: control.Answer = answer) -> Iterator[None]:
    with control_socket.serving(path, answers):
        yield


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "control.sock"


def ask(path: Path, command: str, **fields: Any) -> list[Message]:
    return list(request(path, {"command": command, **fields}, 5.0))


def raw(path: Path, octets: bytes) -> list[Message]:
    """What comes back to octets that are all a client says."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(5.0)
        connection.connect(str(path))
        try:
            connection.sendall(octets)
            connection.shutdown(socket.SHUT_WR)
        except BrokenPipeError:
            pass  # the server had enough before all was said
        with connection.makefile("rb") as lines:
            return [json.loads(line) for line in lines]


def test_one_request_many_lines(path: Path) -> None:
    with serving(path):
        assert ask(path, "count", to=3) == [{"number": n} for n in range(3)] + [{"done": True}]
        assert ask(path, "echo", text="ä") == [
            {"echo": {"command": "echo", "text": "ä"}, "done": True}
        ]


def test_lines_come_as_they_are_made(path: Path) -> None:
    gate = threading.Event()

    async def slow(_: Message) -> AsyncIterator[Message]:
        yield {"step": 1}
        await asyncio.get_running_loop().run_in_executor(None, gate.wait, 5)
        yield {"done": True}

    with serving(path, slow):
        lines = request(path, {}, 5.0)
        assert next(lines) == {"step": 1}
        assert not gate.is_set()
        gate.set()
        assert list(lines) == [{"done": True}]


def test_an_answer_always_ends(path: Path) -> None:
    with serving(path):
        assert ask(path, "silent")[-1] == {"done": True}
        half, end = ask(path, "fail")
        assert half == {"half": True}
        assert end["done"]
        assert "the disk is full" in end["error"]
        assert ask(path, "echo")[0]["done"]  # the server is still there


def test_several_requests_on_one_connection(path: Path) -> None:
    with serving(path):
        assert (
            raw(path, b'{"command": "count", "to": 1}\n' * 2)
            == [
                {"number": 0},
                {"done": True},
            ]
            * 2
        )


@pytest.mark.parametrize(
    "octets",
    [b"\n", b"hello\n", b"[1]\n", b"3\n", b"null\n", b"\xff\xfe\n", b'{"a": \n',
     b"[" * 60000 + b"\n", b"9" * 6000 + b"\n"],
)  # fmt: skip
def test_garbage_is_answered_and_the_next_request_works(path: Path, octets: bytes) -> None:
    with serving(path):
        error, echo = raw(path, octets + b'{"command": "echo"}\n')
        assert error["done"]
        assert "JSON" in error["error"]
        assert echo["echo"] == {"command": "echo"}


def test_a_request_without_end_is_cut_off(path: Path) -> None:
    with serving(path):
        (error,) = raw(path, b"x" * (MAX_REQUEST + 2))
        assert "longer than 65536 octets" in error["error"]
        assert ask(path, "echo")[0]["done"]


def test_a_crowd_is_turned_away_and_those_inside_are_served(path: Path) -> None:
    with serving(path):
        inside = [socket.socket(socket.AF_UNIX) for _ in range(MAX_CLIENTS)]
        try:
            for connection in inside:
                connection.settimeout(5.0)
                connection.connect(str(path))
                connection.sendall(b'{"command": "echo"}\n')
                assert b"done" in connection.recv(4096)
            assert ask(path, "echo") == [{"error": "too many clients at once", "done": True}]
            inside[0].sendall(b'{"command": "echo"}\n')
            assert b"echo" in inside[0].recv(4096)
        finally:
            for connection in inside:
                connection.close()


def test_a_client_that_says_nothing_is_dropped(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "IDLE_SECONDS", 0.05)
    with serving(path), socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(5.0)
        connection.connect(str(path))
        assert connection.recv(1) == b""


def test_an_answer_is_undone_if_its_client_leaves(path: Path) -> None:
    undone = threading.Event()

    async def endless(_: Message) -> AsyncIterator[Message]:
        try:
            while True:
                yield {"noise": "x" * 10000}
        finally:
            undone.set()

    with serving(path, endless):
        lines = request(path, {}, 5.0)
        next(lines)
        lines.close()  # type: ignore[attr-defined]
        assert undone.wait(5.0)


# ------------------------------------------------------------- who has the path


def test_only_the_owner_may_connect_whatever_the_umask(path: Path) -> None:
    before = os.umask(0)
    try:
        with serving(path):
            status = path.stat()
            assert stat.S_ISSOCK(status.st_mode)
            assert stat.S_IMODE(status.st_mode) == 0o600
    finally:
        os.umask(before)
    assert not path.exists()


def test_missing_directories_are_made(tmp_path: Path) -> None:
    path = tmp_path / "run" / "oegw" / "control.sock"
    with serving(path):
        assert ask(path, "echo")[0]["done"]


def test_the_socket_of_a_dead_daemon_is_replaced(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
        dead.listen()
    assert path.exists()
    with serving(path):
        assert ask(path, "echo")[0]["done"]


def test_a_living_daemon_keeps_its_socket(path: Path) -> None:
    with serving(path):
        with pytest.raises(ControlError, match=r"control.sock: another oegw is running there"):
            asyncio.run(ControlServer(path, answer).start())
        assert ask(path, "echo")[0]["done"]


def test_a_daemon_too_busy_to_accept_is_alive(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as busy:
        busy.bind(str(path))
        busy.listen(0)
        waiting = []
        try:
            for _ in range(3):  # fills the queue of connections not yet accepted
                visitor = socket.socket(socket.AF_UNIX)
                waiting.append(visitor)
                visitor.setblocking(False)
                visitor.connect_ex(str(path))
            with pytest.raises(ControlError, match="another oegw is running"):
                asyncio.run(ControlServer(path, answer).start())
        finally:
            for visitor in waiting:
                visitor.close()


def test_what_is_no_socket_is_left_alone(path: Path) -> None:
    path.write_text("precious")
    with pytest.raises(ControlError, match="something that is not a socket"):
        asyncio.run(ControlServer(path, answer).start())
    assert path.read_text() == "precious"


def test_a_path_that_can_not_be(tmp_path: Path) -> None:
    for path in (tmp_path / ("x" * 200), Path("/proc/nowhere/control.sock")):
        with pytest.raises(ControlError):
            asyncio.run(ControlServer(path, answer).start())


def test_close_leaves_the_socket_of_a_successor(path: Path) -> None:
    async def run() -> None:
        first = ControlServer(path, answer)
        await first.start()
        path.unlink()
        second = ControlServer(path, answer)
        await second.start()
        await first.close()
        assert path.exists()
        await second.close()
        assert not path.exists()
        await second.close()  # twice does no harm

    asyncio.run(run())


# -------------------------------------------------------------------- the client


def test_nobody_there(path: Path) -> None:
    with pytest.raises(NoDaemonError, match=r"control.sock: no oegw is running there"):
        ask(path, "status")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with pytest.raises(NoDaemonError, match="no oegw is running there"):
        ask(path, "status")


def test_others_are_not_permitted(path: Path) -> None:
    with serving(path):
        path.parent.chmod(0o755)
        owner = os.geteuid()
        if owner == 0:
            os.seteuid(65534)  # nobody
        else:
            path.chmod(0)
        try:
            with pytest.raises(NotPermittedError, match="Permission denied; be root"):
                ask(path, "status")
        finally:
            if owner == 0:
                os.seteuid(owner)
        assert owner != 0 or ask(path, "echo")[0]["done"]


@pytest.mark.parametrize(
    ("octets", "kind", "wanted"),
    [
        (b"", NoDaemonError, "broke off"),
        (b'{"half": 1}\n', NoDaemonError, "broke off"),
        (b"HTTP/1.1 400\r\n", ControlError, "is not oegw"),
        (b"[]\n", ControlError, "is not oegw"),
    ],
)
def test_answers_that_make_no_sense(
    path: Path, octets: bytes, kind: type[ControlError], wanted: str
) -> None:
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.bind(str(path))
        stranger.listen()

        def reply() -> None:
            connection, _ = stranger.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(octets)

        thread = threading.Thread(target=reply)
        thread.start()
        with pytest.raises(kind, match=wanted):
            ask(path, "status")
        thread.join(5)


def test_a_daemon_that_does_not_answer_in_time(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(path))
        silent.listen()
        with pytest.raises(NoDaemonError, match=r"no answer within 0.05 s"):
            list(request(path, {"command": "status"}, 0.05))


@pytest.mark.parametrize("full", [False, True])
def test_a_server_that_closes_ends_answers_that_have_no_end(path: Path, full: bool) -> None:
    """Also when nobody has read them until the server had to wait."""
    count = 0

    async def endless(message: Message) -> AsyncIterator[Message]:
        nonlocal count
        while True:
            count += 1
            yield {"more": True}
            await asyncio.sleep(0)

    for _ in range(2 if full else 20):  # the end comes in the middle of whatever it waits for
        lines = request(path, {"command": "talk"}, 5.0)
        with serving(path, endless):
            assert next(lines)["more"]
            before = 0
            while full and count > before:
                before = count
                time.sleep(0.05)
        with pytest.raises(NoDaemonError, match="broke off"):
            list(lines)
