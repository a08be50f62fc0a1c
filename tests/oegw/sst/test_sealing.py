"""Port encryption from end to end, without kernel and network: see tests/support/sst_town.py."""

from __future__ import annotations

import random
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from dnsrecords.trust import Trust
from oegw.packet.ip import PacketError
from oegw.sst.holding import HELD_PER_HOST
from oegw.sst.interface import Algorithm, Leg, PathState, PortFlow, PortKey
from oegw.sst.memory import Connections
from oegw.sst.permutation import NotEligible, Permutation
from oegw.sst.place import place_of
from oegw.sst.probe import is_probe, packet_with, payload_of
from oegw.sst.relations import KeySource
from oegw.sst.settings import Epochs, Fragments, SstSettings, Strangers
from oegw.sst.shown import shown
from oegw.sst.signal import Signal
from policy.rule import Category, Require, Rule, Sst, SstStrength
from tests.support.sst_town import (
    DAY,
    GATE_A,
    GATE_B,
    HOST_A,
    HOST_A6,
    HOST_B,
    HOST_B6,
    INNER,
    KEY_A,
    KEY_B,
    NET_A,
    OFF,
    ONLY,
    REQUIRED,
    Town,
    nothing,
    records,
    silent,
    static_key,
    whole,
)
from tests.support.sst_wire import (
    ACK,
    SYN,
    TCP,
    TIME_EXCEEDED,
    TOO_BIG,
    UDP,
    UNREACHABLE,
    IPAddress,
    around,
    build,
    icmp_error,
    look,
    quote_of,
    segment,
)

PAIRS = {4: (HOST_A, HOST_B), 6: (HOST_A6, HOST_B6)}


def out(port: int = 40000, version: int = 4, protocol: int = TCP, payload: bytes = b"") -> bytes:
    """A packet from the host behind A to the ssh of the one behind B."""
    return build(*PAIRS[version], protocol, port, 22, payload, flags=SYN)


def back(port: int = 40000, version: int = 4, protocol: int = TCP, payload: bytes = b"") -> bytes:
    here, there = PAIRS[version]
    return build(there, here, protocol, 22, port, payload, flags=SYN | ACK)


def ports(packet: bytes) -> tuple[int, int] | None:
    return look(packet).ports


def stripped(packet: bytes) -> bytes:
    """A path that clears the flag."""
    return Signal().cleared(packet)


def without_flagged(packet: bytes) -> bytes | None:
    """A path that drops what is flagged."""
    return None if Signal().flagged(packet) else packet


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("protocol", [TCP, UDP])
def test_the_first_packet_leaves_sealed_and_arrives_as_it_was(version: int, protocol: int) -> None:
    """SST-13, SST-31: no clear port from the first packet on."""
    town = Town()
    packet = out(version=version, protocol=protocol)
    town.a.send(packet)
    town.run(1.0)
    assert town.b.delivered == [packet]
    (sealed,) = [look(each) for each in town.sealed_wire]
    assert sealed.flagged
    assert sealed.right
    assert sealed.ports is not None
    assert not {40000, 22} & set(sealed.ports)


@pytest.mark.parametrize("version", [4, 6])
def test_answers_are_sealed_though_no_policy_asks_for_it_sst_18(version: int) -> None:
    """B's rule says off."""
    town = Town(ONLY, OFF)
    town.a.send(out(version=version))
    town.run(1.0)
    town.b.send(back(version=version))
    town.run(1.0)
    assert town.a.delivered == [back(version=version)]
    there, answer = [look(each) for each in town.sealed_wire]
    assert answer.flagged
    assert there.ports is not None
    assert answer.ports == there.ports[::-1]  # the boxes between see an ordinary flow
    assert town.b.probes[1:] == []  # its only probe answers A's


def test_only_flows_that_ask_are_sealed_sst_14() -> None:
    town = Town(OFF, OFF)
    town.a.send(out(1))
    town.a.send(out(2), asked=True)
    town.run(1.0)
    clear, sealed = [look(each) for each in town.sealed_wire]
    assert (clear.flagged, clear.ports) == (False, (1, 22))
    assert sealed.flagged
    assert town.b.delivered == [out(1), out(2)]


def test_later_packets_do_not_come_up() -> None:
    town = Town()
    town.a.send(out())
    town.run(1.0)
    caught = len(town.a.plane.caught), len(town.b.plane.caught)
    for number in range(20):
        town.a.send(out(payload=bytes([number])))
        town.b.send(back(payload=bytes([number])))
    town.run(1.0)
    assert (len(town.a.plane.caught), len(town.b.plane.caught)) == caught
    assert len(town.a.delivered) == len(town.b.delivered) - 1 == 20


def test_the_path_is_probed_once_before_the_first_flow() -> None:
    town = Town()
    town.a.send(out(1))
    town.a.send(out(2))
    town.run(1.0)
    assert town.a.events.count("path_works") == 1
    assert [each.probe for each in town.wire] == [True, True, False, False]  # question, answer
    assert len(town.a.asked) == 1


def test_a_path_in_use_is_probed_again_and_one_that_is_not_rests() -> None:
    town = Town(settings=SstSettings(flow_lifespan=150.0))
    town.a.send(out())
    town.run(1.0)
    questions = len(town.a.probes)
    town.run(130.0)
    assert len(town.a.probes) == questions + 2
    town.run(1000.0)
    assert len(town.a.probes) == questions + 2


# ------------------------------------------------------------------ strength, and bad paths


def test_required_sends_nothing_and_opportunistic_falls_back_without_a_key_sst_29() -> None:
    for rule, sent in ((REQUIRED, []), (ONLY, [out()])):
        town = Town(rule)
        town.dns[HOST_B] = nothing()
        town.a.send(out())
        town.run(5.0)
        assert town.sealed_wire == town.b.delivered == sent
        assert town.a.events.count("declined") == len(sent)
        assert town.a.drops["required"] == 1 - len(sent)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("way", ["there", "back", "both"])
def test_a_path_that_strips_the_flag_is_noticed_in_either_direction(version: int, way: str) -> None:
    for rule, sent in ((REQUIRED, []), (ONLY, [out(version=version)])):
        town = Town(rule)
        if way != "back":
            town.a_to_b = stripped
        if way != "there":
            town.b_to_a = stripped
        town.a.send(out(version=version))
        town.run(5.0)
        assert town.sealed_wire == sent
        (downgrade,) = town.a.told("path_downgraded")
        assert (downgrade["state"], downgrade["family"]) == ("stripped", version)


