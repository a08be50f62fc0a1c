"""NETLINK_XFRM's octets: what iproute2 sends, both ways; every kind of message there and back."""

from __future__ import annotations

import errno
import json
import struct
import sys
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from oegw.datapath.interface import UdpEncapsulation
from oegw.datapath.xfrm.layout import AF_INET, AF_INET6
from oegw.datapath.xfrm.messages import HEADER, SHAPES, Frame, MessageType, dump, frames, serialize
from oegw.datapath.xfrm.policy import (
    Action,
    Policy,
    PolicyDirection,
    PolicyName,
    Template,
    everything,
)
from oegw.datapath.xfrm.reports import Account, Acquired, Expired, Mapped, SpiRequest
from oegw.datapath.xfrm.state import (
    Algorithm,
    Consumed,
    Limits,
    ReplayState,
    State,
    StateName,
    StateUsage,
)
from tests.support.datapath_sas import (
    A4,
    B4,
    GATEWAY_A4,
    GATEWAY_A6,
    GATEWAY_B4,
    GATEWAY_B6,
    selector,
)

VECTORS = Path(__file__).resolve().parents[3] / "vectors" / "oegw" / "xfrm-iproute2.json"
REQUESTS = {each["name"]: each for each in json.loads(VECTORS.read_text())["requests"]}

KEY16 = bytes(range(1, 17))
OUTER4 = ip_address(GATEWAY_A4), ip_address(GATEWAY_B4)
OUTER6 = ip_address(GATEWAY_A6), ip_address(GATEWAY_B6)
HOSTS = selector(A4), selector(B4)

STATE = State(
    *OUTER4,
    0x1000,
    HOSTS,
    interface_id=4500,
    reqid=4500,
    aead=Algorithm("rfc4106(gcm(aes))", bytes(range(1, 21)), 16),
    extended=True,
    replay=ReplayState(1024),
    encapsulation=UdpEncapsulation(4500, 32000),
    limits=Limits(1000, 2000, 10, 20),
    mark=(0x30000, 0x30000),
)
PORTS = selector("2001:db8:1::/64", 6), selector("2001:db8:2::66/128", 6, 80)
POLICY = Policy(
    PolicyDirection.OUT, HOSTS, 293472, 4500, template=Template(AF_INET, 4500, *OUTER4, 0x1000)
)

SAME: dict[str, Any] = {
    "state-gcm-esn-udp": STATE,
    "state-cbc-sha2-inner6": State(
        *OUTER4,
        0x1001,
        PORTS,
        interface_id=4500,
        reqid=4500,
        cipher=Algorithm("cbc(aes)", KEY16),
        integrity=Algorithm("hmac(sha256)", bytes(range(101, 133)), 16),
        copy_dont_fragment=False,
    ),
    "state-outer6": State(
        *OUTER6,
        0x1002,
        None,
        reqid=7,
        cipher=Algorithm("cbc(des3_ede)", bytes(range(1, 25))),
        integrity=Algorithm("hmac(md5)", KEY16, 12),
    ),
    "state-delete": StateName(OUTER4[1], 0x1000),
    "state-get": StateName(OUTER6[1], 0x1002),
    "policy-out": POLICY,
    "policy-in6": Policy(
        PolicyDirection.IN,
        (selector("2001:db8:1::/64", 17, 53), selector("::/0", 17)),
        5,
        4500,
        template=Template(AF_INET6, 4500),
    ),
    "policy-block": Policy(PolicyDirection.OUT, everything(AF_INET), 2**31 - 1, 4500, Action.BLOCK),
    "policy-delete": PolicyName(PolicyDirection.OUT, HOSTS, 4500),
    "allocspi": SpiRequest(State(*OUTER4, 0, None, reqid=4500), 0x100, 0x1FF),
}

# What iproute2 says besides, and the kernel does not need: an address that the SPI tells
# already, and the default type of policy.
NOT_OURS = {"XFRMA_SRCADDR", "XFRMA_POLICY_TYPE"}

x86_64 = pytest.mark.skipif(
    sys.byteorder != "little" or struct.calcsize("@BQ") != 16,
    reason="the vectors have the layout of a little-endian 64-bit machine",
)


def recorded(name: str) -> Frame:
    request = REQUESTS[name]
    body = bytes.fromhex("".join(request["octets"]))
    kind = MessageType[request["message"]]
    return Frame(kind, 5, 1, HEADER.pack(HEADER.size + len(body), kind, 5, 1, 0) + body)


def sent(kind: MessageType, content: Any) -> Frame:
    [frame] = frames(serialize(kind, 5, 1, content))
    assert (frame.kind, frame.flags, frame.sequence) == (kind, 5, 1)
    return frame


def test_each_vector_is_compared() -> None:
    assert set(SAME) == set(REQUESTS)


@x86_64
@pytest.mark.parametrize("name", SAME)
def test_as_iproute2_says_it(name: str) -> None:
    theirs = recorded(name)
    body, attributes = theirs.raw()
    ours, our_attributes = sent(MessageType(theirs.kind), SAME[name]).raw()
    if name == "allocspi":  # iproute2 leaves what is not known yet at zero
        assert ours[-8:] == body[-8:]
        assert SpiRequest.parse(body, {}).lowest == 0x100
        return
    assert ours.hex() == body.hex()
    assert our_attributes == {k: v for k, v in attributes.items() if k not in NOT_OURS}


