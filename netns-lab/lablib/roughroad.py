"""A road between two interfaces of a host that harms what passes: runs on host wild, or in a test.

    python3 roughroad.py LEFT RIGHT [--seed N] [--watch ADDRESS]... [--witness FILE]
                         [--conduct JSON]

Every frame that comes in at one interface goes out at the other, or what is left of it.  The
conduct is an object, see `Conduct`; one line of it on standard input replaces it, the line
``counts`` is answered with an object, and the end of the input ends the program.

The witness file gets 24 octets for each ESP packet that its sender put on the wire (not for what is
made of it here): SPI, sequence number, the first eight octets behind them (the IV, or its
first half), and the time in nanoseconds.  ``watched`` counts frames with one of the watched
addresses in their outermost IP header: what should be nowhere but inside of ESP.

It needs frames as they are on a wire: ``ethtool -K`` must have turned off what the two neighbours
leave to the card.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import socket
import struct
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from random import Random
from typing import BinaryIO

# <linux/if_ether.h>, <linux/if_packet.h>; Python does not name all of them.
_EVERYTHING = 0x0003
_SOL_PACKET, _IGNORE_OUTGOING, _STATISTICS = 263, 23, 6
_SO_RCVBUFFORCE = 33

ETHERNET, ESP, UDP, ENCAPSULATED = 14, 50, 17, 4500
IPV4, IPV6 = b"\x08\x00", b"\x86\xdd"
RECORD = struct.Struct("!II8sQ")

# Our choices.
FRAMES_PER_TURN = 64  # of one side, before the other has its turn
KEPT = 1024  # frames that may be replayed
HELD = 0.004  # seconds that a frame waits at most for others to overtake it
BUFFER = 1 << 25


@dataclass(frozen=True, slots=True)
class Conduct:
    """How likely each harm comes to a packet, 0 to 1; the first that strikes is the only one.

    ``reorder`` lets up to ``reach`` packets overtake it, ``replay`` sends one of the last KEPT
    once more beside it, ``corrupt`` and ``truncate`` make a packet that still gets to where it
    was going.  ``flood``: so many old packets are replayed in every turn, with or without traffic.
    ``everything``: all IP packets are harmed, not just ESP; but only ESP is ever changed.
    ``delay``: every frame takes so many seconds, and none overtakes another on that account.
    """

    lose: float = 0.0
    reorder: float = 0.0
    duplicate: float = 0.0
    corrupt: float = 0.0
    truncate: float = 0.0
    replay: float = 0.0
    reach: int = 16
    flood: int = 0
    everything: bool = False
    delay: float = 0.0


class Place:
    """Where ESP begins in a frame, and the headers before it."""

    __slots__ = ("esp", "ip", "udp")

    def __init__(self, ip: int, udp: int, esp: int) -> None:
        self.ip = ip
        self.udp = udp  # 0: none
        self.esp = esp


def place_of(frame: bytes, least: int = 16) -> Place | None:
    """None for what is no ESP: IKE, keepalives, fragments but the first, all else.  With UDP,
    ``least`` octets tell ESP from a keepalive."""
    kind = frame[12:14]
    if kind == IPV4 and len(frame) >= ETHERNET + 20:
        if frame[20] & 0x1F or frame[21]:  # a later fragment
            return None
        protocol, upper = frame[23], ETHERNET + (frame[14] & 15) * 4
    elif kind == IPV6 and len(frame) >= ETHERNET + 40:
        protocol, upper = frame[20], ETHERNET + 40
    else:
        return None
    if protocol == ESP:
        return Place(ETHERNET, 0, upper)
    if protocol != UDP or len(frame) < upper + 8 + least:
        return None
    if ENCAPSULATED not in struct.unpack_from("!HH", frame, upper):
        return None
    return Place(ETHERNET, upper, upper + 8) if frame[upper + 8 : upper + 12] != bytes(4) else None


def _sum(octets: bytes) -> int:
    """The Internet checksum of ``octets`` (RFC 1071), not complemented."""
    return int.from_bytes(octets + bytes(len(octets) % 2), "big") % 0xFFFF


def settled(frame: bytearray, place: Place) -> bytes:
    """The frame with lengths and checksums that fit what it now carries: else the next kernel would
    drop it, and nobody's datapath would ever see it."""
    if frame[12:14] == IPV4:
        struct.pack_into("!H", frame, place.ip + 2, len(frame) - place.ip)
        header = slice(place.ip, place.udp or place.esp)
        struct.pack_into("!H", frame, place.ip + 10, 0)
        struct.pack_into("!H", frame, place.ip + 10, 0xFFFF - _sum(frame[header]))
    else:
        struct.pack_into("!H", frame, place.ip + 4, len(frame) - place.ip - 40)
    if place.udp:
        length = len(frame) - place.udp
        struct.pack_into("!HH", frame, place.udp + 4, length, 0)
        if frame[12:14] == IPV6:
            addresses = bytes(frame[place.ip + 8 : place.ip + 40])
            pseudo = addresses + struct.pack("!II", length, UDP)
            checksum = 0xFFFF - _sum(pseudo + bytes(frame[place.udp :]))
            struct.pack_into("!H", frame, place.udp + 6, checksum or 0xFFFF)
    return bytes(frame)


