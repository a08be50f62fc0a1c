"""Two gateways by their cores, keys and DNS, in virtual time: requirements SST-13 to SST-36.

The kernel is a model (`tests/support/sst_kernel.py`); packets are built, rewritten by the kernel,
and read by code that is not the gateway's.
"""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from dnsrecords.trust import Trust
from oegw.sst.interface import PathState, Wish
from oegw.sst.settings import Epochs, Fragments, Strangers
from policy.rule import Sst, SstStrength
from tests.support.sst_kernel import with_flag
from tests.support.sst_wire import (
    ACK,
    SYN,
    TCP,
    TIME_EXCEEDED,
    TOO_BIG,
    UDP,
    UNREACHABLE,
    around,
    build,
    icmp_error,
    look,
    quote_of,
    segment,
)
from tests.support.sst_world import NOON, OFF, ONLY, REQUIRED, Gate, World, Zone, straight

A4, B4, CAROL = "192.0.2.1", "198.51.100.7", "203.0.113.9"
A6, B6 = "2001:db8:1::1", "2001:db8:2::2"
PAIRS = [(A4, B4), (A6, B6)]
each_family = pytest.mark.parametrize(("here", "there"), PAIRS, ids=["ipv4", "ipv6"])
each_protocol = pytest.mark.parametrize("protocol", [TCP, UDP], ids=["tcp", "udp"])


def pair(seed: int = 1, start: float = NOON, **settings: object) -> tuple[World, Gate, Gate]:
    world = World(seed, start)
    a = world.gate("a", A4, A6, **settings)  # type: ignore[arg-type]
    b = world.gate("b", B4, B6, **settings)  # type: ignore[arg-type]
    return world, a, b


def talk(world: World, a: Gate, b: Gate, here: str, there: str, protocol: int, port: int) -> None:
    """A flow to port 22, and its answer."""
    world.send(a, build(here, there, protocol, port, 22, b"question", flags=SYN))
    world.run(4.0)
    assert b.got, b.trace.drops
    assert b.got[-1].ports == (port, 22)
    world.send(b, build(there, here, protocol, 22, port, b"answer", flags=SYN | ACK))
    world.run(1.0)
    assert a.got[-1].ports == (22, port)


def of_flows(world: World, protocol: int | None = None) -> list[bytes]:
    """What was on the public link, without probes."""
    return [
        packet
        for _, packet in world.wire
        if look(packet, quoted=True).body[8:16].hex() != "b35c535354706264"
        and protocol in (None, look(packet, quoted=True).protocol)
    ]


@each_protocol
@each_family
def test_sst_31_the_first_packet_has_its_ports_encrypted(
    here: str, there: str, protocol: int
) -> None:
    """With keys of the DNS only; SST-1, 4, 5, 6, 10, 25 on the way."""
    world, a, b = pair()
    talk(world, a, b, here, there, protocol, 40000)
    for packet in of_flows(world):
        seen = look(packet)
        assert seen.flagged
        assert seen.right
        assert seen.ports is not None
        assert not {22, 40000, 0} & set(seen.ports)
        assert seen.dont_fragment


@each_family
def test_sst_13_what_is_flagged_is_opened_and_all_else_comes_as_it_is(
    here: str, there: str
) -> None:
    world, a, b = pair(wish=OFF)
    packet = build(here, there, UDP, 1234, 53, b"in clear")
    world.send(a, packet)
    world.run(1.0)
    assert b.packets == [packet]
    assert of_flows(world) == [packet]


def test_sst_14_who_asks_is_sealed_and_who_does_not_is_not() -> None:
    world, a, b = pair(wish=OFF)
    world.send(a, build(A4, B4, TCP, 40000, 22, flags=SYN), asked=True)
    world.send(a, build(A4, B4, TCP, 40001, 22, flags=SYN))
    world.run(4.0)
    assert sorted(seen.ports or () for seen in b.got) == [(40000, 22), (40001, 22)]
    assert [look(packet).flagged for packet in of_flows(world, TCP)] == [False, True]


@each_family
def test_sst_15_a_gateway_started_again_in_the_middle_opens_what_comes(
    here: str, there: str
) -> None:
    world, a, b = pair()
    talk(world, a, b, here, there, TCP, 40000)
    for gate in (b, a):
        gate.restart()
        gate.kernel.forget(None)  # type: ignore[arg-type]
        world.send(a, build(here, there, TCP, 40000, 22, gate.name.encode()))
        world.run(4.0)
        assert b.got[-1].ports == (40000, 22)
        assert b.got[-1].payload == gate.name.encode()
    assert all(look(packet).flagged for packet in of_flows(world))


