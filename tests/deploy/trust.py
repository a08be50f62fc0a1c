"""What can be relied on while a router dies: traffic that counts itself, and what is on the line.

    with Traffic(site) as traffic:
        with Trial(site, traffic) as trial:
            ... the event ...
            trial.await_steady()
        trial.outcome

A packet is clear if any of its octets are those that the hosts send, or if it is from or to one of
them as it is; what Alice sends to Q, who may have it so, shows that such a packet would be seen.
"""

from __future__ import annotations

import itertools
import select
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from tests.deploy.machine import await_true
from tests.deploy.site import ALICE, BOB, Q, Site
from tests.support.intercept_net import within

INTERVAL = 0.01  # seconds between two packets, in each direction
PAUSE = 0.15  # between arrivals: a longer one is an interruption, and not a busy machine
_STEADY = 50  # so many packets in a row, in both directions, and it is back
_RECENT = 20  # of the newest packets some may be on their way
_MARK = b"what the hosts say, and nobody else may read"
_PORT = 7000
_WITNESS = 7  # each so many packets of Alice's one goes to Q
_NUMBER = struct.Struct(">Q")


@dataclass(frozen=True, slots=True)
class Outcome:
    """``lost``: of Alice's packets, and of Bob's.  ``seconds``: from the last packet that came
    before the interruption to the first behind it, in the direction where that took longer."""

    clear: int
    lost: tuple[int, int]
    seconds: float


class _End:
    """One of the hosts: sends numbered packets to the other, and writes down what comes."""

    def __init__(self, site: Site, name: str, own: str, other: str, witness: str = "") -> None:
        self._socket = within(site.namespace(name), lambda: _udp(own))
        self._other, self._witness = other, witness
        self._stopped = False
        self.sent = 0
        self.received: dict[int, float] = {}  # by number, when
        self._thread = threading.Thread(target=self._body, daemon=True)
        self._thread.start()

    def _body(self) -> None:
        due = time.monotonic()
        while not self._stopped:
            if select.select([self._socket], [], [], max(0.0, due - time.monotonic()))[0]:
                packet = self._socket.recv(2048)
                self.received.setdefault(_NUMBER.unpack_from(packet)[0], time.monotonic())
            if time.monotonic() >= due:
                due += INTERVAL
                self._send()

    def _send(self) -> None:
        packet = _NUMBER.pack(self.sent) + _MARK
        self._to(self._other, packet)
        if self._witness and self.sent % _WITNESS == 0:
            self._to(self._witness, packet)
        self.sent += 1

    def _to(self, address: str, packet: bytes) -> None:
        with suppress(OSError):  # no way there at the moment: a packet lost
            self._socket.sendto(packet, (address, _PORT))

    def close(self) -> None:
        self._stopped = True
        self._thread.join()
        self._socket.close()


def _udp(address: str) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind((address, _PORT))
    return made


class Traffic:
    """Alice and Bob send to each other without end, and Alice to Q."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def __enter__(self) -> Traffic:
        self._alice = _End(self._site, "alice", ALICE, BOB, Q)
        self._bob = _End(self._site, "bob", BOB, ALICE)
        return self

    def __exit__(self, *_: object) -> None:
        for end in (self._alice, self._bob):
            end.close()

    @property
    def ways(self) -> tuple[tuple[_End, _End], tuple[_End, _End]]:
        """Who sends and who receives, both ways."""
        return (self._alice, self._bob), (self._bob, self._alice)

    @property
    def newest(self) -> int:
        """What Alice has sent last."""
        return self._alice.sent

    def is_steady(self, since: Sequence[int] = (0, 0)) -> bool:
        """Whether of each direction's packets, of those from ``since`` on, none was lost lately."""
        for (sender, receiver), first in zip(self.ways, since, strict=True):
            newest = sender.sent - _RECENT
            wanted = range(newest - _STEADY, newest)
            if wanted.start < first or not all(each in receiver.received for each in wanted):
                return False
        return True


