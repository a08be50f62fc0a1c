"""What a stranger on the path, or a peer that may speak to us, does to later life."""

from __future__ import annotations

import struct
from dataclasses import replace
from ipaddress import ip_address

import pytest

from ike import events as e
from ike.v1 import session as sessions
from ike.v1.contact import Contacts
from ike.v1.moves import peer_moved
from ike.v1.nat import NatFindings, Path
from ike.v1.vendor import Vendor
from tests.ike.v1.test_nat import MARKER, behind, connect
from tests.support import ike_stranger as x
from tests.support.ike_pair import A, B, Pair
from tests.support.ike_stranger import Stranger
from tests.support.ike_vendors import set_vendors

THIRD = e.TransportAddress(ip_address("203.0.113.66"), 6666)


def test_garbage_while_keys_are_looked_up_moves_nobody() -> None:
    """RFC 3947 section 7: an address changes only by what is authenticated."""
    pair = behind("a")
    connect(pair)
    (session,) = pair.a.endpoint._directory.sessions.values()
    pair.b.answers = False
    session.begin_successor(pair.now)
    pair.pump()
    pair.run()
    (_, wanted) = pair.b.seen(e.PeerKeyNeeded)
    cookies = pair.b.endpoint._directory.sessions[wanted.channel].cookies
    garbage = MARKER + x.header(cookies, x.HASH, x.MAIN, 1, 0, bytes(16))
    local = replace(B, port=4500)
    pair.b.endpoint.receive_datagram(pair.now, garbage, local, THIRD)
    key = pair.a.key.public_key()
    pair.b.endpoint.provide_peer_keys(pair.now, wanted.channel, (key,))
    pair.pump()
    assert pair.b.seen(e.KeyingChannelEstablished)[-1].remote.address == A.address
    assert not pair.b.seen(e.PeerMoved)
    assert THIRD not in {datagram.remote for datagram in pair.sent}


def encrypted_main_mode(data: bytes) -> bool:
    data = data.removeprefix(MARKER)
    return data[18] == x.MAIN and bool(data[19] & 1)


@pytest.mark.parametrize("which", ["", "a"])
def test_a_copy_of_message_5_from_elsewhere_overtakes_it(which: str) -> None:
    pair = behind(which)
    deliver = pair.deliver
    source = THIRD if which else replace(A, port=1234)
    pair.deliver = lambda datagram: None if datagram.remote == source else deliver(datagram)
    pair.initiate()
    while not encrypted_main_mode(pair.wire[0].data):
        pair.transfer()
    pair.wire.insert(0, replace(pair.wire[0], local=source))
    pair.run()
    pair.wait(30)
    assert len(pair.a.pairs()) == len(pair.b.pairs()) == 1


def test_a_copy_of_message_1_from_another_port_overtakes_it() -> None:
    pair = Pair()
    deliver = pair.deliver
    source = replace(A, port=1234)
    pair.deliver = lambda datagram: None if datagram.remote == source else deliver(datagram)
    pair.initiate()
    pair.wire.insert(0, replace(pair.wire[0], local=source))
    pair.run()
    pair.wait(30)
    assert pair.tunnel_up()