class Road:
    """One direction.  It is told its random numbers, and what passes."""

    def __init__(self, conduct: Conduct, random: Random) -> None:
        self.conduct = conduct
        self.counts: Counter[str] = Counter()
        self._random = random
        self._held: list[tuple[int, bytes]] = []
        self._kept: deque[bytes] = deque(maxlen=KEPT)

    def passed(self, frame: bytes) -> list[bytes]:
        """What goes on in the place of ``frame``."""
        place = place_of(frame)
        if place is not None:
            self.counts["esp"] += 1
        elif not self.conduct.everything or frame[12:14] not in (IPV4, IPV6):
            return [frame]
        out = self._overtaken()
        out += self._harmed(frame, place)
        return out

    def idle(self) -> list[bytes]:
        """Nothing came for a while: what was held goes on."""
        out = [frame for _, frame in self._held]
        self._held.clear()
        return out + self.flooded()

    def flooded(self) -> list[bytes]:
        count = min(self.conduct.flood, len(self._kept))
        self.counts["replayed"] += count
        return [self._old() for _ in range(count)]

    def _old(self) -> bytes:
        return self._kept[self._random.randrange(len(self._kept))]

    def _overtaken(self) -> list[bytes]:
        """Those that were held and have now been overtaken by enough."""
        if not self._held:
            return []
        out = [frame for left, frame in self._held if left <= 1]
        self._held = [(left - 1, frame) for left, frame in self._held if left > 1]
        return out

    def _harmed(self, frame: bytes, place: Place | None) -> list[bytes]:
        conduct, counts, random = self.conduct, self.counts, self._random
        fate = random.random()
        if fate < conduct.lose:
            counts["lost"] += 1
            return []
        fate -= conduct.lose
        if fate < conduct.reorder:
            counts["reordered"] += 1
            self._held.append((random.randint(1, conduct.reach), frame))
            return []
        fate -= conduct.reorder
        if place is not None:
            if fate < conduct.corrupt:
                counts["corrupted"] += 1
                return [self._corrupted(frame, place)]
            fate -= conduct.corrupt
            if fate < conduct.truncate:
                counts["truncated"] += 1
                keep = random.randrange(place.esp, len(frame))
                return [settled(bytearray(frame[:keep]), place)]
            fate -= conduct.truncate
            self._kept.append(frame)
        if fate < conduct.duplicate:
            counts["duplicated"] += 1
            return [frame, frame]
        fate -= conduct.duplicate
        if fate < conduct.replay and self._kept:
            counts["replayed"] += 1
            return [frame, self._old()]
        return [frame]

    def _corrupted(self, frame: bytes, place: Place) -> bytes:
        """One to three octets of ESP are others: SPI, number, IV, ciphertext or ICV."""
        random, changed = self._random, bytearray(frame)
        for at in random.sample(range(place.esp, len(frame)), random.randint(1, 3)):
            changed[at] ^= random.randint(1, 255)
        return settled(changed, place)


class Watch:
    """What is on the wire by the neighbours' own doing."""

    def __init__(self, addresses: list[str], witness: BinaryIO | None) -> None:
        self._addresses = {ip_address(text).packed for text in addresses}
        self._witness = witness
        self.watched = 0

    def saw(self, frame: bytes) -> None:
        kind = frame[12:14]
        if self._addresses:
            ends = (frame[26:30], frame[30:34]) if kind == IPV4 else (frame[22:38], frame[38:54])
            if kind in (IPV4, IPV6) and (ends[0] in self._addresses or ends[1] in self._addresses):
                self.watched += 1
        if self._witness is not None:
            place = place_of(frame)
            if place is not None and len(frame) >= place.esp + 16:
                spi, number, iv = struct.unpack_from("!II8s", frame, place.esp)
                self._witness.write(RECORD.pack(spi, number, iv, time.monotonic_ns()))


