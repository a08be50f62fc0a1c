"""Moniker's daemon beside rpcbind, in one run: questions a second, and memory.

    .venv/bin/python tests/bench/bench_moniker.py [--services 10000] [--questions 20000]

Needs root and rpcbind (Debian: apt-get install rpcbind).  Both run in a network namespace of their
own, one after the other; a program in another namespace asks over a cable for names, or numbers,
at random, with 32 questions on their way.  What a question costs the server is taken from the
kernel's account of its process; questions a second are what client and server manage together on
this machine.  At the end: the ports that the library takes, beside what chance would give.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import select
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from oegw.moniker.library.holding import hold
from oegw.moniker.transports import named
from tests.support.intercept_net import Net, wait_for, within
from tests.support.moniker_strangers import HERE, Application, Asker, MonikerDaemon, question

WINDOW = 32  # questions on their way
FEW = 10  # services, beside the many
RPCBIND_PORT = 111
FIRST_PROGRAM = 0x20000000  # "defined by user" (RFC 5531 section 8.4)
PORTMAPPER, PORTMAPPER_VERSION, SET, GETPORT = 100000, 2, 1, 3
NOT_FOUND = struct.pack("!I", 0)
BINS = 64


class Server(Protocol):
    """``pid``: of its process."""

    name: str

    @property
    def pid(self) -> int: ...

    def register(self, first: int, last: int) -> None:
        """The services with these numbers."""
        ...

    def question(self, number: int) -> bytes: ...

    def right(self, answer: bytes) -> bool: ...

    def connected(self) -> socket.socket:
        """A UDP socket of the asking program."""
        ...


class Moniker:
    name = "oegw moniker"

    def __init__(self, net: Net, daemon: MonikerDaemon, application: Application) -> None:
        self._net = net
        self._daemon = daemon
        self._application = application
        self.held: list[socket.socket] = []
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))

    @property
    def pid(self) -> int:
        return self._daemon.pid

    def register(self, first: int, last: int) -> None:
        for number in range(first, last):
            held = within(self._net.gateway, _bound)
            request = {"do": "register", "service": f"service-{number}", "version": "1"}
            said = self._application.ask(request, held.fileno())
            assert said["ok"], said
            self.held.append(held)  # who closes it loses the entry

    def question(self, number: int) -> bytes:
        return question(f"service-{number}").ljust(128)

    def right(self, answer: bytes) -> bool:
        return answer.startswith(b"MON/1 + ")

    def connected(self) -> socket.socket:
        return Asker(self._net).datagrams()


def _bound() -> socket.socket:
    made = socket.socket()
    made.bind(("0.0.0.0", 0))
    return made


class Rpcbind:
    name = "rpcbind"

    def __init__(self, net: Net, process: subprocess.Popen[bytes]) -> None:
        self._net = net
        self._process = process

    @property
    def pid(self) -> int:
        return self._process.pid

    def register(self, first: int, last: int) -> None:
        def local() -> socket.socket:
            made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            made.settimeout(5)
            for port in range(600, 1024):  # only a privileged port may SET
                try:
                    made.bind(("127.0.0.1", port))
                    break
                except OSError:
                    continue
            made.connect(("127.0.0.1", RPCBIND_PORT))
            return made

        with within(self._net.gateway, local) as asking:
            for number in range(first, last):
                asking.send(_call(SET, FIRST_PROGRAM + number, 1024 + number % 60000))
                assert asking.recv(2000)[-4:] == struct.pack("!I", 1), "SET was refused"

    def question(self, number: int) -> bytes:
        return _call(GETPORT, FIRST_PROGRAM + number, 0)

    def right(self, answer: bytes) -> bool:
        return len(answer) == 28 and answer[-4:] != NOT_FOUND

    def connected(self) -> socket.socket:
        def make() -> socket.socket:
            made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            made.connect((HERE, RPCBIND_PORT))
            return made

        return within(self._net.inside, make)


def _call(procedure: int, program: int, port: int) -> bytes:
    """RFC 5531 and RFC 1833: a call of the portmapper, for version 1 over TCP."""
    head = struct.pack(
        "!10I", random.getrandbits(32), 0, 2, PORTMAPPER, PORTMAPPER_VERSION, procedure, 0, 0, 0, 0
    )
    return head + struct.pack("!4I", program, 1, socket.IPPROTO_TCP, port)


@contextmanager
def moniker(net: Net) -> Iterator[Server]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="oegw-bench-")))
        daemon = stack.enter_context(MonikerDaemon(net, folder, "queries = 1000000\n"))
        server = Moniker(net, daemon, stack.enter_context(Application(daemon)))
        yield server
        for each in server.held:
            each.close()


@contextmanager
def rpcbind(net: Net) -> Iterator[Server]:
    """With a /run of its own, for it leaves its socket there."""
    program = shutil.which("rpcbind", path="/usr/sbin:/sbin:/usr/bin")
    if program is None:
        raise SystemExit("rpcbind is not installed: apt-get install rpcbind")
    process = subprocess.Popen(
        ["nsenter", f"--net=/run/netns/{net.gateway}", "unshare", "--mount", "--propagation",
         "private", "sh", "-c", f"mount -t tmpfs none /run && exec {program} -f"],
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        server = Rpcbind(net, process)
        wait_for(lambda: _answers(server), 10)
        yield server
    finally:
        process.terminate()
        process.wait(10)


def _answers(server: Rpcbind) -> bool:
    with server.connected() as asking:
        asking.settimeout(0.2)
        try:
            asking.send(server.question(0))
            return bool(asking.recv(2000))
        except OSError:
            return False


@dataclass(frozen=True, slots=True)
class Measured:
    services: int
    per_second: float
    microseconds: float  # of the server's CPU time, for one question
    memory: int  # octets, more than with no service


def asked(server: Server, services: int, questions: int) -> tuple[float, float]:
    """Questions a second, and the server's CPU time for one in microseconds."""
    rng = random.Random(1)
    wanted = [server.question(rng.randrange(services)) for _ in range(questions)]
    with server.connected() as asking:
        before, began = processor_seconds(server.pid), time.monotonic()
        answered = _ask(server, asking, wanted)
        seconds, spent = time.monotonic() - began, processor_seconds(server.pid) - before
    assert answered == questions, f"{server.name}: {answered} right answers of {questions}"
    return questions / seconds, spent / questions * 1e6