def test_a_path_that_drops_flagged_packets_is_told_from_a_silent_peer() -> None:
    for path, state in ((without_flagged, "dropped"), (silent, "silent")):
        town = Town()
        town.a_to_b = path
        town.a.send(out())
        town.run(5.0)
        (downgrade,) = town.a.told("path_downgraded")
        assert downgrade["state"] == state
        assert town.sealed_wire == [out()]


def test_a_way_back_that_drops_flagged_packets_is_no_silence() -> None:
    town = Town()
    town.b_to_a = without_flagged
    town.a.send(out())
    town.run(5.0)
    assert [each["state"] for each in town.a.told("path_downgraded")] == ["dropped"]


def test_a_path_that_is_well_again_is_taken_again() -> None:
    town = Town()
    town.a_to_b = stripped
    town.a.send(out())
    town.run(5.0)
    town.a_to_b = whole
    town.run(65.0)
    assert town.a.told("path_works")[0]["before"] == "stripped"
    town.a.send(out(41000))
    town.a.send(out())  # the flow that was declined, too
    town.run(1.0)
    assert [look(each).flagged for each in town.sealed_wire] == [False, True, True]


def test_a_path_that_turns_bad_downgrades_new_flows_and_keeps_old_ones_sealed() -> None:
    town = Town()
    town.a.send(out(1))
    town.run(1.0)
    town.a_to_b = without_flagged
    town.run(130.0)
    assert [each["before"] for each in town.a.told("path_downgraded")] == ["works"]
    town.a.send(out(1))
    town.a.send(out(2))
    town.run(1.0)
    assert [look(each).flagged for each in town.sealed_wire[-2:]] == [True, False]


def test_two_lost_probes_downgrade_nothing() -> None:
    town = Town()
    town.a.send(out(1))
    town.run(1.0)
    lost = [2]

    def lossy(packet: bytes) -> bytes | None:
        if is_probe(packet) and lost[0]:
            lost[0] -= 1
            return None
        return packet

    town.a_to_b = lossy
    town.run(65.0)
    assert lost == [0]
    assert town.a.told("path_downgraded") == []


def test_status_tells_of_paths_and_fates() -> None:
    town = Town()
    town.a.send(out())
    town.run(1.0)
    (path,) = town.a.sealing.report(town.now).paths
    assert (str(path.gateway), path.family, path.state) == ("192.1.1.5", 4, PathState.WORKS)
    assert (path.day, path.source, path.trust) == (
        20_000, KeySource.DNS_ADDRESS, Trust.INSECURE,
    )  # fmt: skip
    assert path.last_probe == pytest.approx(1.0, abs=0.1)
    fate = town.a.sealing.report(town.now).fates[HOST_A, HOST_B]
    assert (fate.leg, fate.sealed, fate.reason) == (Leg.OUTSIDE, True, "")
    town.a_to_b = stripped
    town.run(65.0)
    town.a.send(out(2))
    fate = town.a.sealing.report(town.now).fates[HOST_A, HOST_B]
    assert (fate.sealed, fate.reason) == (False, "path stripped")


# ------------------------------------------------------------------------- DNS (SST-36)


def test_a_dead_dns_holds_for_a_while_and_then_policy_decides_sst_36() -> None:
    for rule, sent in ((REQUIRED, []), (ONLY, [out()])):
        town = Town(rule)
        town.dns_delay = None
        town.a.send(out())
        town.run(2.9)
        assert (town.sealed_wire, len(town.a.plane.waiting)) == ([], 1)
        town.run(0.2)
        assert (town.sealed_wire, len(town.a.plane.waiting)) == (sent, 0)


def test_a_slow_dns_is_waited_for() -> None:
    town = Town(REQUIRED)
    town.dns_delay = 2.0
    town.a.send(out())
    town.run(2.5)
    assert town.b.delivered == []  # B does not know A's key for probes yet
    town.dns_delay = 0.1
    town.run(3.0)
    town.a.send(out())
    town.run(4.0)
    assert out() in town.b.delivered


def test_an_answer_that_comes_too_late_helps_the_next_packet() -> None:
    town = Town(REQUIRED)
    town.dns_delay = 4.0
    town.a.send(out())
    town.run(10.0)
    assert town.sealed_wire == []
    assert town.a.drops["required"] == 1
    for _ in range(3):  # B must find two keys: the one of A's gateway, and that of its host
        town.a.send(out())
        town.run(10.0)
    assert town.b.delivered == [out()]


def test_held_packets_are_bounded_for_a_host_and_in_all() -> None:
    town = Town(REQUIRED, settings=SstSettings(hold_packets=40))
    town.dns_delay = None
    for port in range(1, 30):
        town.a.send(out(port))
    assert len(town.a.plane.waiting) == HELD_PER_HOST
    for number in range(100):
        town.a.send(build(HOST_A, f"198.18.0.{number}", TCP, 5000, 22))
    assert len(town.a.plane.waiting) == 40
    town.run(5.0)
    assert town.a.plane.waiting == {}
    assert town.sealed_wire == []


def test_a_key_that_appears_is_taken_up_when_the_negative_answer_has_run_out() -> None:
    town = Town()
    found, town.dns[HOST_B] = town.dns[HOST_B], nothing(ttl=30.0)
    town.a.send(out())
    town.run(1.0)
    town.dns[HOST_B] = found
    town.a.send(out())
    assert town.a.asked == [HOST_B]  # the negative answer is remembered
    town.run(65.0)
    town.a.send(out())
    town.run(1.0)
    assert [look(each).flagged for each in town.sealed_wire] == [False, False, True]


def test_signed_keys_can_be_demanded() -> None:
    """SST-33."""
    for trust, flagged in ((Trust.INSECURE, False), (Trust.SECURE, True)):
        town = Town(replace(ONLY, require=Require.SECURE))
        town.dns[HOST_B] = records(GATE_B, KEY_B, trust=trust)
        town.a.send(out())
        town.run(1.0)
        assert [look(each).flagged for each in town.sealed_wire] == [flagged]