@x86_64
@pytest.mark.parametrize("name", SAME)
def test_iproute2_is_understood(name: str) -> None:
    if name == "allocspi":
        return
    assert recorded(name).content() == SAME[name]


EACH = [
    (MessageType.NEWSA, STATE),
    (MessageType.UPDSA, replace(STATE, consumed=Consumed(1, 2, 3, 4), mapping_interval=1)),
    (
        MessageType.NEWSA,
        replace(STATE, replay=ReplayState(4096, 2**40, 2**33 + 1, b"\x01" * 512), extended=True),
    ),
    (MessageType.DELSA, StateName(OUTER6[1], 0xFFFFFFFF)),
    (MessageType.GETSA, StateName(OUTER4[1], 256)),
    (MessageType.NEWPOLICY, POLICY),
    (MessageType.UPDPOLICY, replace(POLICY, action=Action.BLOCK, template=None)),
    (MessageType.DELPOLICY, POLICY.name),
    (MessageType.GETPOLICY, PolicyName(PolicyDirection.FORWARD, PORTS, 1)),
    (MessageType.ALLOCSPI, SpiRequest(State(*OUTER4, 0, HOSTS, reqid=1), 256, 2**32 - 1)),
    (MessageType.EXPIRE, Expired(State(*OUTER6, 0x1000, HOSTS, interface_id=9), True)),
    (MessageType.EXPIRE, Expired(State(*OUTER4, 0x1000, PORTS, interface_id=9), False)),
    (MessageType.ACQUIRE, Acquired(*OUTER4, HOSTS, replace(POLICY, template=None), 4500)),
    (MessageType.MAPPING, Mapped(StateName(OUTER4[1], 1000), 7, *OUTER4, 4500, 32000)),
    (MessageType.MAPPING, Mapped(StateName(OUTER6[1], 1000), 7, *OUTER6, 4500, 32000)),
    (MessageType.GETAE, Account(StateName(OUTER4[1], 1000))),
    (
        MessageType.NEWAE,
        Account(
            StateName(OUTER4[1], 1000),
            OUTER4[0],
            4500,
            ReplayState(64, 10, 20, b"\xff" * 8),
            Consumed(1, 2, 3, 4),
        ),
    ),
]


@pytest.mark.parametrize(("kind", "content"), EACH, ids=lambda each: type(each).__name__)
def test_there_and_back(kind: MessageType, content: Any) -> None:
    assert sent(kind, content).content() == content


def test_every_kind_is_tried() -> None:
    assert {kind for kind, _ in EACH} == set(SHAPES)


def test_the_short_way_reads_the_same() -> None:
    spent = replace(STATE, consumed=Consumed(840, 10, 5, 6))
    frame = sent(MessageType.NEWSA, spent)
    assert StateUsage.parse(*frame.raw()) == StateUsage(4500, STATE.name, spent.consumed, None)


def test_no_key_is_shown() -> None:
    frame = sent(MessageType.NEWSA, SAME["state-cbc-sha2-inner6"])
    message = SHAPES[MessageType.NEWSA][0](frame.octets)
    message.decode()
    for text in (repr(frame), repr(SAME["state-cbc-sha2-inner6"]), repr(STATE), repr(message),
                 str(message)):  # fmt: skip
        for secret in (KEY16, bytes(range(101, 133)), bytes(range(1, 21))):
            assert secret.hex() not in text
            assert repr(secret)[2:-1] not in text


def test_a_refusal_is_read_with_the_kernels_words() -> None:
    request = serialize(MessageType.NEWSA, 5, 7, STATE)[: HEADER.size]
    words = b"Requested AEAD algorithm not found\0"
    attribute = struct.pack("=HH", 4 + len(words), 1) + words
    body = struct.pack("=i", -errno.ENOSYS) + request + attribute
    octets = HEADER.pack(HEADER.size + len(body), MessageType.ERROR, 0x300, 7, 0) + body
    [frame] = frames(octets)
    assert frame.error() == (errno.ENOSYS, "Requested AEAD algorithm not found")
    accepted = HEADER.pack(36, MessageType.ERROR, 0x100, 7, 0) + struct.pack("=i", 0) + request
    [frame] = frames(accepted)
    assert frame.error() == (0, "")


def test_broken_octets_are_refused() -> None:
    octets = serialize(MessageType.NEWSA, 5, 1, STATE)
    for length in range(1, len(octets)):
        with pytest.raises(ValueError, match="netlink message"):
            list(frames(octets[:length]))
    with pytest.raises(ValueError, match="type 99"):
        Frame(99, 0, 0, HEADER.pack(16, 99, 0, 0, 0)).raw()
    with pytest.raises(ValueError, match="type 16"):
        Frame(16, 0, 0, HEADER.pack(20, 16, 0, 0, 0) + bytes(4)).raw()


def test_dumps_ask_for_all() -> None:
    for kind in (MessageType.GETSA, MessageType.GETPOLICY):
        [frame] = frames(dump(kind, 3))
        assert (frame.kind, frame.flags, frame.sequence) == (kind, 0x301, 3)
        assert not any(frame.octets[HEADER.size :])