def _ask(server: Server, asking: socket.socket, wanted: Sequence[bytes]) -> int:
    sent = answered = 0
    under_way = 0
    poll = select.poll()  # its descriptor may be beyond what select(2) can
    poll.register(asking, select.POLLIN)
    while sent < len(wanted) or under_way:
        while under_way < WINDOW and sent < len(wanted):
            asking.send(wanted[sent])
            sent, under_way = sent + 1, under_way + 1
        if not poll.poll(2000):
            break
        answered += server.right(asking.recv(2000))
        under_way -= 1
    return answered


def processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def measure(server: Server, services: int, questions: int) -> list[Measured]:
    server.register(0, 1)
    empty = resident(server.pid)
    rows, there = [], 1
    for wanted in (FEW, services):
        server.register(there, wanted)
        there = wanted
        rate, cost = asked(server, wanted, questions)
        rows.append(Measured(wanted, rate, cost, resident(server.pid) - empty))
    print(f"{server.name}: {empty / 1e6:.1f} MB with one service")
    for row in rows:
        print(
            f"  {row.services:6} services  {row.per_second:8.0f} questions/s"
            f"  {row.microseconds:8.1f} us of CPU each  {row.memory / 1e6:6.2f} MB more"
            f"  {row.memory / row.services:6.0f} octets a service"
        )
    return rows


def ports(number: int) -> None:
    """The library's ports: none twice, and each part of the range as often as chance would."""
    held = [hold(named("tcp"), "4") for _ in range(number)]
    found = [each.getsockname()[1] for each in held]
    for each in held:
        each.close()
    low, high = min(found), max(found)
    from oegw.moniker.library import holding

    usable = holding._usable()
    place = {port: index * BINS // len(usable) for index, port in enumerate(usable)}
    counts = Counter(place[port] for port in found)
    expected = number / BINS
    square = sum((counts[b] - expected) ** 2 / expected for b in range(BINS))
    # Without repetition: the variance is smaller by the part of the range that is taken.
    square /= 1 - number / len(usable)
    z = (square - (BINS - 1)) / (2 * (BINS - 1)) ** 0.5
    print(
        f"ports: {number} held at a time, {number - len(set(found))} twice, {low} to {high}, "
        f"of {len(usable)} usable; chi-square over {BINS} parts {square:.1f}, z = {z:+.2f}"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--services", type=int, default=10_000)
    parser.add_argument("--questions", type=int, default=20_000)
    given = parser.parse_args(arguments)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    servers: tuple[Callable[[Net], object], ...] = (rpcbind, moniker)
    for each in servers:
        with Net() as net, each(net) as server:  # type: ignore[attr-defined]
            measure(server, given.services, given.questions)
    ports(min(given.services, most - 100))
    return 0


if __name__ == "__main__":
    sys.exit(main())