def test_prepared_flows_wait_for_nothing() -> None:
    town = Town()
    town.a.follow(town.a.sealing.prepare(HOST_B, town.now, town.a.wall))
    town.run(1.0)
    town.a.send(out())
    assert [look(each).flagged for each in town.sealed_wire] == [True]


# ---------------------------------------------------------------------------- strangers


def test_flagged_packets_of_strangers_are_dropped_or_passed_and_counted_sst_16() -> None:
    flagged = build("198.18.0.1", HOST_B, TCP, 1234, 5678, flagged=True)
    for strangers, delivered in ((Strangers.DROP, []), (Strangers.PASS, [flagged])):
        town = Town(settings=SstSettings(strangers=strangers))
        town.b.arrive(flagged)
        town.run(1.0)
        assert town.b.delivered == delivered
        assert town.b.drops["stranger"] == 1 - len(delivered)
        assert town.b.asked == [ip_address("198.18.0.1")]


def test_one_stranger_costs_one_question() -> None:
    town = Town()
    for port in range(1, 50):
        town.b.arrive(build("198.18.0.1", HOST_B, UDP, port, 5678, flagged=True))
    town.run(1.0)
    for port in range(1, 50):
        town.b.arrive(build("198.18.0.1", HOST_B, UDP, port, 5678, flagged=True))
    town.run(1.0)
    assert len(town.b.asked) == 1
    assert town.b.drops["stranger"] == 98


def test_a_flood_of_forged_sources_is_bounded_sst_36() -> None:
    town = Town(settings=SstSettings(hold_packets=64))
    town.dns_delay = None
    for number in range(5000):
        source = f"198.18.{number // 250}.{number % 250 + 1}"
        town.b.arrive(build(source, HOST_B, UDP, 1000, 5678, flagged=True))
        assert len(town.b.plane.waiting) <= 32
    assert len(town.b.asked) <= 100
    assert town.b.sealing.report(town.now).hosts == 0
    town.run(5.0)
    assert town.b.plane.waiting == {}
    assert town.b.delivered == []


def test_a_flood_of_probes_from_forged_sources_is_bounded() -> None:
    town = Town()
    town.dns_delay = None
    town.a.follow(town.a.sealing.prepare(HOST_B, town.now, town.a.wall))
    other = Town()
    other.a.follow(other.a.sealing.prepare(HOST_B, 0.0, other.a.wall))
    other.run(1.0)
    payload, _ = payload_of(other.a.probes[0])
    for number in range(2000):
        source = ip_address(f"198.18.{number // 250}.{number % 250 + 1}")
        town.b.arrive(packet_with(payload, source, GATE_B, (1, 2), Signal(), flagged=True))
    assert len(town.b.asked) <= 100
    town.run(5.0)
    assert town.b.plane.waiting == {}
    assert town.b.probes == []


def test_random_ports_of_a_known_host_do_not_fill_the_fast_path() -> None:
    town = Town(settings=SstSettings(flows=64))
    town.a.send(out())
    town.run(1.0)
    for number in range(1000):
        packet = build(HOST_A, HOST_B, UDP, 1000 + number, 5678, flagged=True)
        town.b.arrive(packet)
    assert len(town.b.plane.entries) <= 17
    assert len(town.b.delivered) == 1001  # opened all the same, to random ports
    town.b.send(back())
    town.run(1.0)
    assert look(town.sealed_wire[-1]).flagged


# ------------------------------------------------------------------------ epochs and keys


def test_a_flow_keeps_its_epoch_over_midnight_and_new_ones_get_the_new_day_sst_35() -> None:
    town = Town()
    town.a.send(out(1))
    town.run(1.0)
    first = ports(town.sealed_wire[-1])
    town.run(DAY / 2)
    town.a.send(out(1, payload=b"late"))
    town.a.send(out(2))
    town.run(1.0)
    assert town.b.delivered[1:] == [out(1, payload=b"late"), out(2)]
    assert ports(town.sealed_wire[-2]) == first
    epochs = [entry.epoch for entry, _ in town.a.plane.entries.values()]
    assert sorted(epochs) == [20_000 % 4, 20_001 % 4]
    assert town.b.told("announced")[-1]["day"] == 20_001


@pytest.mark.parametrize("skew", [-240.0, 240.0])
def test_clocks_may_differ_by_minutes_at_midnight(skew: float) -> None:
    town = Town(skew_b=skew)
    minute = 0
    sent = []
    town.run(DAY / 2 - 600)
    while minute < 20:  # ten minutes before midnight until ten minutes after
        sent += [out(1000 + minute), out(1)]
        town.a.send(sent[-2])
        town.a.send(sent[-1])
        town.run(1.0)
        town.b.send(back(1000 + minute))
        town.run(59.0)
        minute += 1
    assert sorted(town.b.delivered) == sorted(sent)
    assert town.a.delivered == [back(1000 + each) for each in range(20)]
    assert all(look(each).flagged for each in town.sealed_wire)
    assert town.a.told("path_downgraded") == []


def test_without_epochs_the_key_does_not_change_with_the_day() -> None:
    town = Town(settings=SstSettings(epochs=Epochs.OFF, flow_lifespan=10.0))
    town.a.send(out())
    town.run(3 * DAY)
    town.a.send(out())
    town.run(1.0)
    first, last = town.sealed_wire
    assert ports(first) == ports(last)


def test_a_new_key_of_ours_is_used_when_the_peer_has_it_sst_35() -> None:
    """B still has the old record in its cache: A goes on with the old key until that runs out."""
    new = static_key(3003)
    town = Town(own_a=(KEY_A,))
    town.a.send(out(1))
    town.run(1.0)
    town.a.stop()
    town.a.own = (new, KEY_A)
    town.publish(new, KEY_A)
    town.a.start()
    town.a.send(out(1, payload=b"more"))
    town.a.send(out(2))
    town.run(5.0)
    assert town.b.delivered[1:] == [out(1, payload=b"more"), out(2)]
    assert town.a.sealing.report(town.now).paths[0].state is PathState.WORKS
    town.run(3600.0)  # the record's TTL
    for port in (3, 4, 5, 6):
        town.a.send(out(port))
        town.run(70.0)
    assert town.b.delivered[3:] == [out(port) for port in (3, 4, 5, 6)]
    (peer,) = [p for p in town.b.sealing.report(town.now).paths if p.key == new.key_id.hex()]
    assert peer.peer_day == 20_000


