"""Octets between pairs of sockets, moved by processes of their own."""

from __future__ import annotations

import asyncio
import itertools
import os
import resource
import socket
from collections.abc import Callable
from contextlib import suppress

from oegw.socks5.interface import Relayed, Transferred
from oegw.socks5.relay.carrier import LOST, BeginChild, Carrier, begin_process
from oegw.socks5.relay.channel import MOST_EARLY, Begin
from oegw.socks5.relay.pair import reset_when_closed

# Our choices
MOST = 16  # processes
PIPES = 512  # of a process; each is two descriptors, as long as octets are under way
SPARE = 64  # descriptors of a process that are not of connections


def processes_here() -> int:
    """Half as many as CPUs, for the kernel does the other half of the work in those who send and
    receive; but two if there are two: measured on such a machine, many connections gain more by
    the second than one connection loses."""
    cpus = len(os.sched_getaffinity(0))
    return min(4, max(min(2, cpus), cpus // 2))


def _pipes(descriptors: int) -> int:
    """Of a process."""
    return min(PIPES, descriptors // 8)


def _capacity(descriptors: int) -> int:
    """Connections of a process."""
    return max(1, (descriptors - 2 * _pipes(descriptors) - SPARE) // 2)


class ProcessRelay:
    """The `Relay` of `interface.py`.  What negotiates does not wait for what moves octets, nor the
    other way round, and each process has descriptors of its own.

    ``processes``: to begin with; 0: as suits this machine.  More are started when those are full.
    ``begin_child``: how one is started.  It is made, and used, in an event loop.  Raises OSError
    where no process can be started.
    """

    def __init__(self, processes: int = 0, begin_child: BeginChild = begin_process) -> None:
        descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._pipes = _pipes(descriptors)
        self._capacity = _capacity(descriptors)
        self._numbers = itertools.count(1)
        self._carriers: list[Carrier] = []
        self._begin_child = begin_child
        self._closed = False
        for _ in range(processes or processes_here()):
            self._start()

    def begin(
        self,
        client: socket.socket,
        destination: socket.socket,
        early: bytes,
        idle: float,
        ended: Callable[[Transferred], None],
    ) -> Relayed:
        reset_when_closed(client, destination)
        if self._closed or len(early) > MOST_EARLY:
            return _Over(client, destination, ended)
        try:
            carrier = self._carrier()
        except OSError:
            return _Over(client, destination, ended)
        message = Begin(next(self._numbers), idle, early)
        return carrier.begin(message, (client, destination), ended)

    @property
    def pids(self) -> list[int]:
        """Of its processes."""
        return [carrier.pid for carrier in self._carriers]

    def close(self) -> None:
        self._closed = True
        carriers, self._carriers = self._carriers, []
        for carrier in carriers:
            carrier.close()

    def _carrier(self) -> Carrier:
        """The one with the fewest; another beside them if all are full.  Raises OSError: there is
        none, and none can be started."""
        best = min(self._carriers, key=len, default=None)
        if best is None:
            return self._start()
        if len(best) >= self._capacity and len(self._carriers) < MOST:
            with suppress(OSError):
                return self._start()
        return best

    def _start(self) -> Carrier:
        carrier = Carrier(self._pipes, self._carriers.remove, self._begin_child)
        self._carriers.append(carrier)
        return carrier


class _Over:
    """A connection that came too late, or with more than goes into a message, or that no process
    can be started for."""

    def __init__(
        self,
        client: socket.socket,
        destination: socket.socket,
        ended: Callable[[Transferred], None],
    ) -> None:
        client.close()
        destination.close()
        asyncio.get_running_loop().call_soon(ended, LOST)

    def close(self) -> None:
        """It is closed."""