def test_refused_quick_modes_use_up_message_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is remembered, so that their number must have an end."""
    monkeypatch.setattr(sessions, "MESSAGE_IDS_MOST", 50)
    pair = Pair()
    stranger = Stranger(pair.b)
    stranger.establish()
    for _ in range(30):
        stranger.send(stranger.quick_1(ke=None))
    assert [closed.reason for closed in pair.b.seen(e.KeyingChannelClosed)] == [
        "message IDs used up"
    ]


@pytest.mark.parametrize("octets", [b"\xff" * 4, b"\xff" * 8, b"\x01" + bytes(7)])
def test_no_lifetime_is_longer_than_a_kernel_can_count(octets: bytes) -> None:
    pair = Pair()
    stranger = Stranger(pair.b)
    stranger.establish()
    kilobytes = x.tv(1, 2) + x.tlv(2, octets)
    offer = x.esp_offer(attributes=x.ESP_GCM + kilobytes)
    stranger.send(stranger.quick_1(sa=(x.SA, offer)))
    (event,) = pair.b.seen(e.InboundSaEstablished)
    assert event.sa.lifetime_bytes is not None
    assert event.sa.lifetime_bytes < 1 << 63


def test_two_tunnels_with_one_spi_of_the_peer() -> None:
    """Nothing is sent on a channel that is closed."""
    pair = Pair()
    stranger = Stranger(pair.b)
    stranger.establish()
    for _ in range(2):
        stranger.send(stranger.quick_1())
    for number in (1, 3):
        tunnel = pair.b.endpoint._directory.tunnels[number]
        tunnel.keyed_on.send_delete(1000.0, tunnel.inbound_spi, tunnel.outbound_spi)
    pair.b.endpoint.close(1000.0)
    pair.b.endpoint.datagrams_to_send()
    pair.b.endpoint.handle_timer(1011.0)
    assert pair.b.endpoint.datagrams_to_send() == []
    assert pair.b.endpoint.next_timer() is None


def test_a_claim_ends_with_its_channel_and_only_with_it() -> None:
    contacts = Contacts(["a.example", "b.example"])
    assert contacts.claim("a.example", 1)
    assert not contacts.claim("a.example", 2)
    contacts.channel_failed(2)
    assert not contacts.claim("a.example", 2)
    contacts.channel_failed(1)
    assert contacts.claim("a.example", 2)
    contacts.channel_established("a.example")
    contacts.lost("a.example")
    contacts.channel_failed(2)
    assert contacts.claim("a.example", 3)


def test_the_old_channel_is_deleted_over_the_new_one() -> None:
    pair = Pair()
    old, new = Stranger(pair.b), Stranger(pair.b)
    new.cookies = (b"stranges", bytes(8))
    old.establish()
    new.establish()
    body = struct.pack("!IBBH", 1, 1, 16, 1) + b"".join(old.cookies)
    new.send(new.seal(x.INFO, (x.D, body)))
    (left,) = pair.b.endpoint.snapshot().channels
    assert left.channel == 2


def test_another_peer_on_the_same_path_moves_nobody_but_itself() -> None:
    """Message 5 with a forged source puts a peer's channel on the path of another one."""
    pair = behind("a")
    connect(pair)
    endpoint = pair.b.endpoint
    (session,) = endpoint._directory.sessions.values()
    (tunnel,) = endpoint._directory.tunnels.values()
    other = ("c.example", 7, 3)
    peer_moved(endpoint._station, endpoint._directory, 99, other, session.path, THIRD)
    assert session.remote.address == tunnel.remote.address == A.address
    assert tunnel.path is not None
    assert tunnel.path.remote.address == A.address


@pytest.mark.parametrize(("cookies", "closed"), [(b"", 1), (b"x" * 16, 0)])
def test_initial_contact_in_message_5_is_about_its_own_channel(cookies: bytes, closed: int) -> None:
    pair = Pair()
    former, again = Stranger(pair.b), Stranger(pair.b)
    again.cookies = (b"stranges", bytes(8))
    former.establish()
    again.send_1()
    again.send_3()
    identification = again.identification()
    notification = struct.pack("!IBBH", 1, 1, len(cookies), 24578) + cookies
    again.send_5((x.ID, identification), (x.SIG, again.sign(identification)), (x.N, notification))
    assert len(pair.b.seen(e.KeyingChannelClosed)) == closed


def test_the_same_old_packet_told_again_and_again_is_no_sign_of_life(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As a shell tells it that polls: when the last packet came, however long ago."""
    set_vendors(monkeypatch, Vendor.DEAD_PEER_DETECTION)
    pair = Pair()
    pair.initiate()
    pair.run()
    pair.broken = True
    last = pair.now + 0.5
    for _ in range(40):
        pair.wait(1)
        if pair.a.pairs():
            pair.a.endpoint.traffic_seen(pair.now, 0, last, pair.now)
            pair.pump()
    assert [closed.reason for closed in pair.a.seen(e.TunnelClosed)] == ["dead peer"]


def test_udp_that_is_ordered_is_not_given_up() -> None:
    """Not when the peer says the vendor ID and then sends no NAT-D, nor in quick mode."""
    pair = Pair(b={"encapsulation": e.Encapsulation.UDP})
    stranger = Stranger(pair.b)
    stranger.offer = x.offer()
    vendor = (13, Vendor.NAT_TRAVERSAL.value)
    (reply,) = stranger.send(x.clear(stranger.cookies, x.MAIN, 0, (x.SA, stranger.offer), vendor))
    stranger.cookies = (reply[:8], reply[8:16])
    assert not stranger.send_3()
    assert "no_nat_traversal" in pair.b.triggers
    path = Path(replace(B, port=4500), replace(A, port=4500))
    assert NatFindings(known=True, ours=e.Encapsulation.UDP).acceptable(path) == (True,)