def witnessed(octets: bytes) -> Iterator[tuple[int, int, bytes, int]]:
    """The records of a witness file: SPI, sequence number, IV, nanoseconds."""
    return RECORD.iter_unpack(octets[: len(octets) // RECORD.size * RECORD.size])


class Interface:
    def __init__(self, name: str) -> None:
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK)
        self.socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, BUFFER)
        self.socket.setsockopt(_SOL_PACKET, _IGNORE_OUTGOING, 1)
        self.socket.bind((name, _EVERYTHING))
        self._overrun = 0

    def frames(self) -> Iterator[bytes]:
        for _ in range(FRAMES_PER_TURN):
            try:
                yield self.socket.recv(1 << 17)
            except BlockingIOError:
                return

    def overrun(self) -> int:
        """Frames that came faster than we read.  The kernel's count begins anew with each look."""
        octets = self.socket.getsockopt(_SOL_PACKET, _STATISTICS, 8)
        self._overrun += struct.unpack("=II", octets)[1]
        return self._overrun


class Program:
    def __init__(self, ends: list[str], seed: int, conduct: Conduct, watch: Watch) -> None:
        self._interfaces = [Interface(name) for name in ends]
        self._roads = [Road(conduct, Random(seed + side)) for side in range(2)]
        self._watch = watch
        self._unsent = 0
        self._rest = b""
        self._idle_at: float | None = None  # if nothing comes until then
        self._under_way: tuple[deque[tuple[float, bytes]], ...] = (deque(), deque())  # to each side

    def run(self) -> None:
        ends: list[int] = [0, *(each.socket.fileno() for each in self._interfaces)]
        print("ready", flush=True)
        while True:
            # Of microseconds; poll(2) and epoll know milliseconds.
            ready = select.select(ends, (), (), self._patience())[0]
            if 0 in ready and not self._told():
                return
            moved = False
            for side, road in enumerate(self._roads):
                if ends[1 + side] in ready:
                    moved = True
                    for frame in self._interfaces[side].frames():
                        self._watch.saw(frame)
                        self._pass(1 - side, road.passed(frame))
                    self._pass(1 - side, road.flooded())
            now = time.monotonic()
            if moved:
                self._idle_at = now + HELD
            elif self._flooding or (self._idle_at is not None and now >= self._idle_at):
                self._idle_at = None
                for side, road in enumerate(self._roads):
                    self._pass(1 - side, road.idle())
            for side, under_way in enumerate(self._under_way):
                while under_way and under_way[0][0] <= now:
                    self._send(side, [under_way.popleft()[1]])

    @property
    def _flooding(self) -> bool:
        return any(road.conduct.flood for road in self._roads)

    def _patience(self) -> float | None:
        """How long there is nothing to do, if nothing comes."""
        if self._flooding:
            return 0
        moments = [under_way[0][0] for under_way in self._under_way if under_way]
        if self._idle_at is not None:
            moments.append(self._idle_at)
        return max(min(moments) - time.monotonic(), 0) if moments else None

    def _pass(self, side: int, frames: list[bytes]) -> None:
        delay = self._roads[1 - side].conduct.delay
        if delay or self._under_way[side]:
            due = time.monotonic() + delay
            self._under_way[side].extend((due, frame) for frame in frames)
        else:
            self._send(side, frames)

    def _send(self, side: int, frames: list[bytes]) -> None:
        for frame in frames:
            try:
                self._interfaces[side].socket.send(frame)
            except OSError:  # a full queue, or a frame that is too large
                self._unsent += 1
                continue
            if place_of(frame, 0) is not None:  # what was cut off may be nearly all of it
                self._roads[1 - side].counts["esp_on"] += 1

    def _told(self) -> bool:
        """Whether to go on."""
        octets = os.read(0, 1 << 16)
        if not octets:
            return False
        *lines, self._rest = (self._rest + octets).split(b"\n")
        for line in lines:
            if line == b"counts":
                sides = [dict(road.counts) for road in self._roads]
                overrun = sum(interface.overrun() for interface in self._interfaces)
                counts = {
                    "roads": sides,
                    "watched": self._watch.watched,
                    "overrun": overrun,
                    "unsent": self._unsent,
                }
                print(json.dumps(counts), flush=True)
                continue
            for road in self._roads:
                road.conduct = Conduct(**json.loads(line))
        return True


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("ends", nargs=2)
    parser.add_argument("--conduct", default="{}")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--watch", action="append", default=[])
    parser.add_argument("--witness")
    given = parser.parse_args(sys.argv[1:])
    conduct = Conduct(**json.loads(given.conduct))
    if given.witness is None:
        Program(given.ends, given.seed, conduct, Watch(given.watch, None)).run()
        return
    with open(given.witness, "wb") as file:  # noqa: PTH123 - a stream, not a file's content
        Program(given.ends, given.seed, conduct, Watch(given.watch, file)).run()


if __name__ == "__main__":
    main()
