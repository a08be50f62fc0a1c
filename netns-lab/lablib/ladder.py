"""Draws the ladders of the draft, sections 3.1 and 3.2, with measured times.

A point is one moment, taken from a capture or from a gateway's trace.  The
rungs are drawn in the order in which they happened; the draft's order is the
tie-break.  Time zero is point (1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lablib import facts
from lablib.lab import Lab
from lablib.pcap import Packet

# Columns of the drawing: where the vertical line of each party is.
PARTIES = {"Alice": 6, "SG-A": 22, "DNS": 31, "SG-B": 41, "Bob": 57}
WIDTH = 60


@dataclass(frozen=True, slots=True)
class Point:
    """One point of the draft's list.  ``time`` is None if it was not seen."""

    label: str
    begin: str  # party on whose side the arrow begins
    end: str  # party at the arrow's head; the same as ``begin`` if nothing is sent
    dash: str  # "-" clear, "#" IKE, "=" ESP (section 2.2)
    time: float | None
    meaning: str
    source: str  # where the time comes from


def rung(point: Point) -> str:
    """One line of the drawing."""
    label = f"({point.label})"
    line = [" "] * WIDTH
    start, stop = sorted((PARTIES[point.begin], PARTIES[point.end]))
    if start == stop:
        at = max(0, start - len(label) // 2)
        line[at : at + len(label)] = label
    else:
        line[start + 1 : stop] = point.dash * (stop - start - 1)
        if PARTIES[point.begin] < PARTIES[point.end]:
            line[stop - 1] = ">"
        else:
            line[start + 1] = "<"
        at = (start + stop + 1 - len(label)) // 2
        line[at : at + len(label)] = label
    return "".join(line).rstrip()


def draw(points: list[Point], zero: float) -> list[str]:
    """The whole ladder; a point that was not seen says so."""
    head = [" "] * WIDTH
    for name, column in PARTIES.items():
        at = max(0, column - len(name) // 2)
        head[at : at + len(name)] = name
    lines = ["".join(head).ljust(WIDTH) + "        ms  "]
    latest = zero  # a point that was not seen stands after all that the draft has before it
    keyed = []
    for position, point in enumerate(points):
        latest = max(latest, point.time or zero)
        keyed.append((latest if point.time is None else point.time, position, point))
    for _, _, point in sorted(keyed, key=lambda entry: entry[:2]):
        moment = "not seen" if point.time is None else f"{(point.time - zero) * 1000:8.3f}"
        lines.append(f"{rung(point).ljust(WIDTH)}  {moment:>8}  {point.meaning} [{point.source}]")
    return lines


class Moments:
    """Finds the times of points in the captures and the traces of a lab."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._traces = {name: gateway.events() for name, gateway in lab.gateways.items()}

    def packet(
        self,
        link: str,
        kind: str,
        source: str | None = None,
        destination: str | None = None,
        after: float = 0.0,
    ) -> float | None:
        """When the first such packet passed on ``link`` after ``after``."""
        found = self._first(link, kind, source, destination, after)
        return found.time if found else None

    def _first(
        self, link: str, kind: str, source: str | None, destination: str | None, after: float
    ) -> Packet | None:
        ends = [None if name is None else self._lab.address(name) for name in (source, destination)]
        for packet in self._lab.captured[link]:
            if (
                packet.time >= after
                and packet.is_a(kind)
                and ends[0] in (None, packet.source)
                and ends[1] in (None, packet.destination)
            ):
                return packet
        return None

    def event(self, gateway: str, pattern: str, after: float = 0.0) -> float | None:
        """When the first such event was traced after ``after``."""
        for event in self._traces.get(gateway, []):
            if event["time"] >= after and facts.matches(self._lab, event, pattern):
                return float(event["time"])
        return None


def missing(points: list[Point]) -> list[str]:
    """Labels of the points that were not seen."""
    return [point.label for point in points if point.time is None]


def _name_lookup(seen: Moments, clicked: float, after: float) -> list[Point]:
    asked = seen.packet("as1", "dns", "alice", None, after)
    return [
        Point("1", "Alice", "Alice", "-", clicked, "ping is started with a name", "lab"),
        Point("2", "Alice", "DNS", "-", asked, "asks for the address of bob", "link as1"),
        Point(
            "3", "DNS", "Alice", "-",
            seen.packet("as1", "dns", None, "alice", asked or after), "A record", "link as1",
        ),
    ]  # fmt: skip


def opportunistic(lab: Lab, clicked: float) -> list[Point]:
    """Points (1) to (12) of section 3.2 with (5B) to (5H) as section 4 has them."""
    seen = Moments(lab)
    points = _name_lookup(seen, clicked, clicked)
    request, reply = "echo request", "echo reply"
    sent = seen.packet("as1", request, "alice", "bob", clicked)
    esp_out = seen.packet("west", "esp", "sg-a", "sg-b", clicked)
    esp_back = seen.packet("west", "esp", "sg-b", "sg-a", clicked)
    answered = seen.packet("as1", reply, "bob", "alice", clicked)
    second = seen.packet("as1", request, "alice", "bob", answered or clicked)
    a = dict[str, Any](begin="SG-A", end="DNS", dash="-", source="trace of SG-A")
    b = dict[str, Any](begin="SG-B", end="DNS", dash="-", source="trace of SG-B")

    def ike(label: str, message: str, way: str, dash: str, meaning: str) -> Point:
        begin, end = ("SG-A", "SG-B") if way == "sent" else ("SG-B", "SG-A")
        time = seen.event("sg-a", f"ike.{way} message={message}", clicked)
        return Point(label, begin, end, dash, time, f"{message}: {meaning}", "trace of SG-A")

    def dns(label: str, gateway: str, purpose: str, meaning: str, answer: bool) -> Point:
        asked = seen.event(gateway, f"dns.query purpose={purpose}", clicked)
        time = asked
        if answer:
            time = seen.event(gateway, f"dns.answer purpose={purpose}", asked or clicked)
        way = dict(a if gateway == "sg-a" else b)
        if answer:
            way["begin"], way["end"] = way["end"], way["begin"]
        return Point(label=label, time=time, meaning=meaning, **way)

    points += [
        Point("4", "Alice", "Alice", "-", sent, "first packet to Bob", "link as1"),
        Point(
            "5", "Alice", "SG-A", "-",
            seen.event("sg-a", "intercept.trapped source=@alice destination=@bob", clicked),
            "SG-A holds it", "trace of SG-A",
        ),
        dns("5B", "sg-a", "gateway", "TXT of Bob?", False),
        dns("5C", "sg-a", "gateway", "SG-B and its key", True),
        ike("5D", "MM1", "sent", "-", "proposals"),
        ike("5E1", "MM2", "received", "-", "choice"),
        ike("5E2", "MM3", "sent", "#", "Diffie-Hellman"),
        ike("5E3", "MM4", "received", "#", "Diffie-Hellman"),
        ike("5E4", "MM5", "sent", "#", "identity, signature"),
        dns("5F1", "sg-b", "peer-key", "KEY of SG-A?", False),
        dns("5F2", "sg-b", "peer-key", "its key", True),
        ike("5E5", "MM6", "received", "#", "identity, signature"),
        ike("5G1", "QM1", "sent", "#", "tunnel Alice to Bob"),
        dns("5G2", "sg-b", "authority", "TXT of Alice?", False),
        dns("5G3", "sg-b", "authority", "SG-A may speak for her", True),
        ike("5G4", "QM2", "received", "#", "agreed"),
        Point(
            "5H", "SG-A", "SG-A", "-",
            seen.event("sg-a", "tunnel.keyed source=@alice destination=@bob", clicked),
            "tunnel is up", "trace of SG-A",
        ),
        Point("6", "SG-A", "SG-B", "=", esp_out, "held packet, encrypted", "link west"),
        Point(
            "7", "SG-B", "Bob", "-", seen.packet("as3", request, "alice", "bob", clicked),
            "decrypted, to Bob", "link as3",
        ),
        Point(
            "8", "Bob", "SG-B", "-", seen.packet("as3", reply, "bob", "alice", clicked),
            "Bob answers", "link as3",
        ),
        Point("9", "SG-B", "SG-A", "=", esp_back, "answer, encrypted", "link west"),
        Point("10", "SG-A", "Alice", "-", answered, "decrypted, to Alice", "link as1"),
        Point("11", "Alice", "SG-A", "-", second, "second packet", "link as1"),
        Point(
            "12", "SG-A", "SG-B", "=",
            seen.packet("west", "esp", "sg-a", "sg-b", second) if second else None,
            "tunnel is used", "link west",
        ),
    ]  # fmt: skip
    return points


def plain(lab: Lab, clicked: float) -> list[Point]:
    """Points (1) to (12) of section 3.1: the same way without encryption."""
    seen = Moments(lab)
    request, reply = "echo request", "echo reply"
    answered = seen.packet("as1", reply, "bob", "alice", clicked)
    second = seen.packet("as1", request, "alice", "bob", answered or clicked)
    way = [
        ("4", "Alice", "Alice", "as1", request, "first packet to Bob"),
        ("5", "Alice", "SG-A", "as1", request, "SG-A sees it"),
        ("6", "SG-A", "SG-B", "west", request, "SG-B sees it"),
        ("7", "SG-B", "Bob", "as3", request, "Bob sees it"),
        ("8", "Bob", "SG-B", "as3", reply, "Bob answers"),
        ("9", "SG-B", "SG-A", "east", reply, "SG-B passes it on"),
        ("10", "SG-A", "Alice", "as1", reply, "Alice has the answer"),
    ]
    points = _name_lookup(seen, clicked, clicked)
    for label, begin, end, link, kind, meaning in way:
        ends = ("alice", "bob") if kind == request else ("bob", "alice")
        time = seen.packet(link, kind, *ends, clicked)
        points.append(Point(label, begin, end, "-", time, meaning, f"link {link}"))
    later = seen.packet("west", request, "alice", "bob", second) if second else None
    points.append(Point("11", "Alice", "SG-A", "-", second, "second packet", "link as1"))
    points.append(Point("12", "SG-A", "SG-B", "-", later, "crosses the Internet", "link west"))
    return points