class Wire:
    """A capture of what is between the routers, by a process of its own, filtered by the kernel."""

    def __init__(self, site: Site, file: Path) -> None:
        self._file = file
        net = f"--net=/run/netns/{site.namespace('net')}"
        self._process = subprocess.Popen(
            ["nsenter", net, "tcpdump", "-i", "br0", "-n", "-Z", "root", "-B", "16384",
             "--immediate-mode", "-U", "-w", str(file), "ip or ip6"],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._process.stderr is not None
        said = self._process.stderr.readline()
        assert "listening" in said or "listening" in self._process.stderr.readline(), said

    def has_seen(self, number: int) -> bool:
        """Whether it has come to what Alice sent to Q with this number, or after it."""
        return any(
            packet[16:20] == _QS and _NUMBER.unpack_from(packet, _PAYLOAD)[0] >= number
            for packet in _packets(self._file.read_bytes())
        )

    def close(self) -> None:
        self._process.send_signal(signal.SIGINT)
        _, said = self._process.communicate(timeout=30)
        assert "\n0 packets dropped by kernel" in said, said

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()

    def clear(self) -> int:
        """How many packets could be read that nobody else may read."""
        return sum(
            _MARK in packet or not _HOSTS.isdisjoint((packet[12:16], packet[16:20]))
            for packet in _packets(self._file.read_bytes())
            if _QS not in (packet[12:16], packet[16:20])
        )


_QS = socket.inet_aton(Q)
_HOSTS = {socket.inet_aton(address) for address in (ALICE, BOB)}
_LITTLE_ENDIAN = 0xA1B2C3D4
_RECORD = struct.Struct("<IIII")
_ETHERNET = 14
_PAYLOAD = 28  # behind IP and UDP


def _packets(octets: bytes) -> Iterator[bytes]:
    """Of a pcap file of this machine."""
    assert _RECORD.unpack_from(octets)[0] == _LITTLE_ENDIAN
    place = 24
    while place + _RECORD.size <= len(octets):
        _, _, kept, _ = _RECORD.unpack_from(octets, place)
        place += _RECORD.size
        if place + kept > len(octets):
            return  # it is just being written
        yield octets[place + _ETHERNET : place + kept]
        place += kept


_numbers = itertools.count()


class Trial:
    """An event under traffic.  ``outcome`` is there when it is over."""

    outcome: Outcome

    def __init__(self, site: Site, traffic: Traffic, folder: Path) -> None:
        self._site, self._traffic = site, traffic
        self._file = folder / f"trial{next(_numbers)}.pcap"

    def __enter__(self) -> Trial:
        self._wire = Wire(self._site, self._file)
        # Some from before, so that an interruption has a beginning.
        self._first = [sender.sent - _RECENT for sender, _ in self._traffic.ways]
        return self

    def await_steady(self, what: str, seconds: float) -> None:
        """Until what is sent from now on arrives."""
        now = [sender.sent for sender, _ in self._traffic.ways]
        await_true(lambda: self._traffic.is_steady(now), what, seconds)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            self._wire.kill()
            return
        last = [sender.sent - _RECENT for sender, _ in self._traffic.ways]
        lost, seconds = [], []
        for (_, receiver), first, end in zip(self._traffic.ways, self._first, last, strict=True):
            came = [receiver.received.get(each) for each in range(first, end)]
            lost.append(came.count(None))
            seconds.append(_interruption(sorted(each for each in came if each is not None)))
        newest = self._traffic.newest
        await_true(lambda: self._wire.has_seen(newest), "the capture is complete")
        self._wire.close()
        self.outcome = Outcome(self._wire.clear(), (lost[0], lost[1]), max(seconds))


def _interruption(arrivals: Sequence[float]) -> float:
    """From the beginning of the first pause to the end of the last; without any, 0."""
    pauses = [(one, other) for one, other in itertools.pairwise(arrivals) if other - one > PAUSE]
    return pauses[-1][1] - pauses[0][0] if pauses else 0.0