def test_a_peers_new_key_is_taken_up_and_its_old_flows_go_on_sst_35() -> None:
    new = static_key(3003)
    town = Town(own_b=(KEY_B,))
    town.a.send(out(1))
    town.run(1.0)
    town.b.stop()
    town.b.own = (new, KEY_B)
    town.publish(new, KEY_B)
    town.b.start()
    town.run(3700.0)
    town.a.send(out(1, payload=b"more"))
    town.a.send(out(2))
    town.run(5.0)
    assert sorted(town.b.delivered[1:]) == sorted([out(1, payload=b"more"), out(2)])
    used = [p.key for p in town.a.sealing.report(town.now).paths if p.used]
    assert new.key_id.hex() in used


def test_a_peer_that_says_a_new_key_is_asked_before_a_new_flow_gets_the_old_one_sst_35() -> None:
    """B was started again, and expects its new key of whoever has not told it otherwise since."""
    new = static_key(3003)
    town = Town(own_b=(KEY_B,))
    town.a.send(out(1))
    town.run(1.0)
    town.b.stop()
    town.b.own = (new, KEY_B)
    town.publish(new, KEY_B)
    town.b.start()
    town.b.send(back(1))  # so A hears of the new key; of the host's it has the old record
    town.run(1.0)
    town.a.send(out(2))
    town.run(5.0)
    assert town.b.delivered[-1] == out(2)
    assert town.a.told("announced")


def test_a_key_that_the_peer_no_longer_has_is_not_announced_again() -> None:
    """Else B would hear of the old and of the new one by turns, and guess for each new flow."""
    new = static_key(3003)
    town = Town(own_b=(KEY_B,))
    town.a.send(out(1))
    town.run(3590.0)
    town.a.send(out(2))  # the path by the old key is in use
    town.run(1.0)
    town.b.stop()
    town.b.own = (new, KEY_B)
    town.publish(new, KEY_B)
    town.b.start()
    town.run(60.0)  # the record's TTL is over
    for port in (3, 4):  # the DNS is asked for the first one's sake
        town.a.send(out(port))
        town.run(1.0)
    del town.a.probes[:]
    town.run(300.0)
    assert any(new.key_id in probe for probe in town.a.probes)
    assert not [probe for probe in town.a.probes if KEY_B.key_id in probe]
    town.a.send(out(5))
    town.run(1.0)
    assert town.b.delivered[-3:] == [out(3), out(4), out(5)]


def test_a_new_key_and_a_new_day_at_once_leave_old_flows_alone_sst_35() -> None:
    """B, started again with another key, knows the day of an old flow, and no more of its key."""
    new = static_key(3003)
    town = Town(own_b=(KEY_B,))
    town.a.send(out())
    town.run(1.0)
    town.b.send(back())
    town.run(DAY / 2)
    town.a.send(out(2))
    town.run(1.0)
    town.b.stop()
    town.b.own = (new, KEY_B)
    town.publish(new, KEY_B)
    town.b.start()
    town.b.send(back(2, payload=b"first"))  # so that each hears of the other
    town.run(3700.0)
    town.b.send(back(payload=b"second"))
    town.run(5.0)
    assert town.a.delivered[-1] == back(payload=b"second")
    town.a.send(out(payload=b"third"))
    town.run(5.0)
    assert town.b.delivered[-1] == out(payload=b"third")


def test_the_preferred_algorithm_that_both_have_is_used() -> None:
    """SST-37."""
    town = Town(settings=SstSettings(algorithms=("aes256", "aes128")))
    town.dns[HOST_B] = records(GATE_B, KEY_B, 1, 2)
    town.a.send(out())
    town.run(1.0)
    assert town.b.delivered == [out()]
    assert town.a.sealing.report(town.now).paths[0].algorithm is Algorithm.FF1_AES_256


# ------------------------------------------------------------------------------ restarts


@pytest.mark.parametrize("who", ["a", "b", "both"])
def test_a_flow_goes_on_over_a_restart_sst_15(who: str) -> None:
    """Even if the day has changed meanwhile, and even for the answers, which no policy wants."""
    town = Town()
    town.a.send(out())
    town.run(1.0)
    town.b.send(back())
    town.run(DAY / 2)
    for side in (town.a, town.b):
        if who in (side.name, "both"):
            side.stop()
            side.start()
    if who != "a":  # B's answer first: nobody has told it anything
        town.b.send(back(payload=b"2"))
        town.run(5.0)
        assert town.a.delivered[-1] == back(payload=b"2")
    town.a.send(out(payload=b"3"))
    town.run(5.0)
    town.b.send(back(payload=b"4"))
    town.run(5.0)
    assert town.b.delivered[-1] == out(payload=b"3")
    assert town.a.delivered[-1] == back(payload=b"4")
    assert all(look(each).flagged for each in town.sealed_wire)
    assert ports(town.sealed_wire[0]) == ports(town.sealed_wire[-2])


def test_a_restart_needs_no_probe_to_open() -> None:
    town = Town()
    town.a.send(out())
    town.run(1.0)
    town.b.stop()
    town.b.start()
    town.a.send(out(payload=b"more"))
    town.a.send(out(41000))
    town.run(1.0)
    assert town.b.delivered[1:] == [out(payload=b"more"), out(41000)]


def test_a_sealed_answer_without_its_key_does_not_leave_in_clear_sst_18() -> None:
    town = Town()
    town.a.send(out())
    town.run(1.0)
    town.b.stop()
    town.b.start()
    town.dns_delay = None
    town.b.send(back())
    town.run(5.0)
    assert len(town.sealed_wire) == 1
    assert town.b.drops["sticky_without_key"] == 1


def test_a_guess_is_looked_at_again_when_the_peer_says_what_it_uses() -> None:
    """A's clock is ahead: its new flows have tomorrow's key, and B has forgotten that it heard."""
    town = Town(skew_a=600.0)
    town.run(DAY / 2 - 300)
    town.a.send(out(1))
    town.run(1.0)
    town.b.stop()
    town.b.start()
    town.a.send(out(2))
    town.run(1.0)
    assert town.b.delivered[-1] != out(2)  # opened with today's, to random ports
    town.run(65.0)
    town.a.send(out(2))
    town.run(1.0)
    assert town.b.delivered[-1] == out(2)


