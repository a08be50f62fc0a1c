"""Attacks on the leases of Moniker's firewall: by hosts of the site, and on the line to them."""

from __future__ import annotations

import asyncio
import json
import random
import time
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import IPv4Address, ip_address

from oegw.moniker.firewall import handshake, messages
from oegw.moniker.firewall.book import Held, LeaseBook
from oegw.moniker.firewall.channel import Opening as OpeningEnd
from oegw.moniker.firewall.channel import Sealing
from oegw.moniker.firewall.handshake import Keys, LeaseProtocolError
from oegw.moniker.firewall.leasedesk import LeaseDesk, _Link
from oegw.moniker.firewall.messages import EndPort, Message, OpenPort
from oegw.moniker.interface import IPAddress, Lease, LeaseRefused, Opening
from oegw.moniker.settings import HostSettings, ServiceRule
from oegw.sst.statickey import StaticKey
from oegw.trace import JsonTrace
from tests.attacks.frame import MONIKER, attack, replaced, survived

CLIENT = ip_address("198.51.100.7")
BOB, CAROL = ip_address("192.0.2.66"), ip_address("192.0.2.67")
GATEWAY_KEY, BOB_KEY, MALLET_KEY = (StaticKey(bytes([octet] * 32)) for octet in (1, 2, 3))
HOSTS = (
    HostSettings("bob", (BOB,), BOB_KEY.public),
    HostSettings("carol", (CAROL,), StaticKey(bytes([4] * 32)).public),
)


@dataclass
class Wall:
    """A firewall that notes what is opened and ended."""

    opened: list[Lease] = field(default_factory=list)
    ended: list[tuple[IPAddress | None, str, int]] = field(default_factory=list)

    async def open(self, lease: Lease) -> Opening:
        self.opened.append(lease)
        return Opening(lease.port, lease.seconds)

    async def forward(self, lease: Lease, asked: IPAddress) -> Opening:
        return Opening(lease.port, lease.seconds)

    async def end_of(self, host: IPAddress | None, transport: str, port: int) -> None:
        self.ended.append((host, transport, port))

    async def end_all_of(self, host: HostSettings) -> None:
        pass


@dataclass
class Stream:
    """What is said to the host."""

    said: list[Message] = field(default_factory=list)

    def send(self, message: Message) -> None:
        self.said.append(message)


def lease(host: IPAddress = BOB, port: int = 40000, client: IPAddress = CLIENT) -> Lease:
    return Lease(client, host, "tcp", port, 60, "starwars")


def told(*said: Message, rules: tuple[ServiceRule, ...] = ()) -> Wall:
    """What a gateway does when its host Bob says this."""

    async def body() -> Wall:
        wall = Wall()
        desk = LeaseDesk(GATEWAY_KEY, HOSTS, wall, trace=JsonTrace(None, time.time), rules=rules)
        link = _Link(HOSTS[0], Stream())  # type: ignore[arg-type]
        for message in said:
            await desk._received(link, message)
        await asyncio.gather(*link.tasks)
        return wall

    return asyncio.run(body())


async def _of_any_host(self: LeaseDesk, link: _Link, message: EndPort) -> None:
    await self._firewall.end_of(message.host, message.transport, message.port)


@attack(
    MONIKER,
    "A host of the site asks for another host's ports, to open them or to close them",
    source="issue: a lease can't open another host's ports",
    defence=(
        "oegw/moniker/firewall/leasedesk.py LeaseDesk._check_host",
        "oegw/moniker/firewall/leasedesk.py LeaseDesk._end",
    ),
    otherwise="one infected machine opens the whole site",
    without=replaced(
        ("oegw.moniker.firewall.leasedesk.LeaseDesk._check_host", lambda self, host, lease: None),
        ("oegw.moniker.firewall.leasedesk.LeaseDesk._end", _of_any_host),
    ),
)
def ports_of_another_host() -> None:
    mapped = ip_address(f"::ffff:{CAROL}")
    wall = told(
        OpenPort(1, lease()), OpenPort(2, lease(CAROL, 22)), OpenPort(3, lease(mapped, 22)),
        EndPort(CAROL, "tcp", 22), EndPort(mapped, "tcp", 22), EndPort(None, "tcp", 22),
    )  # fmt: skip
    assert [each.host for each in wall.opened] == [BOB]
    assert {host for host, _, _ in wall.ended} <= {BOB}


