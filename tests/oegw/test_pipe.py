"""The pipe of `oegw moniker connect` and `oegw socks connect`."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from oegw import pipe

SECONDS = 20.0


@pytest.fixture
def done() -> Callable[[], None]:
    """Waits for the threads that the pipe left behind: one that is late would read what has got the
    number of its descriptor by then."""
    before = set(threading.enumerate())

    def wait() -> None:
        for each in set(threading.enumerate()) - before:
            each.join(SECONDS)
            assert not each.is_alive()

    return wait


def test_the_pipe_carries_both_ways_and_ends_with_the_far_end() -> None:
    ours, far = socket.socketpair()
    (in_read, in_write), (out_read, out_write) = os.pipe(), os.pipe()
    with ours, far:
        os.write(in_write, b"request")
        os.close(in_write)
        thread = threading.Thread(target=pipe.pump, args=(ours, in_read, out_write))
        thread.start()
        received = b""
        while octets := far.recv(100):  # until the end of the request is passed on
            received += octets
        far.sendall(b"answer" * 20_000)
        far.close()
        answer = b""
        while len(answer) < 120_000:
            answer += os.read(out_read, 65536)
        thread.join(SECONDS)
        assert not thread.is_alive()
    assert (received, answer) == (b"request", b"answer" * 20_000)
    for descriptor in (in_read, out_read, out_write):
        os.close(descriptor)


def test_a_reader_that_is_gone_ends_the_pipe(done: Callable[[], None]) -> None:
    ours, far = socket.socketpair()
    out_read, out_write = os.pipe()
    os.close(out_read)
    with ours, far, Path(os.devnull).open("rb") as nothing:
        far.sendall(b"answer")
        with pytest.raises(BrokenPipeError):
            pipe.pump(ours, nothing.fileno(), out_write)
        done()
    os.close(out_write)


def test_a_far_end_that_takes_no_more_may_still_speak(done: Callable[[], None]) -> None:
    ours, far = socket.socketpair()
    (in_read, in_write), (out_read, out_write) = os.pipe(), os.pipe()
    with ours, far:
        far.shutdown(socket.SHUT_RD)
        os.write(in_write, b"nobody reads this")
        far.sendall(b"last words")
        far.shutdown(socket.SHUT_WR)
        pipe.pump(ours, in_read, out_write)
        assert os.read(out_read, 100) == b"last words"
        done()
    for descriptor in (in_read, in_write, out_read, out_write):
        os.close(descriptor)


def test_a_connection_is_handed_on_as_ssh_wants_it() -> None:
    ours, far = socket.socketpair()
    here, there = socket.socketpair()
    with ours, far, here, there:
        pipe.pass_on(ours, there.fileno())
        octets, descriptors, _, _ = socket.recv_fds(here, 16, 1)
        assert octets == b"\0"
        with socket.socket(fileno=descriptors[0]) as got:
            got.sendall(b"by way of ssh")
        assert far.recv(100) == b"by way of ssh"


def test_keystrokes_do_not_wait_for_each_other() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as connection,
    ):
        watching = connection.dup()
        # As a command, but for standard output, which is this test's.
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(pipe, "pump", lambda connection: None)
            assert pipe.serve(connection, "bob", pass_fd=False) == 0
        with watching:
            assert watching.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert connection.fileno() == -1