# ---------------------------------------------------------------------- quotes, fragments


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("kinds", [TOO_BIG, UNREACHABLE, TIME_EXCEEDED])
def test_errors_about_sealed_packets_reach_their_sender_as_about_his_own_sst_19(
    version: int, kinds: dict[int, tuple[int, int]]
) -> None:
    town = Town()
    town.a.send(out(version=version))
    town.run(1.0)
    router = "198.51.100.1" if version == 4 else "2001:db8:ffff::1"
    town.a.arrive(icmp_error(town.sealed_wire[0], router, kinds))
    (error,) = town.a.delivered
    assert look(error).right
    quoted = look(quote_of(error), quoted=True)
    assert (quoted.ports, quoted.flagged) == ((40000, 22), False)


@pytest.mark.parametrize("version", [4, 6])
def test_errors_from_behind_us_show_no_port_outside_sst_20(version: int) -> None:
    town = Town()
    packet = out(version=version, protocol=UDP, payload=b"hello")
    town.a.send(packet)
    town.run(1.0)
    town.b.send(icmp_error(packet, PAIRS[version][1]))
    town.run(1.0)
    error = town.sealed_wire[-1]
    assert look(error).right
    assert not look(error).flagged
    quoted = look(quote_of(error), quoted=True)
    assert (quoted.ports, quoted.flagged) == (ports(town.sealed_wire[0]), True)
    assert town.a.delivered == [icmp_error(packet, PAIRS[version][1])]


def test_an_error_about_a_clear_flow_stays_as_it_is() -> None:
    town = Town(OFF, OFF)
    town.a.send(out(protocol=UDP))
    town.run(1.0)
    error = icmp_error(out(protocol=UDP), HOST_B)
    town.b.send(error)
    assert town.sealed_wire[-1] == error


def test_errors_about_flows_that_connection_tracking_has_forgotten_show_no_port() -> None:
    """A late error, about a datagram that nobody answered: what we opened we still know, and after
    a restart strength decides."""
    packet = out(protocol=UDP, payload=b"late")
    for rule, restarted, seen in (
        (OFF, False, "sealed"), (OFF, True, "clear"),
        (REQUIRED, False, "sealed"), (REQUIRED, True, "nothing"),
    ):  # fmt: skip
        town = Town(ONLY, rule)
        town.a.send(packet)
        town.run(1.0)
        town.b.connections = Connections()
        town.b.plane.connections = town.b.connections
        if restarted:
            town.b.stop()
            town.b.start()
        before = len(town.sealed_wire)
        town.b.send(icmp_error(packet, HOST_B))
        left = town.sealed_wire[before:]
        if seen == "nothing":
            assert left == []
            assert town.b.drops["quote_of_nothing"] == 1
            continue
        (error,) = left
        assert (look(quote_of(error), quoted=True).ports == (40000, 22)) is (seen == "clear")


def test_a_quote_of_nothing_that_we_know_is_dropped() -> None:
    town = Town()
    town.a.send(out())
    town.run(1.0)
    forged = build(HOST_A, HOST_B, TCP, 1111, 2222, flagged=True)
    town.a.arrive(icmp_error(forged, "198.51.100.1"))
    assert town.a.delivered == []
    assert town.a.drops["quote_of_nothing"] == 1


@pytest.mark.parametrize(
    ("policy", "rule", "left"),
    [
        (Fragments.STRENGTH, ONLY, "clear"),
        (Fragments.STRENGTH, REQUIRED, "nothing"),
        (Fragments.CLEAR, REQUIRED, "clear"),
        (Fragments.DROP, ONLY, "nothing"),
        (Fragments.TRY, REQUIRED, "sealed"),
    ],
)
def test_fragments_of_ipv4_follow_their_policy(policy: Fragments, rule: Rule, left: str) -> None:
    """SST-21."""
    town = Town(rule, settings=SstSettings(fragments=policy))
    body = segment(HOST_A, HOST_B, UDP, (40000, 53), bytes(1200))
    pieces = [
        around(body[:600], HOST_A, HOST_B, UDP, dont_fragment=False, more=True),
        around(body[600:], HOST_A, HOST_B, UDP, dont_fragment=False, offset=600),
    ]
    for piece in pieces:
        town.a.send(piece)
        town.run(1.0)
    if left == "nothing":
        assert town.sealed_wire == []
        assert town.a.drops["fragment"] == 2
    elif left == "clear":
        assert town.sealed_wire == pieces
        assert town.a.events.count("fragment_clear") == 2
    else:
        assert [look(each).flagged for each in town.sealed_wire] == [True, True]
        assert ports(town.sealed_wire[0]) != (40000, 53)
        assert town.b.delivered == pieces


# ---------------------------------------------------------- full map, not eligible, routing


def test_a_full_map_means_the_slow_path_and_the_same_octets() -> None:
    fast, slow = Town(), Town(settings=SstSettings(flows=1))
    for town in (fast, slow):
        for port in (1, 2, 3):
            town.a.send(out(port))
            town.run(1.0)
            town.b.send(back(port))
            town.run(1.0)
    assert slow.sealed_wire == fast.sealed_wire
    assert slow.b.delivered == fast.b.delivered
    assert slow.a.delivered == fast.a.delivered == [back(1), back(2), back(3)]
    assert len(slow.a.plane.entries) == 1


def test_what_has_no_ports_to_seal_is_dropped_or_declined_by_strength() -> None:
    """A port of 0, and SCTP (sst.md section 14.7)."""
    sctp = around(bytes((0x10, 0, 0, 22)) + bytes(8), HOST_A, HOST_B, 132)
    for packet, trigger in (
        (build(HOST_A, HOST_B, UDP, 0, 53), "sst_port_zero"),
        (sctp, "sst_sctp"),
    ):
        for rule, sent in ((ONLY, [packet]), (REQUIRED, [])):
            town = Town(rule)
            town.a.send(packet)
            town.run(1.0)
            assert town.sealed_wire == sent
            assert town.a.told("not_eligible")[0]["trigger"] == trigger
            assert town.a.drops[trigger] == 1 - len(sent)


