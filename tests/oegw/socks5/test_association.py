"""UDP ASSOCIATE: which datagram goes where (SK-6 to SK-8, SK-14, SK-18, SK-41, SK-42, SK-44)."""

from __future__ import annotations

import random
from dataclasses import replace
from ipaddress import IPv4Address, ip_address

import pytest

from oegw.socks5 import association
from oegw.socks5.addressids import AddressIds
from oegw.socks5.association import (
    Association,
    Dropped,
    Open,
    Place,
    SendOut,
    SendToClient,
    Step,
    declared_port,
)
from oegw.socks5.settings import AddressIdSettings, UdpSettings
from oegw.socks5.terms import Demand, Scope
from oegw.socks5.wire import Address, AddressId, Datagram, IPAddress, parse_datagram
from tests.support.amount import amount

CLIENT = ip_address("192.0.2.1")
PORT = 5000
BOB4, BOB6 = ip_address("198.51.100.7"), ip_address("2001:db8:b::7")
OTHER = ip_address("203.0.113.9")
SETTINGS = UdpSettings()
NOTHING = Demand()


class Client:
    """An association, and who uses it: every `Open` is answered as ``leads`` says."""

    def __init__(
        self, settings: UdpSettings = SETTINGS, port: int | None = None, seed: int = 1
    ) -> None:
        self.ids = AddressIds(AddressIdSettings(), random.Random(seed).randbytes)
        self.scope = Scope(CLIENT)
        self.association = Association(CLIENT, self.scope, settings, self.ids, port)
        self.leads: dict[str, IPAddress] = {"bob.example": BOB6}
        self.opened: list[Place] = []

    def says(
        self, address: Address, port: int, payload: bytes = b"hello", now: float = 0.0
    ) -> list[Step]:
        """What becomes of a datagram, with what was asked for it."""
        return self.throws(Datagram(address, port, payload).octets(), now)

    def throws(self, octets: bytes, now: float = 0.0) -> list[Step]:
        done: list[Step] = []
        for step in self.association.from_client(octets, CLIENT, PORT, now):
            if isinstance(step, Open):
                done += self.answers(step, now)
            else:
                done.append(step)
        return done

    def answers(self, step: Open, now: float, seconds: float = 60.0) -> tuple[Step, ...]:
        self.opened.append(step.place)
        there = step.destination
        if isinstance(there, str):
            if there not in self.leads:
                return self.association.refused(step.place, "no_such_name", now)
            there = self.leads[there]
        return self.association.opened(step.place, there, step.place.port, seconds, now)

    def hears(
        self, source: IPAddress, port: int, payload: bytes = b"answer", now: float = 0.0
    ) -> Datagram | str:
        """What the client gets, or the trigger of why not."""
        step = self.association.from_outside(payload, source, port, now)
        if isinstance(step, Dropped):
            return step.trigger
        assert step.port == PORT
        return parse_datagram(step.octets)


def sent(address: IPAddress, port: int, payload: bytes = b"hello") -> list[Step]:
    return [SendOut(address, port, payload, NOTHING)]


def dropped(trigger: str) -> list[Step]:
    return [Dropped(trigger)]


# ------------------------------------------------------------- there, and back


@pytest.mark.parametrize("peer", [BOB4, BOB6])
def test_there_and_back(peer: IPAddress) -> None:
    client = Client()
    assert client.says(peer, 53) == sent(peer, 53)
    assert client.hears(peer, 53) == Datagram(peer, 53, b"answer")
    assert client.says(peer, 53, b"more") == sent(peer, 53, b"more")
    assert client.opened == [Place(peer, 53)], "asked for once"


def test_sk_41_a_header_with_an_id_has_10_octets() -> None:
    client = Client()
    number = client.ids.associate(client.scope, BOB6, 0.0)
    header = Datagram(number, 53, b"").octets()
    assert len(header) == 10
    assert header[:4] == bytes([0, 0, 0, 8])
    assert len(Datagram(BOB4, 53, b"").octets()) == 10
    assert len(Datagram(BOB6, 53, b"").octets()) == 22
    assert client.throws(header + b"hello") == sent(BOB6, 53)
    step = client.association.from_outside(b"answer", BOB6, 53, 0.0)
    assert isinstance(step, SendToClient)
    assert step.octets == header + b"answer"