@pytest.mark.parametrize("policy", list(Strangers))
def test_sst_16_a_flagged_packet_of_a_stranger(policy: Strangers) -> None:
    world, _a, b = pair(strangers=policy)
    forged = build(CAROL, B4, UDP, 1234, 5678, b"stranger", flagged=True)
    world.inject(forged)
    world.run(10.0)
    if policy is Strangers.PASS:
        assert b.packets == [forged]
    else:
        assert b.packets == []
        assert b.trace.drops["stranger"] == 1
    assert b.questions == [ip_address(CAROL)]


def test_sst_17_flags_from_inside_are_never_taken_for_ours() -> None:
    world, a, b = pair(wish=OFF)
    for here, there in PAIRS:
        world.send(a, build(here, there, UDP, 1234, 5678, b"evil", flagged=True))
    world.run(4.0)
    assert [seen.ports for seen in b.got] == [(1234, 5678)] * 2
    assert not any(look(packet).flagged for packet in of_flows(world))


@each_protocol
@each_family
def test_sst_18_answers_are_sealed_whatever_the_policy_says(
    here: str, there: str, protocol: int
) -> None:
    world = World()
    a = world.gate("a", A4, A6)
    b = world.gate("b", B4, B6, wish=OFF)
    talk(world, a, b, here, there, protocol, 40000)
    assert all(look(packet).flagged for packet in of_flows(world))
    # And after its process and its maps are gone: the connection remembers.
    b.restart()
    b.kernel.forget(None)  # type: ignore[arg-type]
    world.send(b, build(there, here, protocol, 22, 40000, b"more"))
    world.run(4.0)
    assert a.got[-1].payload == b"more"
    assert all(look(packet).flagged for packet in of_flows(world))


@each_protocol
@pytest.mark.parametrize("kinds", [UNREACHABLE, TOO_BIG, TIME_EXCEEDED])
@each_family
def test_sst_19_errors_about_sealed_packets_are_opened(
    here: str, there: str, kinds: dict[int, tuple[int, int]], protocol: int
) -> None:
    world, a, b = pair()
    talk(world, a, b, here, there, protocol, 40000)
    sent = next(packet for name, packet in reversed(world.wire) if name == "a")
    router = "203.0.113.1" if ":" not in here else "2001:db8:66::1"
    for quote in (28, 512) if ":" not in here else (512,):
        world.inject(icmp_error(sent, router, kinds, quote=quote))
        world.run(1.0)
        error = a.packets[-1]
        assert look(error).right
        quoted = look(quote_of(error), quoted=True)
        assert quoted.ports == (40000, 22)
        assert not quoted.flagged


@each_protocol
@each_family
def test_sst_20_errors_about_opened_packets_show_no_port_outside(
    here: str, there: str, protocol: int
) -> None:
    world, a, b = pair()
    talk(world, a, b, here, there, protocol, 40000)
    came = next(p for p in b.packets if look(p).ports == (40000, 22))
    wire = next(packet for name, packet in world.wire if name == "a" and packet in of_flows(world))
    world.send(b, icmp_error(came, there))
    world.run(1.0)
    outside = look(of_flows(world)[-1])
    assert outside.right
    assert not outside.flagged
    quoted = look(outside.body[8:], quoted=True)
    assert quoted.ports == look(wire).ports
    assert quoted.flagged
    assert look(quote_of(a.packets[-1]), quoted=True).ports == (40000, 22)


def test_sst_20_errors_about_clear_packets_are_left_alone() -> None:
    """Section 14.6: never by address alone."""
    world, _a, b = pair()
    clear = build(A4, B4, UDP, 40000, 53, b"in clear")
    world.inject(clear)
    world.run(1.0)
    error = icmp_error(clear, B4)
    world.send(b, error)
    world.run(4.0)
    assert of_flows(world) == [error]


@pytest.mark.parametrize(
    ("policy", "wish", "sealed", "clear"),
    [
        (Fragments.STRENGTH, ONLY, 0, 2),
        (Fragments.STRENGTH, REQUIRED, 0, 0),
        (Fragments.DROP, ONLY, 0, 0),
        (Fragments.CLEAR, REQUIRED, 0, 2),
        (Fragments.TRY, REQUIRED, 2, 0),
    ],
)
def test_sst_21_fragments_of_ipv4(policy: Fragments, wish: Wish, sealed: int, clear: int) -> None:
    world, a, b = pair(fragments=policy, wish=wish)
    talk(world, a, b, A4, B4, UDP, 40000)
    before = len(of_flows(world))
    body = segment(A4, B4, UDP, (40001, 22), bytes(1000))
    for offset in (0, 600):
        part = body[offset : offset + 600]
        more = offset == 0
        packet = around(part, A4, B4, UDP, offset=offset, more=more, dont_fragment=False)
        world.send(a, packet)
    world.run(4.0)
    flags = [look(packet, quoted=True).flagged for packet in of_flows(world)[before:]]
    assert flags == [True] * sealed + [False] * clear
    if sealed:
        first, later = b.got[-2:]
        assert first.ports == (40001, 22)
        assert first.body + later.body == body