def test_a_translated_source_is_what_is_sealed() -> None:
    """Behind source NAT the packet has our outer address, and so has its key."""
    town = Town()
    packet = build(GATE_A, HOST_B, TCP, 40000, 22)
    town.a.send(packet)
    town.run(1.0)
    assert town.b.delivered == [packet]
    town.b.send(build(HOST_B, GATE_A, TCP, 22, 40000))
    town.run(1.0)
    assert town.a.delivered == [build(HOST_B, GATE_A, TCP, 22, 40000)]
    assert all(look(each).flagged for each in town.sealed_wire)


def test_a_packet_with_a_routing_header_goes_by_its_final_destination() -> None:
    via = ip_address("2001:db8:2::99")
    header = (43, bytes((2, 1)) + bytes(4) + HOST_B6.packed)
    body = segment(HOST_A6, HOST_B6, TCP, (40000, 22))
    packet = around(body, HOST_A6, via, TCP, extensions=(header,))
    town = Town()
    town.a.send(packet)
    town.run(1.0)
    assert town.b.delivered == [packet]
    assert town.a.plane.entries == {}  # the kernel would look for another destination


def test_many_hosts_of_one_stranger_leave_half_of_the_fast_path_to_others() -> None:
    """Whoever has a reverse zone has many hosts, each with a key."""
    town = Town(settings=SstSettings(flows=64, flow_lifespan=600.0))
    rng = random.Random(6)
    hosts = [ip_address(f"192.2.0.{number}") for number in range(100, 132)]
    for each in hosts:
        town.dns[each] = records(GATE_B, KEY_B)
    for each in hosts * 8:
        ports_ = rng.randrange(1, 65536), rng.randrange(1, 65536)
        town.a.arrive(build(each, HOST_A, UDP, *ports_, b"?", flagged=True))
        town.run(2.0)
    assert len(town.a.delivered) == 256  # each is opened
    assert 0 < len(town.a.plane.entries) <= 32
    town.a.send(out())
    town.run(1.0)
    assert (Leg.OUTSIDE, PortFlow(HOST_A, HOST_B, TCP, 40000, 22)) in town.a.plane.entries


def test_a_timer_that_comes_when_a_path_is_no_longer_used_does_not_come_again() -> None:
    """The next probe is due a moment before its use ends, and the loop was busy for that long."""
    town = Town(settings=SstSettings(probe_interval=600.0, flow_lifespan=600.0))
    town.a.send(out())
    town.run(1.0)
    (path,) = town.a.sealing._books.paths
    due = town.a.sealing.next_timer()
    assert due is not None
    assert due < path.used_until < due + 0.1
    late = path.used_until + 0.001
    town.a.sealing.handle_timer(late, town.a.wall)
    assert town.a.sealing.next_timer() is None
    town.now = late
    town.a.send(out(2))
    town.run(1.0)
    assert town.b.delivered == [out(), out(2)]
    assert len(town.a.probes) == 2


# ------------------------------------------------------------------------------- tunnels


def test_what_is_dropped_for_want_of_a_key_is_told() -> None:
    town = Town(REQUIRED)
    town.dns_delay = None
    town.a.send(out())
    town.run(10.0)
    assert town.sealed_wire == []
    (row,) = shown(town.a.sealing.report(town.now), town.now)["pairs"]
    assert (row["sealed"], row["dropped"]) == (False, True)
    assert row["reason"]


def test_in_a_tunnel_ikes_key_takes_the_place_of_the_dns_key_sst_34() -> None:
    town = Town(INNER)
    town.tunnel(1, bytes(range(16)))
    town.a.send(out(), Leg.TUNNEL)
    town.run(1.0)
    town.b.send(back(), Leg.TUNNEL)
    town.run(1.0)
    assert (town.b.delivered, town.a.delivered) == ([out()], [back()])
    assert town.a.asked == town.b.asked == []
    assert town.a.probes == []
    permutation = Permutation(PortKey(Algorithm.FF1_AES_128, bytes(range(16))))
    assert ports(town.sealed_wire[0]) == permutation.seal_ports(
        HOST_A.packed, HOST_B.packed, TCP, 40000, 22
    )


def test_nothing_is_sealed_in_a_tunnel_until_the_peer_has_the_key() -> None:
    town = Town(INNER)
    town.tunnel(1, bytes(16), sending=False)
    town.a.send(out(), Leg.TUNNEL)
    town.run(1.0)
    assert town.wire == []
    town.a.follow(town.a.sealing.send_sealed(1, town.now, town.a.wall))
    town.run(1.0)
    assert town.b.delivered == [out()]
    assert look(town.sealed_wire[0]).flagged


def test_a_new_key_in_the_tunnel_leaves_flows_with_theirs_sst_35() -> None:
    town = Town(INNER)
    town.tunnel(1, bytes(16))
    town.a.send(out(1), Leg.TUNNEL)
    town.run(1.0)
    town.tunnel(2, bytes(range(16)))
    for side in (town.a, town.b):
        side.follow(side.sealing.tunnel_closed(1, town.now))
    town.run(700.0)  # the entries are gone
    town.a.send(out(1), Leg.TUNNEL)
    town.a.send(out(2), Leg.TUNNEL)
    town.run(1.0)
    assert town.b.delivered == [out(1), out(1), out(2)]
    first, second, third = map(ports, town.sealed_wire)
    assert first == second
    assert town.b.plane.entries[Leg.TUNNEL, PortFlow(HOST_B, HOST_A, TCP, 22, 2)][0].epoch == 1
    assert third is not None


def test_esp_rekeys_do_not_touch_the_key() -> None:
    town = Town(INNER)
    town.tunnel(1, bytes(16))
    town.a.send(out(1), Leg.TUNNEL)
    town.run(1.0)
    town.tunnel(2, bytes(16))
    for side in (town.a, town.b):
        side.follow(side.sealing.tunnel_closed(1, town.now))
    town.a.send(out(1), Leg.TUNNEL)
    town.run(1.0)
    assert len({ports(each) for each in town.sealed_wire}) == 1
    assert len(town.a.plane.caught) == 1


