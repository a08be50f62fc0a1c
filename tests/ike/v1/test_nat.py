"""NAT traversal (RFC 3947, RFC 3948) with translators on the wire, on either side and on both."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from ipaddress import ip_address

import pytest

from ike import events as e
from ike.station import Station
from ike.v1.vendor import Vendor
from tests.support import ike_stranger as x
from tests.support.ike_pair import CAROL, A, B, Nat, Pair, Side, octets_from, private_key
from tests.support.ike_stranger import Stranger

INSIDE = e.TransportAddress(ip_address("10.0.0.2"))
INSIDE_C = e.TransportAddress(ip_address("10.0.0.3"))
INSIDE_B = e.TransportAddress(ip_address("10.9.0.5"))
ELSEWHERE = e.TransportAddress(ip_address("192.1.1.99"), 4500)
MARKER = bytes(4)
NAMES = ["MM1", "MM2", "MM3", "MM4", "MM5", "MM6", "QM1", "QM2", "QM3"]


def shifted(by: int):
    return lambda port: port + by


def behind(which: str, **settings) -> Pair:
    """A pair with a translator before ``"a"``, ``"b"`` or ``"ab"``; that of b forwards ports."""
    nat_a = Nat(A, shifted(20000)) if "a" in which else None
    nat_b = Nat(B) if "b" in which else None
    addresses = (INSIDE if nat_a else A, INSIDE_B if nat_b else B)
    if nat_b is not None:
        for port in (500, 4500):
            nat_b.outward(replace(INSIDE_B, port=port))
    named = {"identity": "b.example"} if nat_b else {}
    return Pair(
        a={"identity": "a.example", **settings.get("a", {})},
        b={**named, **settings.get("b", {})},
        addresses=addresses,
        nats=(nat_a, nat_b),
    )


def connect(pair: Pair, tunnel: int = 0, **changes) -> None:
    identity = pair.b.endpoint._station.configuration.identity
    pair.initiate(tunnel, peer_identity=identity, **changes)
    pair.run()


def from_b(pair: Pair, tunnel: int, **changes) -> None:
    pair.initiate(tunnel, side=pair.b, peer_identity="a.example", **changes)
    pair.run()


def ports_of(pair: Pair, side: Side, number: int | None = None) -> list[tuple[int, int] | None]:
    pairs = side.pairs()
    inbound, outbound = pairs[max(pairs) if number is None else number]
    return [
        (sa.ports.source, sa.ports.destination) if sa.ports else None for sa in (inbound, outbound)
    ]


# Detection and the change of ports.


def test_without_a_nat_nothing_changes() -> None:
    pair = Pair()
    pair.initiate()
    pair.run()
    assert pair.tunnel_up()
    assert {(d.local.port, d.remote.port) for d in pair.sent} == {(500, 500)}
    assert ports_of(pair, pair.a) == ports_of(pair, pair.b) == [None, None]
    pair.wait(100)
    assert len(pair.sent) == 9


def test_the_initiator_behind_a_nat() -> None:
    pair = behind("a")
    connect(pair)
    assert [m.name for m in pair.a.seen(e.MessageSent)] == NAMES[::2]
    # RFC 3947 section 4: both ports change with message 5, and everything after stays there.
    local = {m.name: (m.local.port, m.remote.port) for m in pair.a.seen(e.MessageSent)}
    assert local == {
        "MM1": (500, 500),
        "MM3": (500, 500),
        "MM5": (4500, 4500),
        "QM1": (4500, 4500),
        "QM3": (4500, 4500),
    }
    remote = {m.name: (m.local.port, m.remote.port) for m in pair.b.seen(e.MessageSent)}
    assert remote == {
        "MM2": (500, 20500),
        "MM4": (500, 20500),
        "MM6": (4500, 24500),
        "QM2": (4500, 24500),
    }
    for datagram in pair.sent:
        assert (datagram.data[:4] == MARKER) == (datagram.local.port == 4500)
    assert ports_of(pair, pair.a) == [(4500, 4500), (4500, 4500)]
    assert ports_of(pair, pair.b) == [(24500, 4500), (4500, 24500)]
    (inbound, outbound), *_ = pair.b.pairs().values()
    assert inbound.source == outbound.destination == A.address
    (inbound, outbound), *_ = pair.a.pairs().values()
    assert inbound.destination == outbound.source == INSIDE.address
    assert not pair.a.triggers
    assert not pair.b.triggers


@pytest.mark.parametrize("which", ["b", "ab"])
def test_the_responder_behind_a_nat(which: str) -> None:
    pair = behind(which)
    connect(pair)
    assert [d.local.port for d in pair.sent] == [500] * 4 + [4500] * 5
    there = 24500 if "a" in which else 4500
    assert ports_of(pair, pair.a) == [(4500, 4500), (4500, 4500)]
    assert ports_of(pair, pair.b) == [(there, 4500), (4500, there)]


def test_the_hashes_are_those_of_the_specification() -> None:
    """RFC 3947 section 3.2: HASH(CKY-I | CKY-R | IP | Port), the destination first."""
    pair = behind("a")
    pair.initiate()
    pair.run()
    message_3, message_4 = pair.sent[2], pair.sent[3]

    def digests(message: bytes) -> list[bytes]:
        found, kind, at = [], message[16], 28
        while kind:
            length = int.from_bytes(message[at + 2 : at + 4], "big")
            if kind == 20:
                found.append(message[at + 4 : at + length])
            kind, at = message[at], at + length
        return found

    def hashed(message: bytes, end: e.TransportAddress) -> bytes:
        octets = message[:16] + end.address.packed + end.port.to_bytes(2, "big")
        return hashlib.sha256(octets).digest()

    for datagram in (message_3, message_4):
        expected = [hashed(datagram.data, datagram.remote), hashed(datagram.data, datagram.local)]
        assert digests(datagram.data) == expected


def test_vendor_ids_on_the_wire() -> None:
    """As strongSwan 5.9.8 looks for them, octet for octet."""
    pair = Pair({"sst": True}, {"sst": True})
    pair.initiate()
    pair.run()
    assert {vendor.name: vendor.value.hex() for vendor in Vendor} == {
        "NAT_TRAVERSAL": "4a131c81070358455c5728f20e95452f",
        "DEAD_PEER_DETECTION": "afcad71368a1f1c96b8696fc77570100",
        "FRAGMENTATION": "4048b7d56ebce88525e7de7f00d6c2d3",
        "PORT_ENCRYPTION": hashlib.md5(b"SST/1").hexdigest(),  # ours, and not among strongSwan's
    }
    for datagram in pair.sent[:2]:
        for vendor in Vendor:
            assert b"\0\x14" + vendor.value in datagram.data
    for side in pair.sides:
        (session,) = side.endpoint._directory.sessions.values()
        assert session.end.vendors == frozenset(Vendor)


def test_vendor_ids_of_others_are_ignored_and_versions_are_not_judged() -> None:
    pair = Pair()
    stranger = Stranger(pair.b)
    body = x.offer()
    fragmentation = Vendor.FRAGMENTATION.value + bytes.fromhex("80000000")  # as strongSwan has it
    vids = [(13, bytes.fromhex("09002689dfd6b712")), (13, fragmentation), (13, b"")]
    stranger.offer = body
    replies = stranger.send(x.clear(stranger.cookies, x.MAIN, 0, (x.SA, body), *vids))
    assert Vendor.FRAGMENTATION.value in replies[0]
    for other in (Vendor.NAT_TRAVERSAL, Vendor.DEAD_PEER_DETECTION):
        assert other.value not in replies[0]  # the responder says only what both can


def test_no_answer_is_larger_than_what_it_answers() -> None:
    for which in ("", "a", "b"):
        pair = behind(which)
        connect(pair)
        sizes = [len(datagram.data) for datagram in pair.sent]
        assert sizes[1] <= sizes[0]
        assert sizes[3] <= sizes[2]


@pytest.mark.parametrize("position", range(9))
@pytest.mark.parametrize("which", ["a", "b", "ab"])
def test_each_message_lost_and_doubled_behind_a_nat(which: str, position: int) -> None:
    for verb in ("drop", "duplicate"):
        pair = behind(which)
        identity = pair.b.endpoint._station.configuration.identity
        pair.initiate(peer_identity=identity)
        for _ in range(position):
            pair.transfer()
        getattr(pair, verb)()
        pair.run()
        pair.wait(15)
        assert len(pair.a.pairs()) == len(pair.b.pairs()) == 1, (verb, position)
        assert not pair.b.seen(e.PeerMoved)


# What is configured.


@pytest.mark.parametrize("who", ["a", "b", "both"])
@pytest.mark.parametrize("which", ["", "a", "b"])
def test_forced_encapsulation(who: str, which: str) -> None:
    forced = {"encapsulation": e.Encapsulation.UDP}
    pair = behind(which, **{side: forced for side in "ab" if who in (side, "both")})
    connect(pair)
    there = 24500 if which == "a" else 4500
    assert ports_of(pair, pair.a) == [(4500, 4500), (4500, 4500)]
    assert ports_of(pair, pair.b) == [(there, 4500), (4500, there)]
    pair.sent.clear()
    pair.wait(30)
    kept = {d.local.address for d in pair.sent if d.data == b"\xff"}
    # Keepalives come from whoever believes in a NAT before itself: the hash of its own address
    # was seen otherwise.  Who merely claims one needs none.
    assert kept <= {INSIDE.address, INSIDE_B.address}


@pytest.mark.parametrize("who", ["a", "b", "both"])
def test_esp_alone(who: str) -> None:
    """No vendor ID, no hashes; so the ports stay, even where there is a NAT."""
    plain = {"encapsulation": e.Encapsulation.ESP}
    pair = behind("a", **{side: plain for side in "ab" if who in (side, "both")})
    connect(pair)
    assert pair.a.pairs()
    assert {d.local.port for d in pair.sent} == {500}
    assert ports_of(pair, pair.a) == ports_of(pair, pair.b) == [None, None]
    said = [Vendor.NAT_TRAVERSAL.value in d.data for d in pair.sent[:2]]
    assert said == [who == "b", False]


def test_udp_is_not_given_up_silently() -> None:
    """A peer without NAT traversal gets no tunnel when UDP is ordered."""
    udp, plain = ({"encapsulation": kind} for kind in (e.Encapsulation.UDP, e.Encapsulation.ESP))
    pair = Pair(a=udp, b=plain)
    pair.initiate()
    pair.run()
    pair.wait(60)
    assert "no_nat_traversal" in pair.a.triggers
    [failed] = pair.a.seen(e.NegotiationFailed)
    assert failed.reason is e.Failure.NO_PROPOSAL  # not silence: the peer did answer
    assert failed.detail == "ESP in UDP is ordered, and the peer knows no NAT traversal"
    pair = Pair(a=plain, b=udp)
    pair.initiate()
    pair.run()
    pair.wait(60)
    assert "no_nat_traversal" in pair.b.triggers
    assert [f.reason for f in pair.a.seen(e.NegotiationFailed)] == [e.Failure.NO_PROPOSAL]


def test_a_request_says_it_otherwise() -> None:
    pair = Pair()
    pair.initiate(0)
    pair.run()
    assert ports_of(pair, pair.a, 0) == [None, None]
    pair.initiate(2, encapsulation=e.Encapsulation.UDP)  # the channel there is cannot serve it
    pair.run()
    assert ports_of(pair, pair.a, 2) == [(4500, 4500), (4500, 4500)]
    pair.initiate(4, encapsulation=e.Encapsulation.ESP)
    pair.run()
    assert ports_of(pair, pair.a, 4) == [None, None]
    assert len(pair.a.seen(e.KeyingChannelEstablished)) == 2


def test_peers_with_fixed_addresses_have_it_their_way() -> None:
    pair = Pair()
    pair.b.endpoint.prefer_encapsulation({A.address: e.Encapsulation.UDP})
    pair.initiate()
    pair.run()
    assert ports_of(pair, pair.b) == [(4500, 4500), (4500, 4500)]
    pair = behind("a")
    pair.b.endpoint.prefer_encapsulation({A.address: e.Encapsulation.ESP})
    connect(pair)
    assert ports_of(pair, pair.b) == [None, None]


@pytest.mark.parametrize("mode", [3, 61443])
def test_modes_of_esp_in_udp(mode: int) -> None:
    """Over a channel on port 4500; 61443 is how the drafts before the RFC said it."""
    pair = behind("a", b={"extended_sequence_numbers": False})
    connect(pair)
    (session,) = pair.b.endpoint._directory.sessions.values()
    from ike.v1.payloads import SecurityAssociation
    from ike.v1.proposals import choose_tunnel
    from ike.wire import Reader

    attributes = x.ESP_GCM.replace(x.tv(4, 1), x.tv(4, mode))
    offer = SecurityAssociation.parse(Reader(x.esp_offer(attributes=attributes)))
    configuration = pair.b.endpoint._station.configuration
    choice = choose_tunnel(offer, configuration, session.end.nat.acceptable(session.path))
    assert choice.encapsulated
    assert choice.transform.octets[4:].count(mode.to_bytes(2, "big")) == 1  # echoed as it came


# Keepalives.


def test_keepalives_come_from_behind_the_nat_alone() -> None:
    pair = behind("a")
    connect(pair)
    pair.sent.clear()
    events = len(pair.b.events)
    pair.wait(100.5)
    assert [d.data for d in pair.sent] == [b"\xff"] * 5
    assert {(d.local, d.remote) for d in pair.sent} == {
        (replace(INSIDE, port=4500), replace(B, port=4500))
    }
    assert len(pair.b.events) == events  # it is no event, and proves nothing


def test_one_keepalive_for_all_that_goes_one_way_and_none_when_all_is_over() -> None:
    pair = behind("a", a={"keepalive_interval": 5.0, "tunnels_per_channel": 1})
    connect(pair, 0)
    connect(pair, 2, remote_selector=CAROL)
    assert len(pair.a.seen(e.KeyingChannelEstablished)) == 2
    pair.sent.clear()
    pair.wait(20.5)
    assert len(pair.sent) == 4
    pair.a.endpoint.close(pair.now)
    pair.pump()
    pair.run()
    pair.wait(60)
    pair.sent.clear()
    pair.wait(60)
    assert not pair.sent
    assert not pair.a.endpoint._directory.keepalives._users


def test_a_tunnel_that_outlives_its_channel_keeps_the_way_open() -> None:
    pair = behind("a", a={"channel_lifetime": 60, "tunnel_lifetime": 3600})
    connect(pair)
    pair.wait(61)
    channels = pair.a.seen(e.KeyingChannelClosed)
    pair.sent.clear()
    pair.wait(100)
    assert channels
    assert [d.data for d in pair.sent].count(b"\xff") == 5


# The peer turns up elsewhere.


def test_the_mapping_changes_and_an_authenticated_message_shows_it() -> None:
    pair = behind("a")
    connect(pair)
    pair.a.nat.remap(shifted(30000))
    connect(pair, 2, remote_selector=CAROL)
    (moved,) = pair.b.seen(e.PeerMoved)
    assert moved.remote == replace(A, port=34500)
    assert moved.tunnels == (1,)
    assert ports_of(pair, pair.b, 3) == [(34500, 4500), (4500, 34500)]
    assert not pair.a.seen(e.PeerMoved)
    assert len(pair.a.pairs()) == 2
    pair.b.endpoint.close_tunnel(pair.now, 1)  # what b sends finds its way
    pair.pump()
    pair.run()
    assert len(pair.a.pairs()) == 1


def test_the_address_changes_too() -> None:
    pair = behind("a")
    connect(pair)
    pair.a.nat.remap(shifted(100), ELSEWHERE)
    connect(pair, 2, remote_selector=CAROL)
    (moved,) = pair.b.seen(e.PeerMoved)
    assert moved.remote == replace(ELSEWHERE, port=4600)
    (inbound, outbound) = pair.b.pairs()[3]
    assert inbound.source == outbound.destination == ELSEWHERE.address
    # A third over the same channel, asked for by the other side at the new address.
    request = pair.request(pair.b, peer_identity="a.example")
    pair.b.endpoint.initiate(pair.now, 0, replace(request, remote=ELSEWHERE.address))
    pair.pump()
    pair.run()
    assert ports_of(pair, pair.b, 0) == [(4600, 4500), (4500, 4600)]
    assert len(pair.b.seen(e.KeyingChannelEstablished)) == 1
    # And nothing is left behind when all is over.
    pair.a.endpoint.close(pair.now)
    pair.pump()
    pair.run()
    directory = pair.b.endpoint._directory
    assert not directory.sessions
    assert not directory.tunnels
    assert not directory._established
    assert not directory._outbound
    assert not directory._first_messages


@pytest.mark.parametrize("after", [6, 7])
def test_the_mapping_changes_while_the_answer_is_under_way(after: int) -> None:
    """A copy of message 1 of quick mode proves nothing: its answer is lost, the next try not."""
    pair = behind("a")
    pair.initiate()
    for _ in range(after):
        pair.transfer()
    pair.a.nat.remap(shifted(30000))
    pair.run()
    pair.wait(40)
    assert not pair.b.seen(e.PeerMoved)
    assert [f.reason for f in pair.a.seen(e.NegotiationFailed)] == [e.Failure.REFUSED]
    connect(pair, 2)
    assert len(pair.a.pairs()) == 1
    assert ports_of(pair, pair.b) == [(34500, 4500), (4500, 34500)]


@pytest.mark.parametrize("accepted", [False, True])
def test_the_peer_moves_while_the_shell_decides(accepted: bool) -> None:
    """What the shell has seen is named in the event; what it has not comes right by itself."""
    pair = behind("a")
    pair.initiate()
    for _ in range(6):
        pair.transfer()
    pair.b.answers = False
    pair.transfer()
    if accepted:
        pair.b.endpoint.accept_tunnel(pair.now, 1)
        pair.pump()
    pair.b.answers = True
    pair.a.nat.remap(shifted(30000))
    pair.initiate(2, remote_selector=CAROL)
    pair.run()
    (moved,) = pair.b.seen(e.PeerMoved)
    assert moved.tunnels == ((1,) if accepted else ())
    if not accepted:
        pair.b.endpoint.accept_tunnel(pair.now, 1)
        pair.pump()
    inbound = {event.tunnel: event.sa for event in pair.b.seen(e.InboundSaEstablished)}
    assert inbound[1].ports == e.UdpPorts(24500 if accepted else 34500, 4500)
    pair.b.endpoint.confirm_inbound(pair.now, 1)
    pair.pump()
    pair.run()
    assert ports_of(pair, pair.b, 1)[1] == (4500, 34500)
    assert len(pair.a.pairs()) == 2


def test_copies_and_forgeries_from_elsewhere_change_nothing() -> None:
    pair = behind("a")
    connect(pair)
    pair.wait(3)
    before = [view.remote for view in pair.b.endpoint.snapshot().channels]
    randomness = octets_from(5)
    sent = [d for d in pair.sent if d.remote.address == B.address]
    for datagram in list(sent):
        for data in (datagram.data, datagram.data[:-16] + randomness(16), b"\xff"):
            pair.b.endpoint.receive_datagram(pair.now, data, datagram.remote, ELSEWHERE)
            pair.b.endpoint.receive_datagram(pair.now, data, datagram.remote, replace(A, port=9))
    pair.pump()
    assert not pair.b.seen(e.PeerMoved)
    assert [view.remote for view in pair.b.endpoint.snapshot().channels][:1] == before
    assert not any(
        d.remote == ELSEWHERE and len(d.data) > len(pair.sent[0].data) for d in pair.wire
    )
    there = {m.name for m in pair.b.seen(e.MessageSent) if m.remote == ELSEWHERE}
    assert there <= {"MM2"}  # a copy of message 1 is somebody's message 1
    pair.wire.clear()
    connect(pair, 2, remote_selector=CAROL)
    assert len(pair.a.pairs()) == 2


def test_without_a_nat_nobody_moves() -> None:
    pair = Pair()
    stranger = Stranger(pair.b)
    stranger.establish()
    stranger.address = ELSEWHERE
    assert not stranger.send(stranger.quick_1())
    assert pair.b.triggers == ["wrong_address"]
    stranger.address = replace(A, port=777)  # another port is heard, and answered at the old one
    stranger.send(stranger.quick_1())
    assert len(pair.b.seen(e.InboundSaEstablished)) == 1
    assert not pair.b.seen(e.PeerMoved)
    assert pair.b.seen(e.MessageSent)[-1].remote == A


@pytest.mark.parametrize("which", ["b", "ab"])
def test_the_side_behind_the_nat_never_follows(which: str) -> None:
    """RFC 3947 section 7."""
    pair = behind(which)
    connect(pair)
    if pair.a.nat is not None:
        pair.a.nat.remap(shifted(30000))
    identity = "b.example"
    pair.initiate(2, peer_identity=identity, remote_selector=CAROL)
    datagram = pair.wire.pop()
    pair.b.endpoint.receive_datagram(
        pair.now, datagram.data, replace(INSIDE_B, port=4500), replace(A, port=7777)
    )
    pair.pump()
    assert pair.b.seen(e.TunnelProposed)[-1].remote.port in (4500, 24500)
    assert not pair.b.seen(e.PeerMoved)
    pair.b.endpoint.peer_moved(pair.now, 1, ELSEWHERE)
    pair.pump()
    assert not pair.b.seen(e.PeerMoved)


def test_the_shell_says_that_esp_came_from_elsewhere() -> None:
    pair = behind("a")
    connect(pair, 0)
    connect(pair, 2, remote_selector=CAROL)
    new = replace(A, port=31234)
    pair.b.endpoint.peer_moved(pair.now, 1, new)
    pair.b.endpoint.peer_moved(pair.now, 1, new)  # it is there already
    pair.b.endpoint.peer_moved(pair.now, 99, new)
    pair.a.endpoint.peer_moved(pair.now, 0, ELSEWHERE)  # we are behind the NAT
    pair.pump()
    (moved,) = pair.b.seen(e.PeerMoved)
    assert (moved.remote, moved.tunnels) == (new, (1, 3))
    assert not pair.a.seen(e.PeerMoved)
    assert pair.b.endpoint.snapshot().unknown_handles == 1
    (view,) = pair.b.endpoint.snapshot().channels
    assert view.remote == new
    pair = Pair()
    connect(pair)
    pair.b.endpoint.peer_moved(pair.now, 1, ELSEWHERE)  # not in UDP
    pair.pump()
    assert not pair.b.seen(e.PeerMoved)


# Several channels.


def test_a_later_main_mode_begins_where_the_first_one_floated_to() -> None:
    pair = behind("a", a={"tunnels_per_channel": 1}, b={"tunnels_per_channel": 1})
    connect(pair)
    pair.sent.clear()
    connect(pair, 2, remote_selector=CAROL)
    assert [d.local.port for d in pair.sent] == [4500] * 9
    assert all(d.data.startswith(MARKER) for d in pair.sent)
    assert ports_of(pair, pair.b, 3) == [(24500, 4500), (4500, 24500)]
    # The other side too: nothing but the mapped port leads to the peer.
    pair.sent.clear()
    from_b(pair, 0)
    assert [(d.local.port, d.remote.port) for d in pair.sent][::2] == [(4500, 24500)] * 5
    assert ports_of(pair, pair.b, 0) == [(24500, 4500), (4500, 24500)]
    assert len(pair.a.seen(e.KeyingChannelEstablished)) == 3


def test_two_peers_behind_one_nat(monkeypatch) -> None:
    """One public address, two ports; both choose the same SPI for what they receive."""
    pair = behind("a")
    nat = pair.a.nat
    nat.public_port = lambda port: port + 20000 + 1000 * len(nat.mapped)
    pair.c = pair._side(INSIDE_C, "c", {"identity": "c.example"}, 77)
    pair.c.nat = nat
    pair.sides = (pair.a, pair.b, pair.c)
    pair.keys_of_peer[id(pair.c)] = (pair.b.key,)
    pair.keys_of_peer[id(pair.b)] = (pair.a.key, pair.c.key)
    true_spi = Station.fresh_spi
    at_b = pair.b.endpoint._station
    monkeypatch.setattr(
        Station,
        "fresh_spi",
        lambda self: true_spi(self) if self is at_b else b"\x11\x22\x33\x44",
    )
    keys = (pair.b.key.public_key(),)
    requests = {
        id(side): e.TunnelRequest(
            side.address.address,
            B.address,
            e.TrafficSelector(
                pair.request().local_selector.network if side is pair.a else CAROL.network
            ),
            pair.request().remote_selector,
            keys,
        )
        for side in (pair.a, pair.c)
    }
    for side in (pair.a, pair.c):  # interleaved, message by message
        side.endpoint.initiate(pair.now, 0, requests[id(side)])
    pair.pump()
    pair.run()
    assert len(pair.b.pairs()) == 2
    found = {ports[1][1] for n in pair.b.pairs() if (ports := ports_of(pair, pair.b, n))}
    assert len(found) == 2
    assert {c.identity for c in pair.b.seen(e.KeyingChannelEstablished)} == {
        "a.example",
        "c.example",
    }
    # Each deletes its own, though address and SPI are the same.
    pair.a.endpoint.close_tunnel(pair.now, 0)
    pair.pump()
    pair.run()
    (left,) = pair.b.pairs().values()
    (at_c,) = pair.c.pairs().values()
    assert left[0].spi == at_c[1].spi
    # Moving one leaves the other where it is.
    (number,) = pair.b.pairs()
    pair.b.endpoint.peer_moved(pair.now, number, replace(A, port=40000))
    pair.pump()
    remotes = {view.identity: view.remote.port for view in pair.b.endpoint.snapshot().channels}
    assert remotes["c.example"] == 40000
    assert remotes["a.example"] != 40000


# The port.


@pytest.mark.parametrize("data", [b"", b"\xff\xff", b"\0\0\0", b"\x12\x34\x56\x78" + bytes(60)])
def test_what_is_no_ike_on_port_4500(data: bytes) -> None:
    pair = Pair()
    pair.b.endpoint.receive_datagram(pair.now, data, replace(B, port=4500), A)
    pair.pump()
    assert pair.b.triggers == ["no_marker"]
    assert not pair.wire


def test_a_refusal_on_port_4500_has_its_marker() -> None:
    pair = Pair(a={"profiles": ("draft",)}, b={"profiles": ("modern",)})
    pair.initiate()
    message = MARKER + pair.wire.pop().data
    pair.b.endpoint.receive_datagram(
        pair.now, message, replace(B, port=4500), replace(A, port=31337)
    )
    (answer,) = pair.b.endpoint.datagrams_to_send()
    assert answer.data.startswith(MARKER)
    assert (answer.local.port, answer.remote.port) == (4500, 31337)
    assert len(answer.data) <= len(message)


def test_forged_hashes_cannot_part_the_two_sides() -> None:
    """Messages 3 and 4 are not protected; what quick mode says is, and the responder follows it."""
    for position in (2, 3):
        pair = Pair()
        pair.initiate()
        for _ in range(position):
            pair.transfer()
        data = pair.wire[0].data
        for offset in (-1, -37):  # in the hash of the source, of the destination
            forged = bytearray(data)
            forged[offset] ^= 1
            pair.wire.insert(0, replace(pair.wire[-1], data=bytes(forged)))
        pair.run()
        pair.wait(20)
        assert pair.tunnel_up(), position
        udp = {ports is not None for side in pair.sides for ports in ports_of(pair, side)}
        assert len(udp) == 1


def test_identities_have_port_0() -> None:
    """RFC 3947 section 4; strongSwan and we alike.  UDP port 4500 in one is an error."""
    pair = Pair()
    stranger = Stranger(pair.b)
    stranger.send_1()
    stranger.send_3()
    identification = bytes((1, 17)) + (4500).to_bytes(2, "big") + A.address.packed
    assert not stranger.send_5((x.ID, identification), (x.SIG, stranger.sign(identification)))
    assert stranger.send_5()
    assert private_key("a") is pair.a.key


def test_port_0_is_nobodys() -> None:
    """It is not authenticated, and nothing can be sent there."""
    pair = behind("a")
    connect(pair)
    pair.a.nat.remap(lambda port: 0)
    connect(pair, 2, remote_selector=CAROL)
    pair.b.endpoint.peer_moved(pair.now, 1, replace(A, port=0))
    pair.pump()
    assert not pair.b.seen(e.PeerMoved)
    assert "wrong_address" in pair.b.triggers
    pair.a.nat.remap(shifted(30000))
    pair.wait(10)
    assert len(pair.a.pairs()) == len(pair.b.pairs()) == 2
