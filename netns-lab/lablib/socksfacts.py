"""Facts about what SOCKS clients and their server had on a link."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

from lablib.lab import Lab
from lablib.monikerfacts import payload
from lablib.pcap import UDP
from lablib.stage import Missed, check_keys

ID_HEADER = bytes.fromhex("00000008")  # FLAG, FRAG, ATYP


def udp_headers(lab: Lab, fact: dict[str, Any]) -> str:
    """What stands before ``words`` in the datagrams between ``host`` and the server's address
    ``by`` on ``link``: ``octets`` octets, which name an ADDRESS ID (SK-41), both ways.

    The answers of `echo` begin by "you are".
    """
    check_keys(fact, {"link", "host", "by", "words", "octets"})
    host, server = lab.address(fact["host"]), ip_address(fact["by"])
    tally = {"to": 0, "from": 0}
    for packet in lab.captured[fact["link"]]:
        octets = payload(packet)
        if packet.protocol != UDP or not octets.endswith(fact["words"].encode()):
            continue
        if {packet.source, packet.destination} != {host, server}:
            raise Missed(f"between others: {packet}")
        there = packet.source == host
        begins = fact["words"].encode() if there else b"you are"
        length = octets.find(begins)
        if length != fact["octets"] or not octets.startswith(ID_HEADER):
            raise Missed(f"{length} octets: {octets[:length].hex(' ')}")
        tally["to" if there else "from"] += 1
    seen = ", ".join(f"{count} {way} the server" for way, count in tally.items())
    if not all(tally.values()):
        raise Missed(seen)
    return f"{seen}, {fact['octets']} octets each"