def test_when_the_last_tunnel_goes_flows_take_the_next_ones_key() -> None:
    """The peer may have lost all it had."""
    town = Town(INNER)
    town.tunnel(1, bytes(16))
    town.a.send(out(1), Leg.TUNNEL)
    town.run(1.0)
    for side in (town.a, town.b):
        side.follow(side.sealing.tunnel_closed(1, town.now))
    town.b.stop()
    town.b.start()
    town.tunnel(2, bytes(range(16)))
    town.a.send(out(1), Leg.TUNNEL)
    town.run(1.0)
    assert town.b.delivered == [out(1), out(1)]
    first, second = map(ports, town.sealed_wire)
    assert first != second


def test_without_a_key_in_the_tunnel_strength_decides() -> None:
    for rule, sent in ((INNER, [out()]), (replace(INNER, sst_strength=SstStrength.REQUIRED), [])):
        town = Town(rule)
        town.a.send(out(), Leg.TUNNEL)
        town.run(1.0)
        assert town.sealed_wire == sent


@pytest.mark.parametrize("strength", list(SstStrength))
def test_a_flow_that_was_sealed_goes_on_in_a_tunnel_without_a_key_and_comes_back(
    strength: SstStrength,
) -> None:
    """An opportunistic rule with ``only``: the tunnel comes while a flow is under way, and goes."""
    opportunistic = Rule("only", Category.OPPORTUNISTIC, sst=Sst.ONLY, sst_strength=strength)
    town = Town(opportunistic, OFF)
    for leg in (Leg.OUTSIDE, Leg.TUNNEL, Leg.OUTSIDE):
        town.a.send(out(), leg)
        town.run(1.0)
        town.b.send(back(), leg)
        town.run(1.0)
    assert (town.b.delivered, town.a.delivered) == ([out()] * 3, [back()] * 3)
    flags = [look(each.packet).flagged for each in town.wire if not each.probe]
    assert flags == [True, True, False, False, True, True]
    assert town.a.drops["sticky_without_key"] == town.b.drops["sticky_without_key"] == 0


@pytest.mark.parametrize("kept", ["entries", "marks"])
def test_an_answer_may_go_into_a_tunnel_that_has_no_key(kept: str) -> None:
    """B has no rule for answers but the default one, which has a tunnel; ESP hides their ports."""
    town = Town(ONLY, OFF)
    town.a.send(out())
    town.run(1.0)
    if kept == "marks":
        town.b.stop()
        town.b.start()
    town.b.send(back(), Leg.TUNNEL)
    town.run(1.0)
    assert town.a.delivered == [back()]
    assert town.b.drops == {}
    error = icmp_error(out(), HOST_B)
    town.b.send(error, Leg.TUNNEL)
    town.run(1.0)
    assert town.a.delivered == [back(), error]


def test_where_ports_in_a_tunnel_are_required_no_answer_goes_without() -> None:
    town = Town(ONLY, replace(INNER, sst_strength=SstStrength.REQUIRED))
    town.a.send(out())
    town.run(1.0)
    town.b.send(back(), Leg.TUNNEL)
    town.run(1.0)
    assert town.a.delivered == []
    assert town.b.drops["required"] == 1


@pytest.mark.parametrize("strength", list(SstStrength))
def test_where_the_next_tunnel_has_no_key_strength_decides_about_flows_under_way(
    strength: SstStrength,
) -> None:
    town = Town(replace(INNER, sst_strength=strength))
    town.tunnel(1, bytes(16))
    town.a.send(out(), Leg.TUNNEL)
    town.run(1.0)
    for side in (town.a, town.b):
        side.follow(side.sealing.tunnel_closed(1, town.now))
    town.a.send(out(), Leg.TUNNEL)
    town.run(1.0)
    goes_on = strength is SstStrength.OPPORTUNISTIC
    assert town.b.delivered == [out()] * (1 + goes_on)
    assert town.a.drops["required"] == (not goes_on)


# ------------------------------------------------------------------------------- shields


def keying(source: IPAddress, destination: IPAddress, payload: bytes = b"ike") -> bytes:
    return build(source, destination, UDP, 4500, 4500, payload)


def test_ike_between_gateways_is_shielded_and_answered_so() -> None:
    town = Town(OFF)
    town.a.send(keying(GATE_A, GATE_B), own=True)
    assert not look(town.sealed_wire[0]).flagged
    town.a.follow(town.a.sealing.shield(1, GATE_A, GATE_B, town.now, town.a.wall))
    town.run(1.0)
    assert town.a.shielded == [(1, None)]
    town.a.send(keying(GATE_A, GATE_B, b"first"), own=True)
    town.run(1.0)
    assert look(town.sealed_wire[-1]).flagged
    assert town.b.delivered[-1] == keying(GATE_A, GATE_B, b"first")
    assert town.b.sealing.came_shielded(GATE_B, GATE_A, town.now)
    town.b.send(keying(GATE_B, GATE_A, b"answer"), own=True)
    town.run(1.0)
    assert look(town.sealed_wire[-1]).flagged
    assert town.a.delivered == [keying(GATE_B, GATE_A, b"answer")]


def test_a_shield_that_cannot_be_had_says_why() -> None:
    town = Town(OFF)
    town.dns[GATE_B] = nothing()
    town.a.follow(town.a.sealing.shield(7, GATE_A, GATE_B, town.now, town.a.wall))
    town.run(1.0)
    ((request, reason),) = town.a.shielded
    assert request == 7
    assert reason is not None
    assert "no key" in reason


def test_a_shield_waits_no_longer_than_packets_do() -> None:
    town = Town(OFF)
    town.dns_delay = None
    town.a.follow(town.a.sealing.shield(7, GATE_A, GATE_B, town.now, town.a.wall))
    town.run(3.5)
    assert town.a.shielded == [(7, "no answer in time")]


def test_unshielded_gateways_are_in_clear_again() -> None:
    town = Town(OFF)
    town.a.follow(town.a.sealing.shield(1, GATE_A, GATE_B, town.now, town.a.wall))
    town.run(1.0)
    town.a.follow(town.a.sealing.unshield(GATE_A, GATE_B))
    town.a.send(keying(GATE_A, GATE_B), own=True)
    assert not look(town.sealed_wire[-1]).flagged


# ------------------------------------------------------------------ operator, and bad input


