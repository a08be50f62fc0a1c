"""Facts about services by name: what links saw of questions, ports and names."""

from __future__ import annotations

import struct
from typing import Any

from lablib.lab import Lab
from lablib.monikersteps import MONIKER_PORT
from lablib.pcap import TCP, UDP, Packet
from lablib.stage import Missed, check_keys

SYN, ACK = 2, 16


def payload(packet: Packet) -> bytes:
    """What a TCP segment or a UDP datagram carries; empty for others."""
    if packet.protocol not in (TCP, UDP) or packet.fragment is not None:
        return b""
    frame = packet.frame
    at = 14 + ((frame[14] & 15) * 4 if packet.ethertype == "ipv4" else 40)
    (total,) = struct.unpack_from("!H", frame, 16 if packet.ethertype == "ipv4" else 18)
    end = 14 + total if packet.ethertype == "ipv4" else 54 + total
    header = (frame[at + 12] >> 4) * 4 if packet.protocol == TCP else 8
    return frame[at + header : end]


def _flags(packet: Packet) -> int:
    at = 14 + ((packet.frame[14] & 15) * 4 if packet.ethertype == "ipv4" else 40)
    return packet.frame[at + 13] & 63


def openings(lab: Lab, fact: dict[str, Any]) -> list[Packet]:
    """The first packet of each TCP connection from ``source`` to ``destination`` on ``link``."""
    ends = lab.address(fact["source"]), lab.address(fact["destination"])
    seen: set[int] = set()
    result = []
    for packet in lab.captured[fact["link"]]:
        if packet.protocol != TCP or (packet.source, packet.destination) != ends:
            continue
        if _flags(packet) & (SYN | ACK) == SYN and packet.first not in seen:
            seen.add(packet.first)
            result.append(packet)
    return result


def asked_and_connected(lab: Lab, fact: dict[str, Any]) -> str:
    """How many connections ``source`` opened to the daemon of ``destination``, and how many to
    services (MK-6)."""
    check_keys(fact, {"link", "source", "destination", "questions", "sessions"})
    found = openings(lab, fact)
    questions = sum(packet.second == MONIKER_PORT for packet in found)
    sessions = len(found) - questions
    seen = f"{questions} questions, {sessions} connections to services"
    if questions != fact["questions"] or sessions != fact["sessions"]:
        raise Missed(seen)
    return seen


def unseen(lab: Lab, fact: dict[str, Any]) -> str:
    """Before ``source`` connects to a service of ``destination``, its port is nowhere on ``link``.

    Neither in a header, nor in digits in a payload; and ``words`` are in no payload, then or
    later.  ``control``: a host whose packets come later, with all of these in clear: that the
    search would find them.
    """
    check_keys(fact, {"link", "source", "destination", "words", "control"})
    found = openings(lab, fact)
    questions = [packet for packet in found if packet.second == MONIKER_PORT]
    sessions = [packet for packet in found if packet.second != MONIKER_PORT]
    if not questions or not sessions:
        raise Missed(f"{len(questions)} questions, {len(sessions)} connections to services")
    port, moment = sessions[0].second, sessions[0].time
    control = lab.address(fact["control"]) if "control" in fact else None
    before = 0
    shown: set[str] = set()
    for packet in lab.captured[fact["link"]]:
        octets = payload(packet).lower()
        named = [word for word in fact.get("words", ()) if word.lower().encode() in octets]
        told = str(port).encode() in octets
        if control is not None and control in (packet.source, packet.destination):
            shown |= {*named, *(("port",) if told else ())}
            continue
        if named:
            raise Missed(f"{named} in {packet}")
        if packet.time >= moment:
            continue
        before += 1
        if told or (port in (packet.first, packet.second) and packet.protocol in (TCP, UDP)):
            raise Missed(f"port {port} in {packet}")
    if control is not None and shown != {"port", *fact.get("words", ())}:
        raise Missed(f"with {fact['control']} only {shown}: nothing to compare with")
    compared = f"; with {fact['control']} all is seen" if control is not None else ""
    return f"port {port}: in none of {before} packets before{compared}"


def not_amplified(lab: Lab, fact: dict[str, Any]) -> str:
    """By UDP the daemon of ``destination`` sent ``source`` no more octets than came in that name,
    nor more datagrams (MK-27)."""
    check_keys(fact, {"link", "source", "destination", "at_least"})
    client, host = lab.address(fact["source"]), lab.address(fact["destination"])
    sizes: dict[str, list[int]] = {"in": [], "out": []}
    for packet in lab.captured[fact["link"]]:
        if packet.protocol != UDP:
            continue
        if (packet.source, packet.destination, packet.second) == (client, host, MONIKER_PORT):
            sizes["in"].append(len(payload(packet)))
        if (packet.source, packet.destination, packet.first) == (host, client, MONIKER_PORT):
            sizes["out"].append(len(payload(packet)))
    seen = ", ".join(f"{sum(each)} octets in {len(each)} {way}" for way, each in sizes.items())
    if len(sizes["in"]) < fact.get("at_least", 1):
        raise Missed(seen)
    if len(sizes["out"]) > len(sizes["in"]) or sum(sizes["out"]) > sum(sizes["in"]):
        raise Missed(seen)
    return seen


def sealed_questions(lab: Lab, fact: dict[str, Any]) -> str:
    """Each line between ``source`` and the daemon of ``destination`` on ``link`` is encrypted."""
    check_keys(fact, {"link", "source", "destination", "at_least"})
    ends = {lab.address(fact["source"]), lab.address(fact["destination"])}
    lines = [
        octets
        for packet in lab.captured[fact["link"]]
        if {packet.source, packet.destination} == ends
        and MONIKER_PORT in (packet.first, packet.second)
        and (octets := payload(packet))
    ]
    clear = [line for line in lines if not line.startswith(b"MON/1 E ")]
    if clear or len(lines) < fact.get("at_least", 2):
        raise Missed(f"{len(lines)} lines, {len(clear)} in clear: {clear[:1]}")
    return f"{len(lines)} lines, all encrypted"
