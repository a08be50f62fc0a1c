"""ESP in UDP though there is no NAT, with peers that can, and by no means a tunnel less."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from ike import events as e
from ike.v1 import main_mode
from ike.v1.nat import NatFindings, Path, findings
from ike.v1.payloads import NatDiscovery
from ike.v1.suites import NAMED_CHANNEL_SUITES
from tests.ike.v1.test_nat import ELSEWHERE, NAMES, behind, connect, ports_of
from tests.support.ike_pair import CAROL, A, B, Nat, Pair, Side

Why = e.EncapsulationReason
IN_UDP = [(4500, 4500), (4500, 4500)]
PLAIN = [None, None]
ESP, UDP = ({"encapsulation": kind} for kind in (e.Encapsulation.ESP, e.Encapsulation.UDP))


def preferring(pair: Pair, who: str = "ab") -> Pair:
    """The sides named prefer UDP, as with the user-space datapath."""
    for side in who:
        getattr(pair, side).endpoint.prefer_udp()
    return pair


def why(side: Side) -> e.EncapsulationReason:
    return side.seen(e.InboundSaEstablished)[-1].encapsulation


def again_from_b(pair: Pair, tunnel: int, **changes) -> None:
    pair.initiate(tunnel, side=pair.b, **changes)
    pair.run()


@pytest.mark.parametrize("who", ["a", "b", "ab"])
def test_one_side_that_prefers_it_is_enough(who: str) -> None:
    pair = preferring(Pair(), who)
    pair.initiate()
    pair.run()
    assert [m.name for m in (*pair.a.seen(e.MessageSent), *pair.b.seen(e.MessageSent))] == [
        *NAMES[::2], *NAMES[1::2]
    ]  # fmt: skip
    assert [(d.local.port, d.remote.port) for d in pair.sent] == [(500, 500)] * 4 + [
        (4500, 4500)
    ] * 5
    assert ports_of(pair, pair.a) == ports_of(pair, pair.b) == IN_UDP
    for side, name in ((pair.a, "a"), (pair.b, "b")):
        assert why(side) is (Why.PREFERRED if name in who else Why.PEER_PREFERS)


@pytest.mark.parametrize("who", ["a", "b", "ab"])
def test_nobody_is_taken_for_translated(who: str) -> None:
    """So nobody is followed about, sends keepalives, or is refused what a translated one is."""
    pair = preferring(Pair(), who)
    pair.initiate()
    pair.run()
    for side in pair.sides:
        [ready] = side.seen(e.InboundSaEstablished)
        assert not ready.translated
        (session,) = side.endpoint._directory.sessions.values()
        assert not session.end.nat.follows
        side.endpoint.peer_moved(pair.now, ready.tunnel, ELSEWHERE)
    assert not pair.b.seen(e.TunnelProposed)[0].translated
    pair.pump()
    pair.sent.clear()
    pair.wait(60)
    assert not [d for d in pair.sent if d.data == b"\xff"]
    assert not pair.a.seen(e.PeerMoved)
    assert not pair.b.seen(e.PeerMoved)


@pytest.mark.parametrize("which", ["a", "b"])
def test_a_nat_is_found_all_the_same(which: str) -> None:
    pair = preferring(behind(which))
    connect(pair)
    there = 24500 if which == "a" else 4500
    assert ports_of(pair, pair.a) == IN_UDP
    assert ports_of(pair, pair.b) == [(there, 4500), (4500, there)]
    assert why(pair.a) is (Why.NAT_HERE if which == "a" else Why.NAT_THERE)
    assert why(pair.b) is (Why.NAT_THERE if which == "a" else Why.NAT_HERE)
    assert pair.a.seen(e.InboundSaEstablished)[0].translated
    assert pair.b.seen(e.TunnelProposed)[0].translated is (which == "a")
    (session,) = pair.b.endpoint._directory.sessions.values()
    assert session.end.nat.follows is (which == "a")


@pytest.mark.parametrize("who", ["a", "b"])
def test_a_peer_that_will_not_gets_protocol_50(who: str) -> None:
    pair = preferring(Pair(**{who: ESP}))
    pair.initiate()
    pair.run()
    assert pair.tunnel_up()
    assert ports_of(pair, pair.a) == ports_of(pair, pair.b) == PLAIN
    assert {d.local.port for d in pair.sent} == {500}
    for side, name in ((pair.a, "a"), (pair.b, "b")):
        assert why(side) is (Why.ORDERED if name == who else Why.NOT_KNOWN)


@pytest.mark.parametrize("who", ["a", "b"])
def test_a_peer_that_says_it_and_sends_no_hashes_gets_protocol_50(
    who: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = preferring(Pair())
    silent = getattr(pair, who).endpoint

    def payloads(self: main_mode._Traversal, *about: object) -> list[NatDiscovery]:
        return [] if speaking[-1] is silent else true_payloads(self, *about)

    def speaks(receive: Callable[..., None]) -> Callable[..., None]:
        def received(endpoint: object, *arguments: object) -> None:
            speaking.append(endpoint)
            receive(endpoint, *arguments)

        return received

    speaking: list[object] = [None]
    true_payloads = main_mode._Traversal.payloads
    monkeypatch.setattr(main_mode._Traversal, "payloads", payloads)
    monkeypatch.setattr(type(silent), "receive_datagram", speaks(type(silent).receive_datagram))
    pair.initiate()
    pair.run()
    assert pair.tunnel_up()
    assert ports_of(pair, pair.a) == ports_of(pair, pair.b) == PLAIN
    assert why(pair.b if who == "a" else pair.a) is Why.NOT_KNOWN


@pytest.mark.parametrize("who", ["a", "b"])
def test_an_order_is_not_weakened_by_the_preference(who: str) -> None:
    pair = preferring(Pair(**{who: UDP}))
    pair.initiate()
    pair.run()
    assert ports_of(pair, pair.a) == IN_UDP
    assert why(getattr(pair, who)) is Why.ORDERED
    assert NatFindings(known=True, ours=e.Encapsulation.UDP, wished=True).forced


def test_without_preference_nothing_changes() -> None:
    pair = Pair()
    pair.initiate()
    pair.run()
    assert ports_of(pair, pair.a) == PLAIN
    assert why(pair.a) is why(pair.b) is Why.NO_NAT


def test_what_a_request_or_an_address_says_comes_first() -> None:
    pair = preferring(Pair())
    pair.initiate(0, encapsulation=e.Encapsulation.ESP)
    pair.run()
    assert ports_of(pair, pair.a, 0) == PLAIN
    pair.initiate(2, encapsulation=e.Encapsulation.UDP)  # the channel there cannot serve it
    pair.run()
    assert ports_of(pair, pair.a, 2) == IN_UDP
    pair.initiate(4, encapsulation=e.Encapsulation.AUTO)  # any channel will do
    pair.run()
    assert len(pair.a.seen(e.KeyingChannelEstablished)) == 2
    pair = preferring(Pair(), "b")
    pair.b.endpoint.prefer_encapsulation({A.address: e.Encapsulation.ESP})
    pair.initiate()
    pair.run()
    assert ports_of(pair, pair.b) == PLAIN
    pair = preferring(Pair(b=ESP), "b")
    pair.b.endpoint.prefer_encapsulation({A.address: e.Encapsulation.AUTO})
    pair.initiate()
    pair.run()
    assert ports_of(pair, pair.b) == IN_UDP


def test_two_requests_at_once_share_one_channel() -> None:
    pair = preferring(Pair())
    pair.initiate(0, encapsulation=e.Encapsulation.AUTO)
    pair.initiate(2, encapsulation=None, remote_selector=CAROL)
    pair.initiate(4, encapsulation=e.Encapsulation.UDP_IF_POSSIBLE, local_selector=CAROL)
    pair.run()
    assert len(pair.a.seen(e.KeyingChannelEstablished)) == 1
    assert len(pair.a.pairs()) == 3


@pytest.mark.parametrize("who", ["a", "b"])
def test_either_side_may_renew_tunnel_and_channel(who: str) -> None:
    pair = preferring(Pair(), who)
    connect(pair)
    [number] = pair.b.pairs()
    again_from_b(pair, 6, replaces=number)
    assert ports_of(pair, pair.b, 6) == IN_UDP
    (session,) = pair.b.endpoint._directory.sessions.values()
    session.begin_successor(pair.now)
    pair.pump()
    pair.run()
    [_, successor] = pair.a.seen(e.KeyingChannelEstablished)
    assert successor.local.port == successor.remote.port == 4500
    again_from_b(pair, 8)
    assert ports_of(pair, pair.b, 8) == IN_UDP


@pytest.mark.parametrize("position", range(9))
def test_each_message_lost_and_doubled(position: int) -> None:
    for verb in ("drop", "duplicate"):
        pair = preferring(Pair())
        pair.initiate()
        for _ in range(position):
            pair.transfer()
        getattr(pair, verb)()
        pair.run()
        pair.wait(15)
        assert len(pair.a.pairs()) == len(pair.b.pairs()) == 1, (verb, position)
        assert ports_of(pair, pair.a) == ports_of(pair, pair.b) == IN_UDP, (verb, position)


# A firewall that lets port 500 and protocol 50 pass, and no more.


@pytest.mark.parametrize("who", ["a", "b", "ab"])
def test_a_blocked_port_4500_costs_time_and_no_tunnel(who: str) -> None:
    pair = preferring(Pair(), who)
    pair.closed_ports = {4500}
    pair.initiate()
    pair.run()
    assert not pair.a.pairs()
    pair.wait(2)  # the third message 5
    assert pair.tunnel_up()
    assert ports_of(pair, pair.a) == ports_of(pair, pair.b) == PLAIN
    assert why(pair.a) is Why.BLOCKED
    assert why(pair.b) is Why.BLOCKED
    again_from_b(pair, 6, local_selector=CAROL)
    assert ports_of(pair, pair.b, 6) == PLAIN
    assert len(pair.b.seen(e.KeyingChannelEstablished)) == 1


@pytest.mark.parametrize("which", ["ordered", "nat"])
def test_who_needs_port_4500_does_not_give_it_up(which: str) -> None:
    pair = Pair(a=UDP) if which == "ordered" else preferring(behind("a"))
    pair.closed_ports = {4500, 24500}
    connect(pair)
    pair.wait(60)
    assert not pair.a.pairs()
    assert {m.remote.port for m in pair.a.seen(e.MessageSent) if m.name == "MM5"} == {4500}


def test_a_late_answer_on_port_4500_still_counts() -> None:
    """The copies on port 500 came as well, but message 5 on port 4500 came first."""
    pair = preferring(Pair())
    pair.initiate()
    for _ in range(4):
        pair.transfer()
    held = [pair.wire.pop(0)]
    pair.wait(0.4)
    for _ in range(2):  # twice more, and a copy with the second
        pair.now += 1.3
        for side in pair.sides:
            side.endpoint.handle_timer(pair.now)
        pair.pump()
    assert [d.remote.port for d in pair.wire] == [4500, 4500, 500]
    pair.wire[:0] = held
    pair.run()
    pair.wait(10)
    assert ports_of(pair, pair.a) == ports_of(pair, pair.b) == IN_UDP


# The hashes.


def test_to_others_the_wish_is_a_nat() -> None:
    """What a peer of another kind compares, RFC 3947 section 3.2: neither hash may be of the
    address that it sees, and the one of its own must be right."""
    hash_ = next(iter(NAMED_CHANNEL_SUITES.values())).hash
    cookies = (b"initiato", b"responde")
    wish = main_mode._Traversal(e.Encapsulation.UDP_IF_POSSIBLE, frozenset(main_mode.Vendor))
    suite = next(iter(NAMED_CHANNEL_SUITES.values()))
    destination, source = wish.payloads(suite, cookies, Path(A, B))
    true = hash_.digest(*cookies, B.address.packed, (500).to_bytes(2, "big"))
    own = hash_.digest(*cookies, A.address.packed, (500).to_bytes(2, "big"))
    assert destination.octets == true
    assert source.octets != own
    assert len(source.octets) == len(own)
    found = findings(
        hash_, cookies, Path(B, A), [destination, source], e.Encapsulation.AUTO
    )  # ours reads both
    assert (found.here, found.there, found.wished) == (False, False, True)
    other = NatDiscovery(bytes(len(own)))
    found = findings(hash_, cookies, Path(B, A), [destination, other], e.Encapsulation.AUTO)
    assert (found.here, found.there, found.wished) == (False, True, False)


def test_a_peer_that_forces_it_with_a_random_hash_is_behind_a_nat(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As strongSwan does, and as we did before."""
    pair = preferring(Pair(), "b")
    monkeypatch.setattr("ike.v1.nat._WISH", b"")

    def random_hash(path: Path) -> Path:
        return replace(path, local=e.TransportAddress(CAROL.network.network_address, 1))

    true = main_mode.discovery_payloads
    monkeypatch.setattr(
        main_mode, "discovery_payloads",
        lambda hash_, cookies, path, wished: true(hash_, cookies, random_hash(path), wished),
    )  # fmt: skip
    pair.initiate()
    pair.run()
    assert ports_of(pair, pair.a) == ports_of(pair, pair.b) == IN_UDP
    assert why(pair.a) is Why.NAT_THERE
    assert pair.b.seen(e.TunnelProposed)[0].translated


def test_a_translator_that_leaves_the_ports_is_none_of_our_business() -> None:
    """The wish is hashed with the address, so a translated one shows."""
    pair = preferring(Pair(nats=(Nat(e.TransportAddress(CAROL.network.network_address)), None)))
    pair.initiate()
    pair.run()
    assert pair.b.seen(e.TunnelProposed)[0].translated
    assert why(pair.b) is Why.NAT_THERE
