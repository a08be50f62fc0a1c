"""Attacks on the workers that open many ESP packets at a time: row 20, with each core."""

from __future__ import annotations

import os
import random
import signal
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR

from oegw.datapath.userspace.core.train import Train
from oegw.datapath.userspace.esp import InboundSa
from oegw.datapath.userspace.record import Record, private_record
from oegw.datapath.userspace.state import Chunks, Memory
from oegw.datapath.userspace.transform import AuthenticatedEncryption
from oegw.packet.ip import Buffer
from tests.attacks.frame import attack, replaced
from tests.oegw.datapath.userspace.core.test_opening import PACKETS, Road, cut_again
from tests.support.datapath_cores import LOOPBACK, Opening, chosen, cores, opening, to_loopback
from tests.support.datapath_sas import arriving

_WINDOW = 64


@contextmanager
def _each_core() -> Iterator[list[Opening]]:
    """A receiver with each core that is there."""
    sides: list[Opening] = []
    try:
        sides += [Opening(chosen(name)) for name in cores()]
        yield sides
    finally:
        for side in sides:
            side.close()


def _private(self: Chunks, offset: int, shared: bool = False) -> Record:
    return private_record(_WINDOW)


def _successor(side: Opening, memory: Memory, offset: int) -> None:
    """A worker that knows the SA by what outlives all of them."""
    spec = arriving(to_loopback(replay_window=_WINDOW))
    record = Chunks(memory.descriptor).record(offset)
    sa = InboundSa(spec, random.Random(1).randbytes, record)
    sa.peer = socket.inet_aton(LOOPBACK), side.peer.getsockname()[1]
    side.core.install(sa)
    side.learn(sa, PACKETS[0])


def _delivered(side: Opening, esp: bytes) -> list[bytes]:
    side.send(esp)
    side.fill()
    assert side.care() == []
    return cut_again(side.frames())


def _opens(side: Opening, memory: Memory, offset: int, esp: bytes) -> None:
    _successor(side, memory, offset)
    if _delivered(side, esp) != [PACKETS[0]]:
        os._exit(2)


def _dies_after(work: Callable[[], object]) -> int:
    """The signal that ended a process which did this."""
    child = os.fork()
    if not child:
        try:
            work()
            os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@attack(
    20,
    "An ESP packet again, after the worker that opened it was killed and has a successor",
    source="RFC 4303 section 3.4.3",
    defence="oegw/datapath/userspace/state.py Chunks.record",
    otherwise="whoever can crash a worker may replay all that it ever received",
    without=replaced(("oegw.datapath.userspace.state.Chunks.record", _private)),
)
def replay_to_a_successor() -> None:
    for name in cores():
        memory = Memory()
        offset = memory.allocate(_WINDOW)
        with opening(chosen(name)) as sender, opening(chosen(name)) as side:
            esp = Road(sender, know=False).sealed(PACKETS[0])

            assert _dies_after(partial(_opens, side, memory, offset, esp)) == -signal.SIGKILL
            _successor(side, memory, offset)
            assert _delivered(side, esp) == []
            assert side.core.counted() == {"drop_in_replay": 1}


def _unverified(
    sa: InboundSa, transform: AuthenticatedEncryption
) -> Callable[[memoryview, int, int, int], tuple[int, int]]:
    """Decryption by AES-GCM that takes no notice of the ICV (its mode is CTR, from 2 on)."""
    key = sa.sa.encryption_key[:-4]

    def decrypted(payload: memoryview, place: int, stop: int, sequence: int) -> tuple[int, int]:
        nonce = transform.salt + bytes(payload[place + 8 : place + 16]) + struct.pack("!I", 2)
        start, finish = place + 16, stop - 16
        plain = Cipher(AES(key), CTR(nonce)).decryptor().update(bytes(payload[start:finish]))
        payload[start:finish] = plain
        return start, finish

    return decrypted


def _none_of_a_row(*_: object) -> int:
    """Leaves each packet to the decryption of one."""
    return 0


@attack(
    20,
    "A corrupted ESP packet among honest ones that arrive as one super-datagram",
    source="RFC 4303 section 3.4.4",
    defence="oegw/datapath/userspace/core/decrypting.py gcm",
    otherwise="it is delivered with them, or they are lost with it",
    without=replaced(
        ("oegw.datapath.userspace.core.pureopening.gcm", _unverified),
        ("oegw.datapath.userspace.core.pureopening.gcm_row", lambda *_: _none_of_a_row),
        ("oegw.datapath.userspace.core.pureopening.gcm_bursts", lambda *_: _none_of_a_row),
    ),
)
def corrupted_among_honest() -> None:
    with _each_core() as sides:
        for side in sides:
            road = Road(side)
            sealed = [bytearray(road.sealed(packet)) for packet in PACKETS]
            sealed[1][-40] ^= 1
            side.send(b"".join(sealed), size=len(sealed[0]))
            assert side.fill() == 1  # one datagram, as the kernel joined it
            assert side.care() == []
            assert cut_again(side.frames()) == [PACKETS[0], *PACKETS[2:]]
            assert side.core.counted()["drop_in_invalid"] == 1


def _unlooked(self: Train, octets: Buffer, place: int, size: int, stride: int, count: int) -> int:
    """Takes each checksum for right."""
    return count


@attack(
    20,
    "A segment whose TCP checksum is wrong (altered before its tunnel), between right ones of its "
    "flow: the kernel computes the checksum of what we join",
    source="RFC 9293 section 3.1",
    defence="oegw/datapath/userspace/core/train.py Train._right",
    otherwise="a broken segment becomes a valid one, and its receiver takes it",
    without=replaced(("oegw.datapath.userspace.core.train.Train._right", _unlooked)),
)
def checksum_made_valid_by_joining() -> None:
    forged = bytearray(PACKETS[1])
    forged[-1] ^= 1
    sent = [PACKETS[0], bytes(forged), *PACKETS[2:]]
    with _each_core() as sides:
        for side in sides:
            frames = Road(side).through(*sent)
            assert len(frames) < len(sent)  # the right ones at the end are joined
            assert cut_again(frames) == sent
