"""What the hands answer to who asks by a stream, and that they refuse the rest."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from oegw.intercept.interface import InterceptError
from oegw.powers import codec
from oegw.powers.desk import Desk, attend
from oegw.powers.door import DoorKernel
from oegw.powers.frames import FrameError, Frames, Kind, Waiting, frame
from oegw.powers.hands import _DOORS, _MINDS
from oegw.powers.orders import (
    Call,
    CountQueue,
    ListWorkers,
    MarksOf,
    Nft,
    NfTransaction,
    OpenQueue,
    Refused,
    Role,
    Trouble,
)
from oegw.powers.packets import Packet, PacketFormError, Verdict
from oegw.powers.permits import NftPermit
from tests.support.own_network import own_network

pytestmark = pytest.mark.netns


def refused(desk: Desk, order: Call) -> Refused:
    kind, octets = desk.reply(codec.encode(order, Call))
    assert kind is Kind.REFUSAL, order
    answer: Refused = codec.decode(octets, Refused)
    return answer


@pytest.mark.parametrize(
    "command", ["flush ruleset", "add table inet other", "delete table ip filter", "include x"]
)
def test_the_mind_does_not_write_what_is_not_ours(command: str) -> None:
    with own_network():
        desk = Desk(NftPermit(_MINDS), tracking=True)
        answer = refused(desk, Nft(command, 0, False))
        assert answer.trouble is Trouble.INTERCEPT
        assert "not done for who asks" in answer.text


def test_nothing_is_listed_with_names_from_the_dns() -> None:
    with own_network():
        answer = refused(Desk(NftPermit(_MINDS)), Nft("list ruleset", 1 << 0, False))
        assert answer.text == "nft: not with the flags 0x1"


@pytest.mark.parametrize("role", Role)
def test_who_is_beside_the_mind_gets_less(role: Role) -> None:
    with own_network():
        desk = Desk(_DOORS[role])
        for order in (
            Nft("add table inet oegw", 0, False),
            Nft("list ruleset", 0, False),
            NfTransaction(()),
            MarksOf(0, 0),
            OpenQueue(4500, 10, False),
            CountQueue(4500),
            ListWorkers(),
        ):
            refused(desk, order)
        desk.close()


@contextmanager
def attended(permit: NftPermit) -> Iterator[socket.socket]:
    ours, theirs = socket.socketpair()
    thread = threading.Thread(target=attend, args=(theirs, Desk(permit)))
    with ours:
        thread.start()
        yield ours
    thread.join(10)
    assert not thread.is_alive(), "it ends with the stream"


def test_moniker_writes_its_own_table_and_socks_none() -> None:
    with own_network(), attended(_DOORS[Role.MONIKER]) as stream:
        kernel = DoorKernel(stream)
        assert not kernel.nft("add table inet oegw_moniker", 0, dry=False).failed
        assert "oegw_moniker" in kernel.nft("list table inet oegw_moniker", 0, dry=False).output
        with pytest.raises(InterceptError):
            kernel.nft("add table inet oegw", 0, dry=False)
        with attended(_DOORS[Role.SOCKS]) as other, pytest.raises(InterceptError):
            DoorKernel(other).nft("delete table inet oegw_moniker", 0, dry=False)
        assert "oegw_moniker" in kernel.nft("list table inet oegw_moniker", 0, dry=False).output


@pytest.mark.parametrize(
    "octets", [b"\0\0\0\1\x63x", b"\xff\xff\xff\xff\1", frame(Kind.CALL, b"{")]
)
def test_who_says_what_we_do_not_say_is_left(octets: bytes) -> None:
    with attended(_DOORS[Role.SOCKS]) as stream:
        stream.sendall(octets)
        stream.settimeout(10)
        assert stream.recv(10) == b""


def test_frames_come_as_they_went_however_they_are_cut() -> None:
    said = [(Kind.CALL, b"abc"), (Kind.VERDICT, b""), (Kind.NEWS, bytes(1000))]
    octets = b"".join(frame(*each) for each in said)
    for size in (1, 3, 7, 1000, len(octets)):
        frames, found = Frames(), list[Any]()
        for at in range(0, len(octets), size):
            found += frames.take(octets[at : at + size])
        assert found == said


def test_a_stream_that_ends_is_no_answer() -> None:
    ours, theirs = socket.socketpair()
    theirs.close()
    with ours, pytest.raises(FrameError):
        Waiting(ours).receive()


def test_packets_and_verdicts_come_as_they_went() -> None:
    packet = Packet(2**40, 0x30000, 1, 0, 3, b"\x45abc")
    assert Packet.parse(packet.serialize()) == packet
    for verdict in (
        Verdict(4500, 7, False),
        Verdict(4500, 7, True, 0),
        Verdict(4500, 7, True, 0x10000, b""),
        Verdict(4500, 7, True, None, b"xyz"),
    ):
        assert Verdict.parse(verdict.serialize()) == verdict
    longest = Verdict(4500, 7, True, None, bytes(65531)).serialize()
    assert Verdict.parse(longest).payload == bytes(65531)
    for octets in (b"", bytes(5), Verdict(1, 1, True).serialize() + b"x", longest + b"x"):
        with pytest.raises(PacketFormError):
            Verdict.parse(octets)
    with pytest.raises(PacketFormError):
        Packet.parse(bytes(9))


def test_an_answer_that_comes_too_late_is_not_taken_for_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("oegw.powers.frames.PATIENCE", 0.05)
    ours, theirs = socket.socketpair()
    line = Waiting(ours)
    with theirs:
        line.send(Kind.CALL, b"first")
        with pytest.raises(FrameError):
            line.receive()
        theirs.sendall(frame(Kind.ANSWER, b"to the first"))
        with pytest.raises(FrameError):
            line.send(Kind.CALL, b"second")
        with pytest.raises(FrameError):
            line.receive()
    line.close()