@attack(
    MONIKER,
    "A host gives a service that the gateway denies, and asks for its port by the denied name",
    source="issue: policy by service name",
    defence="oegw/moniker/firewall/leasedesk.py LeaseDesk.judge",
    otherwise="the site's policy is what each host makes of it",
    without=replaced(("oegw.moniker.firewall.leasedesk.LeaseDesk.judge", lambda self, lease: None)),
)
def denied_services() -> None:
    assert told(OpenPort(1, lease()), rules=(ServiceRule(False, "starwars", "-"),)).opened == []
    assert told(OpenPort(1, lease()), rules=(ServiceRule(False, "star*"),)).opened == []


def _session(ephemeral: StaticKey, host: StaticKey = BOB_KEY) -> tuple[bytes, Keys, StaticKey]:
    """A host that begins; the gateway's ephemeral key is made here, as `LeaseDesk` does."""
    from oegw.moniker.firewall import leasedesk

    ours = StaticKey(leasedesk.os.urandom(handshake.KEY_OCTETS))
    keys = handshake.keys_of_host(host, ephemeral, GATEWAY_KEY.public, ours.public)
    return ephemeral.public, keys, ours


@attack(
    MONIKER,
    "All that a host said to its gateway is recorded, and played to the gateway another day",
    source="design: challenge of the gateway",
    defence="oegw/moniker/firewall/leasedesk.py LeaseDesk._admitted",
    otherwise="whoever is on the LAN opens yesterday's ports again",
    without=replaced(("oegw.moniker.firewall.leasedesk.os.urandom", lambda octets: b"u" * octets)),
)
def recorded_connections() -> None:
    chance = random.Random(3)
    e_h, keys, _ = _session(StaticKey(chance.randbytes(32)))
    recorded = Sealing(keys.to_gateway).seal(messages.serialize(OpenPort(1, lease())))
    _, _, today = _session(StaticKey(chance.randbytes(32)))
    theirs = handshake.keys_of_gateway(GATEWAY_KEY, today, BOB_KEY.public, e_h)
    end = OpeningEnd(theirs.to_gateway)
    try:
        said = messages.parse(end.open(recorded[2:]))
    except LeaseProtocolError:
        return
    raise AssertionError(f"played again, it is {type(said).__name__}")


def _of_this_connection_only(
    self: StaticKey, peer_public: bytes, ephemeral: StaticKey, peer_ephemeral: bytes, *,
    salt: bytes, info: bytes, length: int,
) -> bytes:  # fmt: skip
    return (ephemeral._shared(peer_ephemeral) * 4)[:length]


@attack(
    MONIKER,
    "Somebody on the LAN says that he is Bob: he knows the public keys, and no private one",
    source="design: authenticated by the static keys of both",
    defence="oegw/sst/statickey.py StaticKey.session_keys",
    otherwise="everybody on the LAN opens ports",
    without=replaced(("oegw.sst.statickey.StaticKey.session_keys", _of_this_connection_only)),
)
def hosts_without_their_key() -> None:
    mallets = StaticKey(random.Random(4).randbytes(32))
    e_h, keys, gateways = _session(mallets, MALLET_KEY)
    sealed = Sealing(keys.to_gateway).seal(messages.serialize(OpenPort(1, lease())))
    real = handshake.keys_of_gateway(GATEWAY_KEY, gateways, BOB_KEY.public, e_h)
    try:
        OpeningEnd(real.to_gateway).open(sealed[2:])
    except LeaseProtocolError:
        return
    raise AssertionError("the gateway takes Mallet for Bob")


@attack(
    MONIKER,
    "Messages of a connection are repeated, left out, or put in another order",
    source="design: AEAD per message with counters",
    defence="oegw/moniker/firewall/channel.py _nonce",
    otherwise="a lease that was ended is opened again by whoever is on the line",
    without=replaced(("oegw.moniker.firewall.channel._nonce", lambda number: bytes(12))),
)
def messages_out_of_order() -> None:
    key = random.Random(5).randbytes(32)
    sending = Sealing(key)
    sent = [sending.seal(f"message {number}".encode())[2:] for number in range(4)]
    for wrong in ((0, 0), (1,), (0, 2), (3,), (0, 1, 0)):
        end = OpeningEnd(key)
        read = []
        try:
            for number in wrong:
                read.append(end.open(sent[number]))
        except LeaseProtocolError:
            continue
        raise AssertionError(f"the messages {wrong} were taken for what was said")