def test_sk_14_and_42_the_answer_names_the_peer_as_the_client_did() -> None:
    client = Client()
    number = client.ids.associate(client.scope, "bob.example", 0.0)
    for named in (number, "bob.example", BOB6):
        assert client.says(named, 53) == sent(BOB6, 53)
        assert client.hears(BOB6, 53) == Datagram(named, 53, b"answer")
    client.says(number, 53)
    assert client.hears(BOB6, 53) == Datagram(number, 53, b"answer"), "as it did last"


def test_sk_42_each_port_has_its_name() -> None:
    client = Client()
    number = client.ids.associate(client.scope, BOB6, 0.0)
    client.says(BOB6, 1000)
    client.says(number, 2000)
    assert client.hears(BOB6, 1000) == Datagram(BOB6, 1000, b"answer")
    assert client.hears(BOB6, 2000) == Datagram(number, 2000, b"answer")
    assert client.hears(BOB6, 3000) == Datagram(number, 3000, b"answer"), "port as it is"


def test_a_name_that_says_its_port_itself_says_it_to_us_only() -> None:
    """As Moniker's names do: the client hears from the port that it wrote to."""
    client = Client()
    octets = Datagram("starwars.mon", 1, b"hello").octets()
    [step] = client.association.from_client(octets, CLIENT, PORT, 0.0)
    assert isinstance(step, Open)
    assert list(client.association.opened(step.place, BOB4, 41234, 60.0, 0.0)) == sent(BOB4, 41234)
    assert client.hears(BOB4, 41234) == Datagram("starwars.mon", 1, b"answer")


def test_an_ipv4_address_in_ipv6_notation_is_one() -> None:
    client = Client()
    mapped = ip_address(f"::ffff:{BOB4}")
    assert client.says(mapped, 53) == sent(BOB4, 53)
    assert client.hears(mapped, 53) == Datagram(mapped, 53, b"answer")
    octets = Datagram(BOB4, 53, b"hello").octets()
    source = ip_address(f"::ffff:{CLIENT}")
    assert client.association.from_client(octets, source, PORT, 0.0) == (
        Open(Place(BOB4, 53), BOB4, None),
    )


def test_what_a_flow_must_fulfil_is_kept_with_it() -> None:
    client = Client()
    octets = Datagram(BOB4, 53, b"hello").octets()
    client.association.from_client(octets, CLIENT, PORT, 0.0)
    must = Demand(encrypted=True)
    steps = client.association.opened(Place(BOB4, 53), BOB4, 53, 60.0, 0.0, must)
    assert steps == (SendOut(BOB4, 53, b"hello", must),)
    assert client.says(BOB4, 53, b"more") == [SendOut(BOB4, 53, b"more", must)]


# ------------------------------------------------------------------ who may use it


def test_sk_6_only_the_client_may_use_it() -> None:
    client = Client()
    octets = Datagram(BOB4, 53, b"hello").octets()
    for source in (OTHER, BOB4, ip_address("2001:db8::1"), ip_address("127.0.0.1")):
        steps = client.association.from_client(octets, source, PORT, 0.0)
        assert list(steps) == dropped("udp_source_not_the_client")
    assert client.says(BOB4, 53) == sent(BOB4, 53)


def test_sk_6_its_first_datagram_says_its_port() -> None:
    client = Client()
    client.says(BOB4, 53)
    octets = Datagram(BOB4, 53, b"hello").octets()
    steps = client.association.from_client(octets, CLIENT, PORT + 1, 0.0)
    assert list(steps) == dropped("udp_source_port")
    assert client.hears(BOB4, 53) == Datagram(BOB4, 53, b"answer"), "to its port still"


def test_sk_6_a_declared_port_is_its_port() -> None:
    client = Client(port=PORT + 1)
    assert client.says(BOB4, 53) == dropped("udp_source_port")
    client = Client(port=PORT)
    assert client.says(BOB4, 53) == sent(BOB4, 53)


def test_sk_6_rubbish_declares_no_port() -> None:
    """Else whoever can forge the client's address shuts it out with one octet."""
    client = Client()
    unknown = Datagram(AddressId(1), 53, b"").octets()
    for octets in (b"", b"x", bytes(3) + b"\x09", b"\0\0\1" + bytes(20), unknown):
        [step] = client.association.from_client(octets, CLIENT, PORT + 1, 0.0)
        assert isinstance(step, Dropped)
    assert client.says(BOB4, 53) == sent(BOB4, 53)


