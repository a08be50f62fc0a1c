"""What the kernel does for port encryption, as a model: maps, connections, marks and a queue.

It stands behind `oegw.sst.interface.Plane`, and was written from its words and sst.md, without the
gateway's code: packets are rewritten by `sst_wire` and RFC 1624.  So what a `Sealing` and a model
make of a packet together can be judged.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from oegw.sst.interface import (
    PROBE_MAGIC,
    Caught,
    Entry,
    Leg,
    Listener,
    PortFlow,
    Reason,
    Way,
    Wish,
)
from policy.flow import Flow
from policy.rule import Sst, SstStrength
from tests.support.sst_wire import (
    ACK,
    DONT_FRAGMENT,
    DSCP,
    ICMP,
    ICMP6,
    RESERVED,
    SYN,
    TCP,
    UDP,
    IPAddress,
    Seen,
    look,
    ones_sum,
    quote_of,
)

Tuple = tuple[IPAddress, IPAddress, int, int, int]  # source, destination, protocol, ports
QUEUE = 1024
ERRORS = {ICMP: (3, 11, 12), ICMP6: (1, 2, 3, 4)}


@dataclass
class Connection:
    """``origin``: of the packet that began it.  ``epoch``: None until something was sealed."""

    origin: Tuple
    sticky: bool = False
    epoch: int | None = None


@dataclass
class Waiting:
    """In the queue.  ``required``: must not leave as it is."""

    packet: bytes
    way: Way
    leg: Leg
    connection: Connection | None
    required: bool
    since: float


def _summed(check: int, old: bytes, new: bytes) -> int:
    """RFC 1624 equation 3, by sums of whole words."""
    inverted = ones_sum(old)
    return 0xFFFF ^ ones_sum(
        ((0xFFFF ^ check) + (0xFFFF ^ inverted) + ones_sum(new)).to_bytes(4, "big")
    )


def rewritten(packet: bytes, ports: tuple[int, int], *, flagged: bool) -> bytes:
    """A whole packet with other ports, flagged (and DF) or not, and right checksums."""
    seen = look(packet)
    start = len(packet) - len(seen.body)
    octets = bytearray(packet)
    old, new = bytes(octets[start : start + 4]), ports[0].to_bytes(2) + ports[1].to_bytes(2)
    octets[start : start + 4] = new
    place = start + (16 if seen.protocol == TCP else 6)
    check = int.from_bytes(octets[place : place + 2])
    if seen.protocol == TCP or check:
        check = _summed(check, old, new)
        if seen.protocol == UDP:
            check = check or 0xFFFF
        octets[place : place + 2] = check.to_bytes(2)
    return with_flag(bytes(octets), flagged=flagged)


def with_flag(packet: bytes, *, flagged: bool) -> bytes:
    octets = bytearray(packet)
    if packet[0] >> 4 == 4:
        word = int.from_bytes(octets[6:8])
        changed = (word | RESERVED | DONT_FRAGMENT) if flagged else word & ~RESERVED
        check = int.from_bytes(octets[10:12])
        octets[6:8] = changed.to_bytes(2)
        check = _summed(check, word.to_bytes(2), changed.to_bytes(2))
        octets[10:12] = check.to_bytes(2)
    elif flagged or look(packet, quoted=True).flagged:
        code = DSCP if flagged else 0
        word = int.from_bytes(octets[:2])
        octets[:2] = (word & ~0x0FC0 | code << 6).to_bytes(2)
    return bytes(octets)


@dataclass
class KernelModel:
    """``wish``: what the policy says of a flow; ``local``: whether an address is on our side.

    ``out``: packets on the public link; ``inside``: packets for our hosts.
    """

    wish: Callable[[Flow], Wish]
    local: Callable[[IPAddress], bool]
    out: Callable[[bytes], None]
    inside: Callable[[bytes], None]
    listener: Listener
    clock: Callable[[], float]
    room: int = 65536
    counters_: Counter[str] = field(default_factory=Counter)
    connections: dict[Tuple, Connection] = field(default_factory=dict)
    waiting: dict[int, Waiting] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._seal: dict[Tuple, tuple[tuple[int, int], int, float]] = {}
        self._open: dict[Tuple, tuple[tuple[int, int], int, float]] = {}
        self._declined: dict[Tuple, float] = {}
        self.shields: set[tuple[IPAddress, IPAddress]] = set()
        self._number = 0

    # ------------------------------------------------------------- packets leave

    def leave(self, packet: bytes, *, asked: bool = False) -> None:
        """A packet of ours reaches the outside interface."""
        packet = with_flag(packet, flagged=False)  # SST-17: none is ours yet
        seen = look(packet, quoted=True)
        if seen.protocol in ERRORS and seen.body[:1] and seen.body[0] in ERRORS[seen.protocol]:
            self._error_leaves(packet)
            return
        if seen.protocol not in (TCP, UDP):
            self._send(packet, "passed")
            return
        if seen.ports is None:
            self._catch(packet, Way.SEAL, Reason.FRAGMENT, None)
            return
        place = _tuple(seen)
        connection = self._track(seen, opened=False)
        wish = self.wish(_flow(seen))
        sticky = connection is not None and connection.sticky
        shielded = (seen.source, seen.destination) in self.shields
        known = self._seal.get(place)
        if known is not None and known[2] > self.clock() and not seen.fragment:
            self._stick(connection, known[1])
            self._send(rewritten(packet, known[0], flagged=True), "sealed")
            return
        required = sticky or shielded or self._required(wish, asked=asked)
        if not sticky and not shielded and self._came_clear(connection, place):
            # It is an answer to what came in clear: nobody learns a sealed pair by asking.
            if self._required(wish, asked=asked):
                self.counters_["came_clear_dropped"] += 1
            else:
                self._send(packet, "came_clear")
            return
        if not (sticky or shielded or wish.sst is Sst.ONLY or asked):
            self._send(packet, "clear")
            return
        if not required and self._declined.get(place, 0.0) > self.clock():
            self._send(packet, "declined")
            return
        reason = Reason.FRAGMENT if seen.fragment else Reason.UNKNOWN_FLOW
        self._catch(packet, Way.SEAL, reason, connection, asked=asked, required=required)

    def _required(self, wish: Wish, *, asked: bool) -> bool:
        wanted = wish.sst is Sst.ONLY or asked
        return wanted and wish.strength is SstStrength.REQUIRED

    def _came_clear(self, connection: Connection | None, place: Tuple) -> bool:
        return connection is not None and connection.origin != place and not connection.sticky

    def _error_leaves(self, packet: bytes) -> None:
        quoted = look(quote_of(packet), quoted=True) if len(quote_of(packet)) >= 28 else None
        connection = None
        if quoted is not None and quoted.ports is not None:
            connection = self._find(_tuple(quoted))
        if quoted is None or (connection is not None and not connection.sticky):
            self._send(packet, "error_clear")
            return
        self._catch(packet, Way.SEAL, Reason.QUOTE, connection)

    # ------------------------------------------------------------ packets arrive

    def arrive(self, packet: bytes) -> None:
        """A packet comes in by the outside interface."""
        least = {4: 20, 6: 40}.get(packet[0] >> 4 if packet else 0, 1 << 16)
        if len(packet) < least:
            self.counters_["unreadable"] += 1
            return
        flagged = look(packet, quoted=True).flagged
        try:
            seen = look(packet, quoted=True)
            length = int.from_bytes(packet[2:4]) if packet[0] >> 4 == 4 else 40
            short = length > len(packet) or (packet[0] >> 4 == 4 and packet[0] & 15 < 5)
        except (IndexError, ValueError):
            short = True
        if short and not flagged:
            self.counters_["unreadable"] += 1
            return
        if seen.protocol == UDP and seen.body[8:16] == PROBE_MAGIC and not seen.fragment:
            self._catch(packet, Way.OPEN, Reason.PROBE, None, flagged=flagged)
            return
        if (
            seen.protocol in ERRORS
            and seen.body[:1]
            and seen.body[0] in ERRORS[seen.protocol]
            and len(seen.body) >= 8 + 20
            and seen.body[8] >> 4 == packet[0] >> 4
            and look(seen.body[8:].ljust(48, b"\0"), quoted=True).flagged
        ):
            self._catch(packet, Way.OPEN, Reason.QUOTE, None, flagged=flagged)
            return
        if not flagged:
            self._deliver(packet, None)
            return
        known = self._open.get(_tuple(seen)) if seen.ports is not None else None
        if known is not None and known[2] > self.clock() and not seen.fragment:
            self._deliver(rewritten(packet, known[0], flagged=False), known[1])
            return
        reason = Reason.FRAGMENT if seen.fragment else Reason.UNKNOWN_FLOW
        self._catch(packet, Way.OPEN, reason, None, flagged=True)

    def _deliver(self, packet: bytes, epoch: int | None, *, opened: bool = False) -> None:
        """Behind the hook: connection tracking, then our host."""
        seen = look(packet, quoted=True)
        opened = opened or epoch is not None
        if seen.protocol in (TCP, UDP) and seen.ports is not None:
            connection = self._track(seen, opened=opened)
            if connection is None and opened:
                # What answers it would have no mark, and so would tell its ports.
                self.counters_["opened_untracked"] += 1
                return
            if opened:
                self._stick(connection, epoch)
        self.counters_["opened" if opened else "came"] += 1
        self.inside(packet)

    # --------------------------------------------------------------- connections

    def knows(self, flow: PortFlow) -> bool:
        """`Surroundings.knows`."""
        return self._find(_outwards(flow)) is not None

    def _find(self, place: Tuple) -> Connection | None:
        return self.connections.get(place) or self.connections.get(_turned(place))

    def _track(self, seen: Seen, *, opened: bool) -> Connection | None:
        """None: connection tracking calls it invalid."""
        assert seen.ports is not None
        place = _tuple(seen)
        found = self._find(place)
        if found is not None:
            return found
        if seen.protocol == TCP and len(seen.body) > 13 and seen.body[13] not in (SYN, ACK, 0x18):
            return None
        self.connections[place] = Connection(place)
        return self.connections[place]

    @staticmethod
    def _stick(connection: Connection | None, epoch: int | None) -> None:
        if connection is not None:
            connection.sticky = True
            if epoch is not None:
                connection.epoch = epoch

    # --------------------------------------------------------------- what is told

    def enter(self, entry: Entry) -> bool:
        place = _outwards(entry.flow)
        if len(self._seal) >= self.room and place not in self._seal:
            now = self.clock()
            for each in [each for each, (_, _, end) in self._seal.items() if end <= now]:
                del self._seal[each]
            if len(self._seal) >= self.room:
                return False
        until = self.clock() + entry.lifespan
        local, remote, protocol, local_port, remote_port = place
        sealed = entry.sealed_local, entry.sealed_remote
        self._seal[place] = sealed, entry.epoch, until
        wire = remote, local, protocol, entry.sealed_remote, entry.sealed_local
        self._open[wire] = (remote_port, local_port), entry.epoch, until
        self._declined.pop(place, None)
        return True

    def decline(self, leg: Leg, flow: PortFlow, lifespan: float) -> None:
        assert lifespan > 0
        self._declined[_outwards(flow)] = self.clock() + lifespan

    def forget(self, leg: Leg, remote: IPAddress | None = None) -> None:
        for table in (self._seal, self._declined):
            for place in [each for each in table if remote in (None, each[1])]:
                del table[place]
        for place in [each for each in self._open if remote in (None, each[0])]:
            del self._open[place]

    def shield(self, local: IPAddress, remote: IPAddress) -> None:
        self.shields.add((local, remote))

    def unshield(self, local: IPAddress, remote: IPAddress) -> None:
        self.shields.discard((local, remote))

    def release(self, number: int, packet: bytes | None = None, epoch: int | None = None) -> None:
        held = self.waiting.pop(number)
        self.counters_["decided"] += 1
        final = packet if packet is not None else held.packet
        if held.way is Way.OPEN:
            known, seen = None, look(held.packet, quoted=True)
            if packet is None and seen.ports is not None:
                known = self._open.get(_tuple(seen))
            if known is not None and known[2] > self.clock():
                self._deliver(rewritten(held.packet, known[0], flagged=False), known[1])
            else:
                self._deliver(final, epoch, opened=epoch is not None)
            return
        if packet is None:
            seen = look(held.packet, quoted=True)
            known = self._seal.get(_tuple(seen)) if seen.ports is not None else None
            if known is not None and known[2] > self.clock():
                self._stick(held.connection, known[1])
                self._send(rewritten(held.packet, known[0], flagged=True), "sealed")
                return
            if held.required:
                self.counters_["required_dropped"] += 1
                return
        if epoch is not None:
            self._stick(held.connection, epoch)
        self._send(final, "sealed" if epoch is not None else "clear")

    def drop(self, number: int) -> None:
        del self.waiting[number]
        self.counters_["decided"] += 1
        self.counters_["dropped"] += 1

    def counters(self) -> dict[str, int]:
        return dict(self.counters_)

    # -------------------------------------------------------------------- details

    def _catch(
        self, packet: bytes, way: Way, reason: Reason, connection: Connection | None,
        *, asked: bool = False, flagged: bool = False, required: bool = False,
    ) -> None:  # fmt: skip
        if len(self.waiting) >= QUEUE:
            self.counters_["queue_full"] += 1
            return
        self._number += 1
        self.waiting[self._number] = Waiting(
            packet, way, Leg.OUTSIDE, connection, required, self.clock()
        )
        sticky = connection is not None and connection.sticky
        epoch = connection.epoch if connection is not None else None
        self.counters_["caught"] += 1
        self.listener(
            Caught(self._number, way, Leg.OUTSIDE, reason, packet, asked, sticky, epoch, flagged)
        )

    def _send(self, packet: bytes, how: str) -> None:
        self.counters_[how] += 1
        self.out(packet)


def _tuple(seen: Seen) -> Tuple:
    assert seen.ports is not None
    return seen.source, seen.destination, seen.protocol, *seen.ports


def _turned(place: Tuple) -> Tuple:
    source, destination, protocol, source_port, destination_port = place
    return destination, source, protocol, destination_port, source_port


def _outwards(flow: PortFlow) -> Tuple:
    return flow.local, flow.remote, flow.protocol, flow.local_port, flow.remote_port


def _flow(seen: Seen) -> Flow:
    ports = seen.ports or (None, None)
    return Flow(seen.source, seen.destination, seen.protocol, *ports)
