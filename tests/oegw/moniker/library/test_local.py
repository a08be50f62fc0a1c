"""One request to the daemon of this host, and its answer; lines beside sockets."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from oegw.moniker.library import localline
from oegw.moniker.library.errors import DaemonAbsent
from oegw.moniker.library.local import ask_daemon
from oegw.moniker.library.localline import LineLost, LocalLine, Wake
from oegw.moniker.localwire import MAX_LINE_OCTETS
from oegw.moniker.registry import RegistrationRefused


@contextmanager
def stranger(path: Path, answer: bytes) -> Iterator[None]:
    """Something else at the path, that says ``answer`` and goes."""

    def serve() -> None:
        client, _ = listening.accept()
        with client:
            client.recv(65536)
            client.sendall(answer)

    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            thread.join()


def test_it_is_answered(host: Any) -> None:
    with host.serve("starwars"):
        answer = ask_daemon({"do": "list"}, daemon=host.daemon)
        assert [each["service"] for each in answer["services"]] == ["starwars"]
    with pytest.raises(RegistrationRefused) as caught:
        ask_daemon({"do": "dance"}, daemon=host.daemon)
    assert caught.value.code == "malformed"


def test_nobody_is_there(tmp_path: Path) -> None:
    with pytest.raises(DaemonAbsent, match="no daemon of Moniker answers there"):
        ask_daemon({"do": "list"}, daemon=tmp_path / "none")


@pytest.mark.parametrize(
    "answer", [b"", b"\n", b"x\n", b"[]\n", b"1\n", b"\xff\n", b"x" * (MAX_LINE_OCTETS + 70000)]
)
def test_something_else_is_there(tmp_path: Path, answer: bytes) -> None:
    with stranger(tmp_path / "s", answer), pytest.raises(DaemonAbsent):
        ask_daemon({"do": "list"}, daemon=tmp_path / "s")


def test_a_refusal_without_reason(tmp_path: Path) -> None:
    with stranger(tmp_path / "s", b"{}\n"), pytest.raises(RegistrationRefused, match="no reason"):
        ask_daemon({"do": "list"}, daemon=tmp_path / "s")


# ---------------------------------------------------------------------------- lines


@contextmanager
def line(path: Path) -> Iterator[tuple[LocalLine, socket.socket]]:
    """A line, and the daemon's end of it."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        ours = LocalLine()
        ours.connect(path)
        theirs, _ = listening.accept()
        with theirs:
            yield ours, theirs
        ours.close()


def test_a_socket_goes_along_and_another_comes(tmp_path: Path) -> None:
    with line(tmp_path / "s") as (ours, theirs), socket.socket() as beside:
        ours.put(b"hello\n", beside)
        assert ours.unsent
        ours.flush()
        assert not ours.unsent
        octets, (number, *more), _, _ = socket.recv_fds(theirs, 100, 4)
        assert (octets, more) == (b"hello\n", [])
        socket.send_fds(theirs, [b"one\ntwo\nth"], [number])
        socket.close(number)
        assert ours.received() == [b"one", b"two"]
        theirs.sendall(b"ree\n")
        assert ours.received() == [b"three"]
        assert ours.received() == []
        got = ours.next_socket()
        assert got is not None
        assert got.family == beside.family
        assert not got.get_inheritable()
        got.close()
        assert ours.next_socket() is None


def test_a_socket_that_was_closed_meanwhile_does_not_go_along(tmp_path: Path) -> None:
    with line(tmp_path / "s") as (ours, theirs):
        beside = socket.socket()
        ours.put(b"hello\n", beside)
        beside.close()
        ours.flush()
        assert socket.recv_fds(theirs, 100, 4)[:2] == (b"hello\n", [])


def test_what_is_no_socket_is_closed(tmp_path: Path) -> None:
    with line(tmp_path / "s") as (ours, theirs), Path("/dev/null").open() as file:
        socket.send_fds(theirs, [b"x\n"], [file.fileno()])
        assert ours.received() == [b"x"]
        assert ours.next_socket() is None


def test_more_than_the_buffer_holds_waits(tmp_path: Path) -> None:
    with line(tmp_path / "s") as (ours, theirs):
        wake = Wake()
        for _ in range(200):
            ours.put(b"x" * 9999 + b"\n")
        ours.flush()
        assert ours.unsent
        received = 0
        while received < 2_000_000:
            received += len(theirs.recv(1 << 20))
            ours.wait(wake, 0)
            ours.flush()
        assert not ours.unsent
        wake.close()


def test_a_daemon_that_goes_or_never_ends_its_line(tmp_path: Path) -> None:
    with line(tmp_path / "s") as (ours, theirs):
        theirs.sendall(b"x" * (MAX_LINE_OCTETS + 1))
        with pytest.raises(LineLost, match="does not end"):
            ours.received()
    with line(tmp_path / "t") as (ours, theirs):
        theirs.close()
        with pytest.raises(LineLost):
            ours.received()
        ours.put(b"x\n")
        with pytest.raises(LineLost):
            ours.flush()


def test_a_wake_ends_a_wait(tmp_path: Path) -> None:
    wake = Wake()
    wake.set()
    wake.set()
    wake.wait(60)
    wake.wait(0)
    wake.close()


def test_who_connects_in_a_crowd_waits_for_its_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s"))
        listening.listen(0)
        first = LocalLine()
        first.connect(tmp_path / "s")
        second = LocalLine()
        threading.Timer(0.05, lambda: listening.accept()[0].close()).start()
        second.connect(tmp_path / "s")
        third = LocalLine()
        monkeypatch.setattr(localline, "TURN_SECONDS", 0.05)
        with pytest.raises(BlockingIOError):
            third.connect(tmp_path / "s")
        for each in (first, second, third):
            each.close()