def test_sst_21_fragments_of_ipv6_are_sealed() -> None:
    world, a, b = pair(wish=REQUIRED)
    talk(world, a, b, A6, B6, UDP, 40000)
    body = segment(A6, B6, UDP, (40001, 22), bytes(1000))
    for offset in (0, 600):
        world.send(
            a, around(body[offset : offset + 600], A6, B6, UDP, offset=offset, more=not offset)
        )
    world.run(4.0)
    assert [look(packet, quoted=True).flagged for packet in of_flows(world)[-2:]] == [True] * 2
    assert b.got[-2].body + b.got[-1].body == body


def strip(packet: bytes) -> list[tuple[float, bytes]]:
    return [(0.01, with_flag(packet, flagged=False))]


def drop_flagged(packet: bytes) -> list[tuple[float, bytes]]:
    return [] if look(packet, quoted=True).flagged else straight(packet)


@pytest.mark.parametrize(
    ("middle", "state"),
    [
        (strip, PathState.STRIPPED),
        (drop_flagged, PathState.DROPPED),
        (lambda packet: [], PathState.SILENT),
    ],
)
@pytest.mark.parametrize("wish", [ONLY, REQUIRED], ids=["opportunistic", "required"])
@each_family
def test_sst_29_a_path_that_does_not_keep_the_flag(
    here: str, there: str, wish: Wish, middle: object, state: PathState
) -> None:
    """`required` sends nothing in clear; `opportunistic` falls back, and says so."""
    world, a, _b = pair(wish=wish)
    world.middle = middle  # type: ignore[assignment]
    world.send(a, build(here, there, TCP, 40000, 22, flags=SYN))
    world.run(6.0)
    sent = [look(packet) for packet in of_flows(world)]
    if wish is REQUIRED:
        assert sent == []
        assert a.trace.drops["required"] == 1
    else:
        assert [seen.ports for seen in sent] == [(40000, 22)]
        assert not sent[0].flagged
    [path] = a.sealing.report(world.now).paths
    assert path.state is state
    assert any(
        event == "path_downgraded" and fields["state"] == state.value
        for _, event, fields in a.trace.lines
    )
    # It is probed again, and what was declined comes back.
    world.middle = straight
    for _ in range(30):
        world.run(10.0)
        world.send(a, build(here, there, TCP, 40000, 22, flags=SYN))
    world.run(5.0)
    assert look(of_flows(world)[-1]).flagged


@each_family
def test_sst_30_a_filter_of_port_22_stops_plain_flows_only(here: str, there: str) -> None:
    """The draft's final goal; scenario `sst-filter` has it with ssh and a real router."""

    def no_ssh(packet: bytes) -> list[tuple[float, bytes]]:
        return [] if 22 in (look(packet, quoted=True).ports or ()) else straight(packet)

    for wish in (OFF, ONLY):
        world, a, b = pair(wish=wish)
        world.middle = no_ssh
        world.send(a, build(here, there, TCP, 40000, 22, flags=SYN))
        world.run(4.0)
        assert [seen.ports for seen in b.got] == ([] if wish is OFF else [(40000, 22)])


@pytest.mark.parametrize("wish", [ONLY, REQUIRED], ids=["opportunistic", "required"])
@each_family
def test_sst_29_what_came_in_clear_is_not_answered_sealed(
    here: str, there: str, wish: Wish
) -> None:
    """Else anybody could ask what ports of his choice are sealed as (attacks.md)."""
    world, a, b = pair(wish=wish)
    talk(world, a, b, here, there, UDP, 40000)
    before = len(of_flows(world))
    world.inject(build(here, there, TCP, 40001, 993, flags=SYN))
    world.run(1.0)
    world.send(b, build(there, here, TCP, 993, 40001, flags=SYN | ACK))
    world.run(4.0)
    out = [look(packet) for packet in of_flows(world)[before:]]
    assert [seen.flagged for seen in out] == ([] if wish is REQUIRED else [False])


@pytest.mark.parametrize("word", ["none", "silence", "bogus"])
@pytest.mark.parametrize("wish", [ONLY, REQUIRED], ids=["opportunistic", "required"])
def test_sst_29_and_36_no_key(word: str, wish: Wish) -> None:
    world, a, _b = pair(wish=wish)
    world.records[ip_address(B4)] = Zone(word=word)
    world.send(a, build(A4, B4, TCP, 40000, 22, flags=SYN))
    world.run(6.0)
    assert [look(packet).ports for packet in of_flows(world)] == (
        [] if wish is REQUIRED else [(40000, 22)]
    )
    assert a.kernel.waiting == {}