@pytest.mark.parametrize(
    ("address", "port", "declared"),
    [
        (CLIENT, 7000, 7000),
        (ip_address("0.0.0.0"), 7000, 7000),
        (ip_address("::"), 7000, 7000),
        (ip_address(f"::ffff:{CLIENT}"), 7000, 7000),
        (CLIENT, 0, None),
        (ip_address("10.0.0.5"), 7000, None),  # behind a NAT, which changes ports as well
        ("client.example", 7000, None),
        (AddressId(5), 7000, None),
    ],
)
def test_a_request_may_declare_the_port(address: Address, port: int, declared: int | None) -> None:
    assert declared_port(CLIENT, address, port) == declared


@pytest.mark.parametrize(
    ("filtering", "same_port", "other_port", "other_address"),
    [("port", True, False, False), ("address", True, True, False), ("any", True, True, True)],
)
def test_sk_8_whose_datagrams_reach_the_client(
    filtering: str, same_port: bool, other_port: bool, other_address: bool
) -> None:
    client = Client(replace(SETTINGS, filtering=filtering))
    client.says(BOB4, 53)
    for address, port, through in (
        (BOB4, 53, same_port),
        (BOB4, 54, other_port),
        (OTHER, 53, other_address),
    ):
        expected = Datagram(address, port, b"answer") if through else "udp_unasked"
        assert client.hears(address, port) == expected


def test_sk_8_nothing_reaches_a_client_that_has_sent_nothing() -> None:
    for filtering in ("port", "address", "any"):
        client = Client(replace(SETTINGS, filtering=filtering))
        reason = "udp_client_port_unknown" if filtering == "any" else "udp_unasked"
        assert client.hears(BOB4, 53) == reason


def test_sk_8_who_was_asked_for_but_not_allowed_has_no_way_in() -> None:
    client = Client()
    octets = Datagram(BOB4, 53, b"hello").octets()
    client.association.from_client(octets, CLIENT, PORT, 0.0)
    assert client.hears(BOB4, 53) == "udp_unasked", "not answered yet"
    client.association.refused(Place(BOB4, 53), "not_allowed", 0.0)
    assert client.hears(BOB4, 53) == "udp_unasked"


# ------------------------------------------------------------------- bad input


def test_sk_7_fragments_are_dropped() -> None:
    client = Client()
    for fragment in (1, 2, 127, 128, 255):
        octets = Datagram(BOB4, 53, b"hello", fragment).octets()
        assert client.throws(octets) == dropped("udp_fragment")
    assert len(client.association) == 0


def test_flag_is_not_looked_at() -> None:
    octets = b"\xff\xff" + Datagram(BOB4, 53, b"hello").octets()[2:]
    assert Client().throws(octets) == sent(BOB4, 53)


def test_every_truncation_is_dropped() -> None:
    client = Client()
    for address in (BOB4, BOB6, AddressId(7), "bob.example"):
        whole = Datagram(address, 53, b"").octets()
        for length in range(len(whole)):
            assert client.throws(whole[:length]) == dropped("udp_malformed")


def test_port_0_is_no_port() -> None:
    assert Client().says(BOB4, 0) == dropped("udp_port_zero")


def test_an_empty_datagram_is_one() -> None:
    client = Client()
    assert client.says(BOB4, 53, b"") == sent(BOB4, 53, b"")
    assert client.hears(BOB4, 53, b"") == Datagram(BOB4, 53, b"")


def test_sk_18_an_unknown_id_is_dropped_and_says_nothing() -> None:
    client = Client()
    number = client.ids.associate(client.scope, BOB6, 0.0)
    assert client.says(AddressId(number.realid ^ 1), 53) == dropped("udp_unknown_id")
    assert client.says(AddressId(number.realid, 1), 53) == dropped("udp_id_of_other_class")
    theirs = client.ids.associate(Scope(OTHER), BOB6, 0.0)
    assert client.says(theirs, 53) == dropped("udp_unknown_id")
    assert client.says(number, 53, now=600.0) == dropped("udp_expired_id")


def test_sk_17_guessing_over_udp_locks_out_as_well() -> None:
    client = Client()
    number = client.ids.associate(client.scope, BOB6, 0.0)
    other = client.ids.associate(client.scope, BOB4, 0.0)
    client.says(number, 53)
    for guess in range(AddressIdSettings().failures):
        assert client.says(AddressId(guess + 1), 53) == dropped("udp_unknown_id")
    assert client.says(other, 53) == dropped("udp_locked_out")
    assert client.says(number, 53) == sent(BOB6, 53), "what goes on already goes on"


