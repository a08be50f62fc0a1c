"""A random port, held from bind on (MK-3, MK-23, MK-24)."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from oegw.moniker.library import holding
from oegw.moniker.library.errors import NoPortLeft, TransportUnavailable
from oegw.moniker.library.holding import hold
from oegw.moniker.library.ports import BLOCKED
from oegw.moniker.names import MonikerError
from oegw.moniker.transports import MPTCP, TCP, UDP, Kind, Transport


@contextmanager
def held(number: int, transport: Transport = TCP) -> Iterator[list[int]]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(hold(transport)) for _ in range(number)]
        yield [sock.getsockname()[1] for sock in sockets]


def test_many_services_have_many_ports() -> None:
    with held(900) as ports:
        assert len(set(ports)) == 900
        assert not set(ports) & BLOCKED
        assert min(ports) >= 1024


def test_all_ports_are_as_likely() -> None:
    """Chi-square over 8 parts of the usable ports: beyond 40 by chance once in 800,000 runs."""
    everything = holding._usable()
    place = {port: 8 * number // len(everything) for number, port in enumerate(everything)}
    counts = [0] * 8
    for _ in range(2):
        with held(800) as ports:
            for port in ports:
                counts[place[port]] += 1
    expected = sum(counts) / 8
    assert sum((count - expected) ** 2 / expected for count in counts) < 40


@pytest.mark.parametrize("transport", [TCP, UDP, MPTCP], ids=lambda each: each.name)
@pytest.mark.parametrize("families", ["4", "6", "46"])
def test_the_families_are_those_asked_for(transport: Transport, families: str) -> None:
    with hold(transport, families) as sock:
        if families == "4":
            assert sock.family == socket.AF_INET
        else:
            only_six = sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
            assert sock.family == socket.AF_INET6
            assert bool(only_six) == (families == "6")
        assert sock.proto == transport.protocol
        assert sock.getsockname()[1]


def test_there_are_no_other_families() -> None:
    with pytest.raises(ValueError, match="families '5'"):
        hold(TCP, "5")


@pytest.mark.parametrize("reuse", [0, 1])
@pytest.mark.parametrize("address", ["0.0.0.0", "127.0.0.1", "::", "::1"])
def test_nobody_else_gets_the_port(address: str, reuse: int) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with hold(TCP) as mine, socket.socket(family) as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, reuse)
        if family == socket.AF_INET6:
            other.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        with pytest.raises(OSError, match="in use") as caught:
            other.bind((address, mine.getsockname()[1]))
        assert caught.value.errno == errno.EADDRINUSE


def test_one_that_is_shared_lets_another_program_listen() -> None:
    with hold(TCP, "4", shared=True) as mine, socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", mine.getsockname()[1]))
        other.listen()


def test_without_a_free_port_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    with hold(TCP) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setattr(holding, "_usable", lambda: (port,))
        with pytest.raises(NoPortLeft, match="128 ports at random") as caught:
            hold(TCP)
    assert isinstance(caught.value, OSError)
    assert isinstance(caught.value, MonikerError)
    assert str(port) not in str(caught.value)
    monkeypatch.setattr(holding, "_usable", lambda: ())
    with pytest.raises(NoPortLeft, match="no port is left"):
        hold(TCP)


def test_a_transport_that_the_kernel_lacks() -> None:
    absent = Transport("dccp-not-here", Kind.STREAM, 6, 33, 33)
    with pytest.raises(TransportUnavailable, match="dccp-not-here: this host's kernel"):
        hold(absent)
