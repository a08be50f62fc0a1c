"""The channel's messages, both ways; the worker's end of it, with strange requests."""

from __future__ import annotations

import json
import os
import random
import socket
import threading
from ipaddress import ip_address

import pytest

from oegw.datapath.interface import (
    PeerAddressChanged,
    SaExpired,
    UdpEncapsulation,
    UnknownSpiReceived,
)
from oegw.datapath.userspace import channel
from oegw.datapath.userspace.channel import ChannelError, Kind, Message
from oegw.datapath.userspace.counters import CounterPage, CounterPages
from oegw.datapath.userspace.engine import DontFragment
from oegw.datapath.userspace.equipment import Equipment
from oegw.datapath.userspace.offloads import SENDING, Offload
from oegw.datapath.userspace.opening import Opening
from oegw.datapath.userspace.outside import Handle
from oegw.datapath.userspace.sealing import Sealing
from oegw.datapath.userspace.state import Memory
from oegw.datapath.userspace.worker import MakesDuty, Worker
from tests.support.datapath_sas import ALGORITHMS, GATEWAY_A6, GATEWAY_B6, arriving, make_sa


@pytest.mark.parametrize("encapsulation", [None, UdpEncapsulation(4500, 61000)])
def test_moves_come_back(encapsulation: UdpEncapsulation | None) -> None:
    move = (make_sa().key, ip_address("192.0.2.1"), ip_address("192.0.2.2"), encapsulation)
    assert channel.move_of(json.loads(json.dumps(channel.move_body(*move)))) == move


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_values_come_back(algorithm: str) -> None:
    for sa in (
        make_sa(algorithm, extended_sequence_numbers=True, soft_bytes=1, hard_bytes=2),
        arriving(make_sa(algorithm, source=GATEWAY_A6, destination=GATEWAY_B6)),
        make_sa(algorithm, encapsulation=UdpEncapsulation(4500, 61000), configured=True),
        make_sa(algorithm, soft_seconds=3, hard_seconds=4),
    ):
        message = Message(Kind.INSTALL, 7, channel.install_body(sa, 4096))
        parsed = Message.parse(message.serialize())
        assert parsed == message
        assert channel.install_of(parsed.body) == (sa, 4096)
        assert channel.key_of(channel.key_body(sa.key)) == sa.key
        assert sa.encryption_key.hex() not in repr(message)
    for event in (
        SaExpired(make_sa().key, True),
        UnknownSpiReceived(ip_address("192.0.2.1"), ip_address("192.0.2.2"), 4711),
        PeerAddressChanged(make_sa().key, ip_address("192.0.2.1"), 61000),
    ):
        assert channel.event_of(json.loads(json.dumps(channel.event_body(event)))) == event
    for home in ((make_sa().key, 3), (make_sa().key, None)):
        assert channel.home_of(json.loads(json.dumps(channel.home_body(*home)))) == home
    path = (ip_address(GATEWAY_B6), 1400)
    assert channel.path_mtu_of(json.loads(json.dumps(channel.path_mtu_body(*path)))) == path
    lost = Offload(SENDING, "no more")
    assert channel.offload_of(json.loads(json.dumps(channel.offload_body(lost)))) == lost
    handles = (Handle(7, 4, True, True), Handle(8, 6, False, False))
    equipment = Equipment(
        *("compiled", 3, True, 4, 5, 6, True, False, handles, 1400, 0x30000, DontFragment.SET)
    )
    assert Equipment.of(json.loads(json.dumps(equipment.body()))) == equipment
    assert equipment.descriptors == (3, 4, 6, 7, 8)


def test_strange_messages_are_refused() -> None:
    good = Message(Kind.BEGIN, 1, None).serialize()
    for octets in (
        b"",
        good[:5],
        bytes((channel.VERSION - 1,)) + good[1:],
        bytes((channel.VERSION, 0xEE)) + good[2:],
        good + b"{",
        good[:-4],
    ):
        with pytest.raises(ChannelError):
            Message.parse(octets)


@pytest.mark.fuzz
def test_any_octets_give_a_message_or_an_error() -> None:
    source = random.Random(1)
    seed = Message(Kind.INSTALL, 7, channel.install_body(make_sa(), 64)).serialize()
    for _ in range(100_000):
        octets = bytearray(seed)
        octets[source.randrange(len(octets))] = source.randrange(256)
        del octets[source.randrange(len(octets)) : source.choice([0, len(octets)])]
        try:
            Message.parse(bytes(octets))
        except ChannelError:
            continue


@pytest.mark.parametrize("make", [Sealing, Opening])
def test_worker_answers_strange_requests_and_ends_with_the_channel(make: MakesDuty) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(10)
    thread = threading.Thread(target=Worker(theirs, make).run)
    thread.start()
    try:
        body = channel.sa_body(make_sa())
        del body["outer"]
        for octets in (
            b"\x09nonsense",
            Message(Kind.ANSWER, 2).serialize(),
            Message(Kind.INSTALL, 3, [body, 0]).serialize(),
            Message(Kind.INSTALL, 4, [1]).serialize(),
            Message(Kind.REMOVE, 5, ["in", 1, "no address"]).serialize(),
            Message(Kind.MOVE, 5, channel.key_body(make_sa().key)).serialize(),
            Message(Kind.START, 6, {}).serialize(),
            Message(Kind.START, 7, ["python", [1], [2], [3], [], [4]]).serialize(),
            Message(Kind.BEGIN, 8).serialize(),
        ):
            ours.send(octets)
            answer = Message.parse(ours.recv(channel.LARGEST))
            assert answer.kind is Kind.REFUSAL
            assert body["cipher"][1] not in answer.body
    finally:
        ours.close()
        thread.join(10)
        theirs.close()
    assert not thread.is_alive()


def test_a_worker_tells_once_what_it_has_lost() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(10)
    kernel, device = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    memory, pages = Memory(), CounterPages(1)
    places = memory.descriptor, False, pages.descriptor, 0, device.fileno()
    equipment = Equipment("python", *places, True, False, (), 1400, 0, DontFragment.SET)
    lost = Offload(SENDING, "no more")

    def make(equipment: Equipment, counters: CounterPage) -> Sealing:
        duty = Sealing(equipment, counters)
        duty.lost.append(lost)
        return duty

    thread = threading.Thread(target=Worker(theirs, make).run)
    thread.start()
    try:
        ours.send(Message(Kind.START, 1, equipment.body()).serialize())
        ours.send(Message(Kind.PULSE, 2).serialize())
        said = [Message.parse(ours.recv(channel.LARGEST)) for _ in range(3)]
        assert [each.kind for each in said] == [Kind.ANSWER, Kind.WITHOUT, Kind.ANSWER]
        assert channel.offload_of(said[1].body) == lost
    finally:
        ours.close()
        thread.join(10)
        for end in (theirs, kernel, device):
            end.close()
        pages.close()
        os.close(memory.descriptor)
    assert not thread.is_alive()