# -------------------------------------------------------------------- over time


def test_sk_19_an_id_lasts_as_long_as_a_session_uses_it() -> None:
    client = Client()
    number = client.ids.associate(client.scope, BOB6, 0.0)
    for now in range(0, 90_000, 299):
        client.association.expire(float(now))
        client.ids.expire(float(now))
        assert client.says(number, 53, now=float(now)) == sent(BOB6, 53)
    client.association.close(90_000.0)
    assert client.ids.snapshot()["used"] == 0
    client.ids.expire(90_600.0)
    assert len(client.ids) == 0


def test_what_is_not_used_is_forgotten() -> None:
    client = Client()
    number = client.ids.associate(client.scope, BOB6, 0.0)
    client.says(number, 53)
    client.says(BOB4, 53, now=200.0)
    client.association.expire(SETTINGS.idle)
    assert len(client.association) == 1
    assert client.hears(BOB6, 53, now=SETTINGS.idle) == "udp_unasked"
    assert client.hears(BOB4, 53, now=SETTINGS.idle) == Datagram(BOB4, 53, b"answer")
    assert client.ids.snapshot()["used"] == 0


def test_who_only_listens_is_not_forgotten() -> None:
    client = Client()
    client.says(BOB4, 53)
    for now in range(0, 3000, 200):
        client.association.expire(float(now))
        assert client.hears(BOB4, 53, now=float(now)) == Datagram(BOB4, 53, b"answer")


def test_when_its_time_is_over_a_name_is_asked_for_again() -> None:
    client = Client()
    client.says("bob.example", 53)
    octets = Datagram("bob.example", 53, b"later").octets()
    steps = client.association.from_client(octets, CLIENT, PORT, 61.0)
    assert steps == (
        Open(Place("bob.example", 53), "bob.example", None),
        SendOut(BOB6, 53, b"later", NOTHING),  # until the answer it goes where it went
    )
    client.association.opened(Place("bob.example", 53), BOB4, 53, 60.0, 62.0)
    assert client.says("bob.example", 53, now=63.0) == sent(BOB4, 53)
    assert client.hears(BOB4, 53, now=63.0) == Datagram("bob.example", 53, b"answer")
    assert client.hears(BOB6, 53, now=63.0) == "udp_unasked"


def test_sk_8_an_address_that_a_name_leads_to_has_no_way_in_until_it_is_sent_to() -> None:
    client = Client()
    client.says("bob.example", 53)
    client.association.from_client(Datagram("bob.example", 53, b"").octets(), CLIENT, PORT, 61.0)
    client.association.opened(Place("bob.example", 53), BOB4, 53, 60.0, 61.0)
    assert client.hears(BOB4, 53, now=61.0) == "udp_unasked"


def test_sk_23_after_a_reload_all_is_asked_for_again() -> None:
    client = Client()
    for address in (BOB4, BOB6, "bob.example"):
        client.says(address, 53)
    client.association.reconsider()
    assert client.hears(BOB4, 53) == "udp_unasked"
    octets = Datagram(BOB4, 53, b"hello").octets()
    assert client.association.from_client(octets, CLIENT, PORT, 1.0) == (
        Open(Place(BOB4, 53), BOB4, None),
    )
    assert client.association.refused(Place(BOB4, 53), "not_allowed", 1.0) == (
        Dropped("udp_not_allowed"),
    )
    assert client.says("bob.example", 53, now=1.0) == sent(BOB6, 53)


def test_an_answer_under_the_old_rules_does_not_count() -> None:
    client = Client()
    octets = Datagram("bob.example", 53, b"hello").octets()
    client.association.from_client(octets, CLIENT, PORT, 0.0)
    client.association.reconsider()
    assert client.says("bob.example", 53, b"more") == [], "one question at a time"
    place = Place("bob.example", 53)
    again = (Open(place, "bob.example", None),)
    assert client.association.opened(place, OTHER, 53, 60.0, 0.0) == again
    steps = client.association.opened(place, BOB6, 53, 60.0, 0.0)
    assert list(steps) == [*sent(BOB6, 53), *sent(BOB6, 53, b"more")]