@attack(
    MONIKER,
    "One client, or one host, asks for leases until there is no room for those of others",
    source="issue: requests are limited per host",
    defence="oegw/moniker/firewall/book.py LeaseBook._admit",
    otherwise="the firewall opens nothing more, or everything",
    without=replaced(("oegw.moniker.firewall.book.LeaseBook._admit", lambda *anything: None)),
)
def leases_without_end() -> None:
    groups = {BOB: ("bob", 256), CAROL: ("carol", 256)}
    book = LeaseBook(lambda host: groups[host])  # type: ignore[index]
    now, held = 0.0, 0
    for number in range(4000):
        now += 0.01
        try:
            book.open(lease(port=1 + number), now)
        except LeaseRefused:
            continue
        held += 1
    assert held <= 128, f"{held} leases of one client"
    for number in range(4000):
        now += 0.01
        try:
            book.open(lease(port=1 + number, client=IPv4Address(0x0A000000 + number)), now)
        except LeaseRefused:
            continue
        held += 1
    assert held <= 256, f"{held} leases of one host"
    assert book.open(lease(CAROL, client=BOB), now)


def _charged_first(self: LeaseBook, lease: Lease, now: float) -> Held:
    self._charge(self._group_of(lease.host)[0], now)
    return self._enter(lease, now)


@attack(
    MONIKER,
    "New leases as fast as they can be asked for: each is a change of the kernel's table",
    source="design: rate of leases bounded",
    defence="oegw/moniker/firewall/book.py LeaseBook._charge",
    otherwise="the box does nothing but change its firewall",
    without=replaced(("oegw.moniker.firewall.book.LeaseBook._charge", lambda *anything: None)),
)
def leases_by_the_thousand() -> None:
    book = LeaseBook(lambda host: ("bob", 100_000))
    held = 0
    for number in range(4000):
        try:
            book.open(lease(client=IPv4Address(0x0A000000 + number)), number / 4000)
        except LeaseRefused:
            continue
        held += 1
    assert held <= 1600, f"{held} changes in a second"


@attack(
    MONIKER,
    "A host that has all the leases it may have goes on asking, as fast as it can",
    source="issue: requests are limited per host",
    defence="oegw/moniker/firewall/book.py LeaseBook.open",
    otherwise="what it is refused uses up what it is allowed when others have ended",
    without=replaced(("oegw.moniker.firewall.book.LeaseBook.open", _charged_first)),
)
def refused_leases_by_the_thousand() -> None:
    groups = {BOB: ("bob", 256), CAROL: ("carol", 256)}
    book = LeaseBook(lambda host: groups[host])  # type: ignore[index]
    for number in range(4000):
        with suppress(LeaseRefused):
            book.open(lease(client=IPv4Address(0x0A000000 + number)), number / 4000)
    book.end(lambda held: True)
    with survived():
        book.open(lease(CAROL), 1.0)
        book.open(lease(), 1.0)


def _whatever_comes(octets: bytes) -> Message:
    fields = json.loads(octets)
    return OpenPort(fields["tag"], lease(ip_address(fields["host"]), fields["port"]))


@attack(
    MONIKER,
    "A host whose key was stolen says anything at all: what is not JSON, no address, no number",
    source="design: strangers' input never raises out of a core",
    defence="oegw/moniker/firewall/messages.py parse",
    otherwise="one host ends the daemon of its gateway",
    without=replaced(("oegw.moniker.firewall.messages.parse", _whatever_comes)),
)
def rubbish_from_a_host() -> None:
    good = messages.serialize(OpenPort(1, lease()))
    rng = random.Random(6)
    taken = 0
    with survived():
        for number in range(3000):
            octets = bytearray(good)
            for _ in range(rng.randint(1, 4)):
                octets[rng.randrange(len(octets))] = rng.randrange(256)
            if number % 10 == 0:
                octets = bytearray(b'{"is": "open", "tag": 1, "host": ' + b"[" * number + b"1}")
            try:
                messages.parse(bytes(octets))
                taken += 1
            except LeaseProtocolError:
                pass
    assert taken < 1500
