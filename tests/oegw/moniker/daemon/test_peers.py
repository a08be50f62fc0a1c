"""Who is at the other end, by the kernel's word (MK-21)."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from oegw.moniker.daemon import peers
from oegw.moniker.daemon.peers import peer_of, process_of, user_name
from oegw.moniker.interface import Owner


@pytest.fixture
def pair() -> Iterator[socket.socket]:
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours, theirs:
        yield ours


def test_a_peer_has_the_numbers_of_its_process(pair: socket.socket) -> None:
    owner = Owner(os.getpid(), os.getuid(), os.getgid(), user_name(os.getuid()))
    assert peer_of(pair) == owner


def test_a_user_without_a_name_is_called_by_the_number() -> None:
    assert user_name(0) == "root"
    assert user_name(3999999999) == "3999999999"


def pid_of(pidfd: int) -> int:
    with open(f"/proc/self/fdinfo/{pidfd}", encoding="ascii") as lines:  # noqa: PTH123
        return next(int(line.split()[1]) for line in lines if line.startswith("Pid:"))


@pytest.mark.parametrize("option", [77, 9999], ids=["SO_PEERPIDFD", "older kernels"])
def test_its_process_can_be_watched(
    pair: socket.socket, option: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "SO_PEERPIDFD", option)
    pidfd = process_of(pair, peer_of(pair))
    try:
        assert pid_of(pidfd) == os.getpid()
    finally:
        os.close(pidfd)


def test_on_older_kernels_the_process_must_be_of_the_same_user(
    pair: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "SO_PEERPIDFD", 9999)
    with pytest.raises(ProcessLookupError):
        process_of(pair, Owner(os.getpid(), 3999999999, 0, "nobody"))


def test_a_process_that_is_gone_can_not_be_watched(
    pair: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "SO_PEERPIDFD", 9999)
    with subprocess.Popen([sys.executable, "-S", "-c", ""]) as child:
        pass
    with pytest.raises(ProcessLookupError):
        process_of(pair, Owner(child.pid, os.getuid(), os.getgid(), "root"))


def test_a_process_of_another_pid_namespace_has_no_number(pair: socket.socket) -> None:
    with pytest.raises(ProcessLookupError, match="PID namespace"):
        process_of(pair, Owner(0, 0, 0, "root"))