def test_what_was_forgotten_meanwhile_is_asked_for_still() -> None:
    """Else who makes us forget, by other destinations, asks for as many names as he likes."""
    client = Client(replace(SETTINGS, destinations=20))
    asked = 0
    for n in range(1000):
        octets = Datagram(f"host-{n}.example", 53, b"").octets()
        steps = client.association.from_client(octets, CLIENT, PORT, 0.0)
        asked += any(isinstance(step, Open) for step in steps)
    assert asked == SETTINGS.resolutions
    assert client.association.opened(Place("host-0.example", 53), BOB4, 53, 60.0, 0.0) == ()


# -------------------------------------------------------------------- bounds


def test_the_first_datagram_waits_whatever_its_size() -> None:
    """Else the largest would never arrive: who sends one datagram only sends that one."""
    client = Client()
    large, small = (Datagram("bob.example", 53, bytes(n)).octets() for n in (60000, 1))
    (asked,) = client.association.from_client(large, CLIENT, PORT, 0.0)
    assert isinstance(asked, Open)
    second = client.association.from_client(small, CLIENT, PORT, 0.0)
    assert list(second) == dropped("udp_too_many_waiting")
    steps = client.association.opened(asked.place, BOB4, 53, 60.0, 0.0)
    assert list(steps) == sent(BOB4, 53, bytes(60000))


def test_sk_44_a_name_is_asked_for_once_while_its_datagrams_wait() -> None:
    client = Client()
    datagrams = [Datagram("bob.example", 53, bytes([n])).octets() for n in range(20)]
    steps = [client.association.from_client(each, CLIENT, PORT, 0.0) for each in datagrams]
    assert [len(each) for each in steps[:8]] == [1] + [0] * 7
    assert list(steps[8]) == dropped("udp_too_many_waiting")
    place = Place("bob.example", 53)
    forwarded = client.association.opened(place, BOB6, 53, 60.0, 0.0)
    assert [step.payload for step in forwarded if isinstance(step, SendOut)] == [
        bytes([n]) for n in range(association.WAITING_DATAGRAMS)
    ]


def test_sk_44_names_that_are_asked_for_at_a_time() -> None:
    client = Client()
    steps = [
        client.association.from_client(
            Datagram(f"host-{n}.example", 53, b"").octets(), CLIENT, PORT, 0.0
        )
        for n in range(40)
    ]
    asked = [each[0] for each in steps if isinstance(each[0], Open)]
    assert len(asked) == SETTINGS.resolutions
    assert all(list(each) == dropped("udp_resolutions") for each in steps[len(asked) :])
    assert client.says(BOB4, 53) == sent(BOB4, 53), "an address needs no resolution"
    client.association.refused(asked[0].place, "no_such_name", 0.0)
    assert client.says("bob.example", 53) == sent(BOB6, 53)


def test_sk_44_a_name_that_holds_for_no_time_is_not_asked_for_with_each_datagram() -> None:
    client = Client()
    place = Place("bob.example", 53)
    octets = Datagram("bob.example", 53, b"hello").octets()
    assert client.association.from_client(octets, CLIENT, PORT, 0.0)
    client.association.opened(place, BOB6, 53, 0.0, 0.0)
    asked = 0
    for n in range(100):
        for step in client.association.from_client(octets, CLIENT, PORT, n / 10):
            if isinstance(step, Open):
                asked += 1
                client.association.opened(place, BOB6, 53, 0.0, n / 10)
    assert asked == 1


def test_a_place_that_was_refused_is_not_asked_for_with_each_datagram() -> None:
    client = Client()
    assert client.says("nobody.example", 53) == dropped("udp_no_such_name")
    for n in range(100):
        assert client.says("nobody.example", 53, now=n / 100) == dropped("udp_refused_lately")
    client.leads["nobody.example"] = BOB4
    assert client.says("nobody.example", 53, now=association.REFUSED_SECONDS) == sent(BOB4, 53)
    assert len(client.opened) == 2


def test_destinations_are_bounded_and_the_oldest_leaves() -> None:
    client = Client(replace(SETTINGS, destinations=10))
    number = client.ids.associate(client.scope, BOB6, 0.0)
    client.says(number, 53)
    client.says(BOB4, 53)
    for n in range(9):
        client.says(IPv4Address(0x0A000000 + n), 53)
        client.says(BOB4, 53)
    assert len(client.association) == 10
    assert client.hears(BOB6, 53) == "udp_unasked"
    assert client.ids.snapshot()["used"] == 0
    assert client.hears(BOB4, 53) == Datagram(BOB4, 53, b"answer")


