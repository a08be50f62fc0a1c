"""UDP ASSOCIATE (RFC 1928 section 7): which datagram goes where.

    client --header, octets--> from_client --SendOut--> the address that the header leads to
    client <--header, octets-- from_outside <---------- whoever answers, if he may

Where a header leads to is found out once, by the server (`Open`, then `opened` or `refused`), and
remembered as long as the client uses it.  Datagrams wait for that, a few.  All that is not
forwarded is a `Dropped` with its trigger; nothing of a datagram raises.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TypeVar

from oegw.socks5.addressids import AddressIds, Entry
from oegw.socks5.settings import UdpSettings
from oegw.socks5.terms import Demand, Refused, Scope
from oegw.socks5.wire import (
    Address,
    AddressId,
    Datagram,
    IPAddress,
    MalformedMessage,
    parse_datagram,
    plain,
)

# Our choices.
WAITING_DATAGRAMS = 8  # for one place, until it is known where it is
WAITING_OCTETS = 16384  # for all of an association; one alone may be of any size
REFUSED_SECONDS = 2.0  # so long a place that was refused is not asked for again
LEAST_SECONDS = 5.0  # so long a name is not asked for again, whatever the DNS says (SK-44)
_NOTHING = Demand()


@dataclass(frozen=True, slots=True)
class Place:
    """A destination as the client wrote it."""

    address: Address
    port: int


@dataclass(frozen=True, slots=True)
class SendOut:
    """Send this from the association's outside socket of that family and that demand."""

    address: IPAddress
    port: int
    payload: bytes
    demand: Demand


@dataclass(frozen=True, slots=True)
class SendToClient:
    """Send this from the relay socket to the client's address, and this port."""

    port: int
    octets: bytes


@dataclass(frozen=True, slots=True)
class Open:
    """Find out where ``place`` is, and whether the client may send there; then tell `opened` or
    `refused`.  ``destination``: the address or name that it stands for; ``entry``: of its ID."""

    place: Place
    destination: IPAddress | str
    entry: Entry | None


@dataclass(frozen=True, slots=True)
class Dropped:
    trigger: str


Step = SendOut | SendToClient | Open | Dropped


@dataclass(slots=True, eq=False)
class _Target:
    """``address``: None until it is known; ``until``: how long it is.  ``asked``: an `Open` is not
    answered yet.  ``reached``: something was sent there.  ``sent``, ``heard``: when the client, or
    the peer, sent last."""

    place: Place
    destination: IPAddress | str
    entry: Entry | None
    sent: float
    heard: float = 0.0
    address: IPAddress | None = None
    port: int = 0
    demand: Demand = _NOTHING
    until: float = 0.0
    asked: bool = False
    reached: bool = False
    refused_until: float = 0.0
    waiting: list[bytes] = field(default_factory=list)


_Key = TypeVar("_Key")
_Targets = dict[Place, _Target]  # the one that the client used last is the last