def test_sst_36_what_waits_is_bounded_in_number_and_time() -> None:
    world, a, _b = pair(hold_packets=64, patience=2.0)
    for number in range(500):
        there = str(ip_address("198.51.100.8") + number % 100)
        world.records[ip_address(there)] = Zone(word="silence", delay=1000.0)
        world.send(a, build(A4, there, UDP, 40000 + number, 22, b"x"))
        assert a.sealing.report(world.now).held <= 64
        assert len(a.kernel.waiting) <= 64
    world.run(2.5)
    assert a.kernel.waiting == {}
    assert len(of_flows(world)) == 500


def test_sst_33_unsigned_keys_may_not_do() -> None:
    secure = Wish(Sst.ONLY, SstStrength.REQUIRED, secure=True)
    for trust in (Trust.INSECURE, Trust.SECURE):
        world, a, b = pair(wish=secure)
        world.publish(ip_address(B4), b, trust=trust)
        world.send(a, build(A4, B4, TCP, 40000, 22, flags=SYN))
        world.run(6.0)
        assert len(b.got) == (trust is Trust.SECURE)
        assert len(of_flows(world)) == (trust is Trust.SECURE)


@pytest.mark.parametrize("roller", ["a", "b"])
@each_family
def test_sst_35_midnight_and_another_key_break_no_flow(here: str, there: str, roller: str) -> None:
    world, a, b = pair(start=NOON + 43200 - 30)
    talk(world, a, b, here, there, TCP, 40000)
    world.run(60.0)  # midnight
    talk(world, a, b, here, there, TCP, 40001)
    talk(world, a, b, here, there, TCP, 40000)
    gate = a if roller == "a" else b
    gate.roll()
    gate.kernel.forget(None)  # type: ignore[arg-type]
    for _ in range(3):
        for port in (40000, 40001):
            talk(world, a, b, here, there, TCP, port)
        talk(world, b, a, there, here, TCP, 40002)
        world.run(2000.0)  # the peers' DNS tells of the new key after an hour
    assert all(look(packet).flagged for packet in of_flows(world))


def test_sst_35_epochs_may_be_off() -> None:
    world, a, b = pair(start=NOON + 43200 - 30, epochs=Epochs.OFF)
    talk(world, a, b, A4, B4, TCP, 40000)
    world.run(60.0)
    talk(world, a, b, A4, B4, TCP, 40000)
    here, there = of_flows(world)[0], of_flows(world)[2]
    assert look(here).ports == look(there).ports


def test_sst_37_the_algorithm_that_both_accept() -> None:
    for theirs, algorithm in ((("aes256",), 2), (("aes128",), 1), (("aes256", "aes128"), 1)):
        world = World()
        a = world.gate("a", A4, algorithms=("aes128", "aes256"))
        b = world.gate("b", B4, algorithms=theirs)
        numbers = {"aes128": 1, "aes256": 2}
        world.records[ip_address(B4)] = Zone(tuple(b.key(10, numbers[name]) for name in theirs))
        talk(world, a, b, A4, B4, TCP, 40000)
        [path] = a.sealing.report(world.now).paths
        assert path.algorithm == algorithm


def test_sst_38_outer_gateways_are_shielded() -> None:
    """Their own packets, IKE and ESP in UDP, are sealed between the two of them."""
    world, a, b = pair(wish=OFF)
    a.act(a.sealing.shield, 7, ip_address(A4), ip_address(B4))
    world.run(4.0)
    assert [(told.request, told.reason) for told in a.shielded] == [(7, None)]
    world.send(a, build(A4, B4, UDP, 4500, 4500, b"ike"))
    world.run(1.0)
    assert b.got[-1].ports == (4500, 4500)
    [packet] = of_flows(world)
    assert look(packet).flagged
    assert 4500 not in (look(packet).ports or ())
    a.obey(a.sealing.unshield(ip_address(A4), ip_address(B4)))
    assert a.kernel.shields == set()


def test_sst_31_hosts_behind_both_gateways() -> None:
    """The key is that of the host's record, which names its gateway."""
    world, a, b = pair()
    world.behind(a, "192.0.2.65")
    world.behind(b, "198.51.100.66")
    talk(world, a, b, "192.0.2.65", "198.51.100.66", TCP, 40000)
    assert all(look(packet).flagged for packet in of_flows(world))
    a.sealing.forget(ip_network("198.51.100.0/24"))
    a.directory.forget()
    talk(world, a, b, "192.0.2.65", "198.51.100.66", TCP, 40001)