def test_octets_that_wait_are_bounded() -> None:
    client = Client()
    waiting = 0
    for n in range(16):
        for _ in range(4):
            octets = Datagram(f"host-{n}.example", 53, bytes(5000)).octets()
            steps = client.association.from_client(octets, CLIENT, PORT, 0.0)
            waiting += not any(isinstance(step, Dropped) for step in steps)
    assert waiting == association.WAITING_OCTETS // 5000


def consistent(client: Client) -> None:
    inside = client.association
    targets = set(inside._targets.values())
    there = {target for target in targets if target.reached}
    assert all(target.address is not None for target in there)
    assert {t for group in inside._hosts.values() for t in group.values()} == there
    assert {t for group in inside._peers.values() for t in group.values()} == there
    assert all(inside._hosts.values())
    assert all(inside._peers.values())
    assert sum(inside._asked.values()) <= SETTINGS.resolutions
    assert {target.place for target in targets if target.asked} <= set(inside._asked)
    waiting = sum(len(each) for t in targets for each in t.waiting)
    assert inside._waiting_octets == waiting <= association.WAITING_OCTETS
    held = sum(1 for t in targets if t.entry is not None)
    entries = [e for table in client.ids._tables.values() for e in table.entries.values()]
    assert sum(entry.uses for entry in entries) == held


def live(seed: int, steps: int) -> None:
    """Anything in any order: nothing raises, all books agree, and only who was sent to is heard."""
    rng = random.Random(seed)
    client = Client(replace(SETTINGS, destinations=12, idle=50.0), seed=seed)
    addresses: list[Address] = [IPv4Address(n) for n in range(8)]
    addresses += [f"host-{n}.example" for n in range(30)]
    addresses += [client.ids.associate(client.scope, f"host-{n}.example", 0.0) for n in range(4)]
    addresses += [AddressId(5), BOB6]
    asked: list[Open] = []
    reached: dict[IPAddress, float] = {}
    now = 0.0
    for _ in range(steps):
        now += rng.choice((0.0, 0.1, 1.0))
        done: list[Step] = []
        match rng.randrange(8):
            case 0 | 1 | 2:
                place = Place(rng.choice(addresses), rng.randrange(3))
                octets = bytearray(Datagram(place.address, place.port, rng.randbytes(9)).octets())
                if rng.random() < 0.2:
                    octets[rng.randrange(len(octets))] = rng.randrange(256)
                source = CLIENT if rng.random() < 0.9 else OTHER
                port = PORT if rng.random() < 0.9 else 1
                done += client.association.from_client(bytes(octets), source, port, now)
            case 3 | 4 if asked:
                step = asked.pop(rng.randrange(len(asked)))
                if rng.random() < 0.7:
                    where = IPv4Address(rng.randrange(8))
                    done += client.association.opened(step.place, where, 1, rng.random() * 9, now)
                else:
                    done += client.association.refused(step.place, "refused", now)
            case 5:
                peer = IPv4Address(rng.randrange(8))
                heard = client.association.from_outside(b"answer", peer, rng.randrange(3), now)
                assert isinstance(heard, Dropped) or peer in reached
            case 6:
                client.association.expire(now)
                client.ids.expire(now)
            case 7 if rng.random() < 0.1:
                client.association.reconsider()
        for each in done:
            match each:
                case Open():
                    asked.append(each)
                case SendOut(address=address):
                    reached[address] = now
        consistent(client)
    client.association.close(now)
    assert client.ids.snapshot()["used"] == len(client.association) == 0
    consistent(client)


@pytest.mark.parametrize("seed", range(amount(12, 3)))
def test_a_random_life(seed: int) -> None:
    live(seed, 500)


def throw(times: int) -> None:
    rng = random.Random(7)
    client = Client()
    whole = [Datagram(a, 53, b"hello").octets() for a in (BOB4, BOB6, AddressId(9), "bob.example")]
    for _ in range(times):
        octets = bytearray(rng.choice(whole) if rng.random() < 0.8 else rng.randbytes(40))
        for _ in range(rng.randrange(4)):
            octets[rng.randrange(len(octets))] = rng.randrange(256)
        for step in client.association.from_client(
            bytes(octets[: rng.randrange(len(octets) + 1)]), CLIENT, PORT, 0.0
        ):
            assert isinstance(step, Open | SendOut | Dropped)
    assert len(client.association) <= SETTINGS.destinations


def test_rubbish() -> None:
    throw(2000)


@pytest.mark.fuzz
def test_rubbish_100_000_times() -> None:
    throw(100_000)
