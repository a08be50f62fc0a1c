"""Attacks on what the kernel answers, in network namespaces: can it be made to tell ports?

The attacker is on the public link: he sees all packets there, and sends what he likes in anybody's
name.  He has no key.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from oegw.sst.packet import seal
from oegw.sst.plane.entrances import Entrances
from oegw.sst.plane.exits import Exits
from tests.attacks.frame import SST, attack, replaced
from tests.support.intercept_net import INSIDE, PEER, Net, wait_for, within
from tests.support.sst_plane import KEY, SIGNAL, off, only, running
from tests.support.sst_wire import ACK, SYN, TCP, UDP, around, build, look, segment

_CLIENT, _SERVICE = 40000, 993


def _sends(net: Net, *packets: bytes) -> None:
    """Whole packets, put on the public link."""

    def body() -> None:
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        with raw:
            for packet in packets:
                raw.sendto(packet, (INSIDE, 0))

    within(net.outside, body)


def _seen(capture: Any) -> list[bytes]:
    return list(capture.to(PEER))


def _quiet(net: Net, capture: Any, arrived: Callable[[], bool]) -> list[bytes]:
    """What came out, once what was sent has come to its end, and a packet behind it, too."""
    wait_for(lambda: arrived() or None)
    net.udp(net.inside, INSIDE, 7777).send("behind", PEER)
    wait_for(lambda: [p for p in _seen(capture) if p.endswith(b"behind")] or None)
    return [packet for packet in _seen(capture) if not packet.endswith(b"behind")]


def _without_look_at_connections(self: Entrances) -> str:
    return _remembered(self).replace(
        "ct state invalid,untracked counter name opened_untracked_dropped drop", ""
    )


_remembered = Entrances._remembered


def _tells(packet: bytes) -> bool:
    """Whether the real ports are in what came out."""
    both = _CLIENT.to_bytes(2, "big"), _SERVICE.to_bytes(2, "big")
    return both[0] + both[1] in packet or both[1] + both[0] in packet


def _without_errors_of_no_connection(self: Exits) -> str:
    lines = _deciding(self).splitlines()
    return "".join(f"{line}\n" for line in lines if "ct state invalid,untracked" not in line)


_deciding = Exits._deciding

_UNTRACKED = replaced(
    ("oegw.sst.plane.entrances.Entrances._remembered", _without_look_at_connections),
    # What is told by an error that got through all the same would be sealed on its way out.
    ("oegw.sst.plane.exits.Exits._deciding", _without_errors_of_no_connection),
)


@attack(
    SST,
    "A sealed packet that was seen is sent again as the answer to nothing (SYN-ACK, RST, no flags "
    "at all), long after its connection",
    source="found here: what connection tracking calls invalid has no mark",
    defence="oegw/sst/plane/entrances.py Entrances._remembered",
    otherwise="the host answers with a reset, which nothing says to seal: it has both real ports",
    without=_UNTRACKED,
    marks=("netns",),
)
def resets_for_packets_of_no_connection() -> None:
    with Net() as net, running(net.gateway, off()) as plane:
        capture = net.capture(net.outside, "out0")
        plane.listener.rewrites = True  # there is no room in the maps: else they seal the reset
        packets = [
            seal(build(PEER, INSIDE, TCP, _SERVICE, _CLIENT, flags=flags), KEY, SIGNAL)
            for flags in (SYN | ACK, 0x04, 0x00, ACK)
        ]
        _sends(net, *packets)
        out = _quiet(net, capture, lambda: sum(_opened(plane)) >= len(packets))
        assert not [packet for packet in out if _tells(packet)], "the answer tells the ports"
        # And where the kernel did make a connection of it, the answer is sealed as it came.
        assert all(look(packet).flagged for packet in out)


def _opened(plane: Any) -> tuple[int, int]:
    counters = plane.counters
    return counters["opened"], counters["opened_slowly"]


@attack(
    SST,
    "A sealed packet that was seen is sent again with a TTL of 1 and a wrong checksum",
    source="found here: an ICMP error about what no connection has",
    defence="oegw/sst/plane/entrances.py Entrances._remembered",
    otherwise="our own gateway sends an ICMP error that quotes what it opened: any packet on the "
    "link is read by sending it again",
    without=_UNTRACKED,
    marks=("netns",),
)
def errors_about_packets_of_no_connection() -> None:
    with Net() as net, running(net.gateway, off()) as plane:
        capture = net.capture(net.outside, "out0")
        packets = []
        for protocol, place in ((UDP, 6), (TCP, 16)):
            body = bytearray(segment(PEER, INSIDE, protocol, (_SERVICE, _CLIENT), b"seen"))
            for spoiled in (0, 1):
                body[place] ^= spoiled
                whole = around(bytes(body), PEER, INSIDE, protocol, ttl=1)
                packets.append(seal(whole, KEY, SIGNAL))
        _sends(net, *packets)
        out = _quiet(net, capture, lambda: sum(_opened(plane)) >= len(packets))
        assert not [packet for packet in out if _tells(packet)], "the error tells the ports"


_leg, _reset = Exits._leg, "ct direction reply"


def _answers_all(self: Exits, leg: Any, family: int) -> str:
    text = _leg(self, leg, family)
    return "".join(line + "\n" for line in text.splitlines() if _reset not in line)


@attack(
    SST,
    "Clear packets in a peer's name to ports of the attacker's choice; by the policy all that goes "
    "to this peer is sealed",
    source="found here; design, codebook",
    defence="oegw/sst/plane/exits.py Exits._came_clear",
    otherwise="each answer says what two chosen ports are sealed as: in a minute he has the book "
    "of the day, and reads the ports of every flow between the two",
    without=replaced(("oegw.sst.plane.exits.Exits._leg", _answers_all)),
    marks=("netns",),
)
def codebook_by_clear_questions() -> None:
    for required in (False, True):
        with Net() as net, running(net.gateway, only(required=required)) as plane:
            capture = net.capture(net.outside, "out0")
            _sends(net, build(PEER, INSIDE, TCP, _SERVICE, _CLIENT, flags=SYN))
            _sends(net, build(PEER, INSIDE, UDP, _SERVICE, _CLIENT, b"closed?"))

            def ended(plane: Any = plane) -> bool:
                names = ("came_clear", "required_dropped", "sealed")
                return any(plane.counters[name] for name in names)

            wait_for(lambda: ended() or None)
            out = [packet for packet in _seen(capture) if look(packet).protocol == TCP]
            assert not [packet for packet in out if look(packet).flagged], "a chosen pair, sealed"
            if required:
                assert out == []
            else:
                assert len(out) == 1, "what came in clear is answered in clear"