def test_another_policy_keeps_flows_and_forgets_what_was_declined() -> None:
    town = Town()
    town.a.send(out(1))
    found, town.dns[HOST_B] = town.dns[HOST_B], nothing(ttl=30.0)
    town.run(1.0)
    assert not look(town.sealed_wire[-1]).flagged
    town.dns[HOST_B] = found
    town.run(31.0)
    town.a.use_rule(REQUIRED)
    town.a.send(out(1))
    town.run(1.0)
    assert look(town.sealed_wire[-1]).flagged


def test_forget_forgets_keys_paths_and_flows() -> None:
    town = Town()
    town.a.send(out())
    town.run(1.0)
    assert town.a.sealing.forget(ip_network("192.2.0.0/24")) == 1
    assert town.a.sealing.forget(ip_network("192.1.1.5/32")) == 1
    report = town.a.sealing.report(town.now)
    assert (report.hosts, report.paths, report.fates) == (0, (), {})
    assert town.a.plane.entries == {}
    town.a.send(out(2))
    town.run(1.0)
    assert town.a.asked == [HOST_B, HOST_B]
    assert town.b.delivered[-1] == out(2)


def test_a_stop_drops_what_waits() -> None:
    town = Town()
    town.dns_delay = None
    town.a.send(out())
    town.a.stop()
    assert town.a.plane.waiting == {}
    assert town.sealed_wire == []
    assert town.a.drops["stopping"] == 1


def test_a_record_that_names_anothers_gateway_spoils_nothing() -> None:
    """Who says that B's gateway is his gets no answer from it; B's own path is another."""
    liar, key = ip_address("192.2.0.99"), static_key(666)
    town = Town(REQUIRED)
    town.dns[liar] = records(GATE_B, key)
    town.a.send(build(HOST_A, liar, TCP, 5000, 22))
    town.a.send(out())
    town.run(5.0)
    assert town.b.delivered == [out()]
    assert town.a.drops["required"] == 1
    states = {p.key: p.state for p in town.a.sealing.report(town.now).paths}
    assert states == {
        key.key_id.hex(): PathState.SILENT,
        KEY_B.key_id.hex(): PathState.WORKS,
    }


def test_a_key_whose_gateway_is_ourselves_or_of_the_other_family_is_not_used() -> None:
    for gateway in (GATE_A, ip_address("2001:db8:11::5")):
        town = Town()
        town.dns[HOST_B] = records(gateway, KEY_B)
        town.a.send(out())
        town.run(5.0)
        assert town.sealed_wire == [out()]
        assert town.a.told("declined")[0]["reason"] == "no usable key"


def test_a_peer_that_publishes_our_own_old_key_has_none_and_stops_nothing() -> None:
    """Which is public: anybody can write it beside an address of his, and have us read it."""
    town = Town(own_a=(static_key(3003), KEY_A))
    town.dns[HOST_B] = town.dns[GATE_B] = records(GATE_B, KEY_A)
    town.a.arrive(around(segment(HOST_B, HOST_A, TCP, (1, 2)), HOST_B, HOST_A, TCP, flagged=True))
    town.run(5.0)
    assert town.a.delivered == []
    town.a.send(out())
    town.run(60.0)
    assert town.sealed_wire == [out()]
    assert town.a.told("declined")[0]["reason"] == "no usable key"


def test_random_packets_never_raise() -> None:
    rng = random.Random(6)
    town = Town(REQUIRED, ONLY)
    town.a.send(out())
    town.run(1.0)
    samples = [out(), out(version=6), *town.sealed_wire, *(e.packet for e in town.wire)]
    samples.append(icmp_error(town.sealed_wire[0], "198.51.100.1"))
    for _ in range(3000):
        octets = bytearray(rng.choice(samples))
        for _ in range(rng.randrange(4)):
            octets[rng.randrange(len(octets))] = rng.getrandbits(8)
        packet = bytes(octets[: rng.randrange(len(octets) + 1)])
        leg = rng.choice(list(Leg))
        if rng.random() < 0.5:
            town.b.arrive(packet, leg)
        else:
            town.a.send(packet, leg, asked=rng.random() < 0.3)
        town.run(0.001)
    town.run(10.0)
    assert town.a.plane.waiting == town.b.plane.waiting == {}
    for each in town.wire:
        if each.by == "a" and each.leg is Leg.OUTSIDE and not each.probe:
            try:
                place = place_of(each.packet)
            except (NotEligible, PacketError):
                continue  # no ports that could be seen
            assert place.source_port is None or Signal().flagged(each.packet)


def test_a_key_that_the_peer_does_not_know_yet_delays_no_flow_for_long() -> None:
    """It is proposed every ten minutes; in between the old one is probed, and nothing waits."""
    new = static_key(3003)
    town = Town(own_a=(new, KEY_A))  # B finds neither: the records are still the old ones
    for host, gateway in ((HOST_A, GATE_A), (GATE_A, GATE_A)):
        town.dns[host] = records(gateway, KEY_A)
    town.a.send(out(1))
    town.run(5.0)
    assert town.b.delivered == [out(1)]
    for port in range(2, 9):
        town.run(60.0)
        town.a.send(out(port))
        town.run(0.05)
        assert town.b.delivered[-1] == out(port)
    asked = len(town.a.probes)
    town.run(300.0)
    assert len(town.a.probes) > asked + 5
    assert town.a.sealing.report(town.now).paths[0].state is PathState.WORKS


def test_only_the_flows_of_a_tunnel_that_is_gone_are_looked_at_again() -> None:
    town = Town(INNER)
    elsewhere = ip_network("192.3.0.0/24")
    town.tunnel(1, bytes(16))
    for side, ends in ((town.a, (NET_A, elsewhere)),):
        side.follow(side.sealing.tunnel_keyed(2, *ends, bytes(range(16)), town.now))
        side.follow(side.sealing.send_sealed(2, town.now, side.wall))
    town.a.send(out(), Leg.TUNNEL)
    town.a.send(build(HOST_A, "192.3.0.7", TCP, 40000, 22), Leg.TUNNEL)
    assert len(town.a.plane.entries) == 2
    town.a.follow(town.a.sealing.tunnel_closed(1, town.now))
    assert [str(flow.remote) for _, flow in town.a.plane.entries] == ["192.3.0.7"]