class Association:
    """One association's datagrams.

    ``client``: the address of its TCP connection; no other may use it.  ``port``: where its
    datagrams come from, if it has declared that; else its first datagram says so (SK-6).
    """

    def __init__(
        self,
        client: IPAddress,
        scope: Scope,
        settings: UdpSettings,
        ids: AddressIds,
        port: int | None = None,
    ) -> None:
        self.client = plain(client)
        self.port = port or None
        self._scope = scope
        self._settings = settings
        self._ids = ids
        self._targets: OrderedDict[Place, _Target] = OrderedDict()  # by the client's last use
        self._hosts: dict[IPAddress, _Targets] = {}
        self._peers: dict[tuple[IPAddress, int], _Targets] = {}
        # For which an `Open` is under way, whether the place is forgotten or not; True: of a name.
        self._asked: dict[Place, bool] = {}
        self._waiting_octets = 0

    def __len__(self) -> int:
        return len(self._targets)

    # --------------------------------------------------------- from the client

    def from_client(
        self, octets: bytes, source: IPAddress, port: int, now: float
    ) -> tuple[Step, ...]:
        """A datagram that came to the relay socket, from wherever."""
        if (trigger := self._is_stranger(plain(source), port)) is not None:
            return (Dropped(trigger),)
        try:
            datagram = parse_datagram(octets)
        except MalformedMessage:
            return (Dropped("udp_malformed"),)
        if datagram.fragment:
            return (Dropped("udp_fragment"),)  # SK-7
        if not datagram.port:
            return (Dropped("udp_port_zero"),)
        place = Place(datagram.address, datagram.port)
        target = self._targets.get(place)
        if target is None:
            try:
                target = self._add(place, now)
            except Refused as refused:
                return (Dropped(f"udp_{refused.reason}"),)
        self.port = port
        target.sent = now
        self._targets.move_to_end(place)
        return self._forward(target, datagram.payload, now)

    def opened(
        self,
        place: Place,
        address: IPAddress,
        port: int,
        seconds: float,
        now: float,
        demand: Demand = _NOTHING,
    ) -> tuple[Step, ...]:
        """`Open` has led to this address and port, for so many seconds."""
        self._asked.pop(place, None)
        target = self._targets.get(place)
        if target is None or not target.asked:
            return self._ask_again(target)
        target.asked = False
        address = plain(address)
        if (address, port) != (target.address, target.port):
            self._shut(target)
        target.address, target.port, target.demand = address, port, demand
        target.until = now + max(seconds, LEAST_SECONDS)
        return tuple(self._send(target, payload) for payload in self._take_waiting(target))

    def refused(self, place: Place, reason: str, now: float) -> tuple[Step, ...]:
        """`Open` has led nowhere."""
        self._asked.pop(place, None)
        target = self._targets.get(place)
        if target is None or not target.asked:
            return self._ask_again(target)
        target.asked = False
        self._shut(target)
        target.refused_until = now + REFUSED_SECONDS
        return tuple(Dropped(f"udp_{reason}") for _ in self._take_waiting(target))

    # -------------------------------------------------------- from the outside

    def from_outside(
        self, payload: bytes, source: IPAddress, port: int, now: float
    ) -> SendToClient | Dropped:
        """A datagram that came to an outside socket."""
        source = plain(source)
        target = self._answers(source, port)
        if target is None and self._settings.filtering != "any":
            return Dropped("udp_unasked")  # SK-8
        if self.port is None:
            return Dropped("udp_client_port_unknown")
        if target is None:
            said: Address = source
        else:
            target.heard = now
            said = target.place.address  # SK-42
            if (target.address, target.port) == (source, port):
                port = target.place.port  # a name that says its port itself says it to us only
        return SendToClient(self.port, Datagram(said, port, payload).octets())

    # --------------------------------------------------------------- over time

    def expire(self, now: float) -> None:
        """Forget what has not been used for too long."""
        for target in list(self._targets.values()):
            if now - target.sent < self._settings.idle:
                break
            if now - target.heard >= self._settings.idle:
                self._forget(target, now)

    def reconsider(self) -> None:
        """The rules have changed: all places are asked for again."""
        for target in self._targets.values():
            target.asked = False  # what the old rules say does not count any more
            self._shut(target)
            target.refused_until = 0.0

    def close(self, now: float) -> None:
        """The TCP connection has ended, and the association with it (SK-6)."""
        for target in list(self._targets.values()):
            self._forget(target, now)

    # ------------------------------------------------------------------ inside

    def _is_stranger(self, source: IPAddress, port: int) -> str | None:
        """The trigger of why a sender is not our client (SK-6)."""
        if source != self.client:
            return "udp_source_not_the_client"
        return "udp_source_port" if self.port is not None and port != self.port else None

    def _answers(self, source: IPAddress, port: int) -> _Target | None:
        """Which place this peer answers for, if it was sent to."""
        target = _last(self._peers.get((source, port)))
        if target is None and self._settings.filtering != "port":
            target = _last(self._hosts.get(source))
        return target

    def _add(self, place: Place, now: float) -> _Target:
        """Raises Refused, for an ID."""
        entry = None
        if isinstance(place.address, AddressId):
            entry = self._ids.look_up(self._scope, place.address, now)
            destination = entry.destination
        else:
            destination = place.address
        if len(self._targets) >= self._settings.destinations:
            self._forget(next(iter(self._targets.values())), now)
        if entry is not None:
            self._ids.hold(entry)  # as long as this session uses it (SK-19)
        target = _Target(place, destination, entry, now)
        self._targets[place] = target
        return target

    def _forward(self, target: _Target, payload: bytes, now: float) -> tuple[Step, ...]:
        if now < target.refused_until:
            return (Dropped("udp_refused_lately"),)
        if target.address is not None and now < target.until:
            return (self._send(target, payload),)
        steps: list[Step] = []
        if target.place not in self._asked:
            step = self._ask(target)
            if isinstance(step, Dropped):
                return (step,)
            steps.append(step)
        if target.address is not None:  # its time is over, but until the answer it is the best
            steps.append(self._send(target, payload))
        elif len(target.waiting) >= WAITING_DATAGRAMS or (
            self._waiting_octets and self._waiting_octets + len(payload) > WAITING_OCTETS
        ):
            steps.append(Dropped("udp_too_many_waiting"))
        else:
            target.waiting.append(payload)
            self._waiting_octets += len(payload)
        return tuple(steps)

    def _send(self, target: _Target, payload: bytes) -> SendOut:
        """Who is sent to may answer, and by the name that was used for him last."""
        assert target.address is not None
        if target.reached:
            self._take_out(target)
        target.reached = True
        self._hosts.setdefault(target.address, {})[target.place] = target
        self._peers.setdefault((target.address, target.port), {})[target.place] = target
        return SendOut(target.address, target.port, payload, target.demand)

    def _ask(self, target: _Target) -> Open | Dropped:
        if len(self._asked) >= self._settings.destinations:
            return Dropped("udp_too_many_asked")
        is_name = isinstance(target.destination, str)
        if is_name and sum(self._asked.values()) >= self._settings.resolutions:
            return Dropped("udp_resolutions")  # SK-44
        self._asked[target.place] = is_name
        target.asked = True
        return Open(target.place, target.destination, target.entry)

    def _ask_again(self, target: _Target | None) -> tuple[Step, ...]:
        """The answer was to a question that does not count any more."""
        return (self._ask(target),) if target is not None and target.waiting else ()

    def _take_waiting(self, target: _Target) -> list[bytes]:
        waiting, target.waiting = target.waiting, []
        self._waiting_octets -= sum(map(len, waiting))
        return waiting

    def _shut(self, target: _Target) -> None:
        """Where it is is not known any more, and who is there has no way in by it."""
        if target.reached:
            self._take_out(target)
        target.reached, target.address = False, None

    def _take_out(self, target: _Target) -> None:
        assert target.address is not None
        _remove(self._hosts, target.address, target)
        _remove(self._peers, (target.address, target.port), target)

    def _forget(self, target: _Target, now: float) -> None:
        del self._targets[target.place]
        self._take_waiting(target)
        self._shut(target)
        if target.entry is not None:
            self._ids.release(target.entry, now)


def declared_port(client: IPAddress, address: Address, port: int) -> int | None:
    """The port that a client of UDP ASSOCIATE will send from, as its request says (RFC 1928
    section 4); None if that is not known.

    Who names another address than its own is behind a NAT, which changes ports as well; zeros say
    nothing.
    """
    if isinstance(address, str | AddressId):
        return None
    address = plain(address)
    named = address == plain(client) or not int(address)
    return port if named and port else None


def _last(targets: _Targets | None) -> _Target | None:
    return targets[next(reversed(targets))] if targets else None


def _remove(index: dict[_Key, _Targets], key: _Key, target: _Target) -> None:
    targets = index[key]
    del targets[target.place]
    if not targets:
        del index[key]
