"""The pure parts: marks, what is read of a packet, and the text of the table."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest

from oegw.packet.ip import PacketError
from oegw.sst.interface import (
    PROBE_MAGIC,
    Entry,
    Leg,
    PortFlow,
    Reason,
    SstError,
    Way,
)
from oegw.sst.packet import seal
from oegw.sst.plane.byhand import fragmentable, rewritten
from oegw.sst.plane.catching import Catching
from oegw.sst.plane.elements import entered, inward_key, outward_key
from oegw.sst.plane.marks import PlaneMarks
from oegw.sst.plane.ruleset import (
    COUNTERS,
    new_policy,
    policy_chains,
    residue,
    whole_table,
)
from oegw.sst.plane.settings import checked
from oegw.sst.plane.wire import transaction
from oegw.sst.settings import Fragments, LanFlag
from policy.rule import Category, Rule, Sst
from tests.support.intercept_policy import policy
from tests.support.sst_packets import UDP, faults, ipv4, ipv6, packed, udp
from tests.support.sst_plane import (
    KEY,
    MARKS,
    SETTINGS,
    SIGNAL,
    off,
    only,
    settings,
    sst_rule,
)

HERE, THERE = packed("192.0.2.1"), packed("198.51.100.7")
CATCHING = Catching(MARKS, SIGNAL)


def datagram(payload: bytes = b"x", *, field: int = 0) -> bytes:
    return ipv4(HERE, THERE, UDP, udp(HERE, THERE, 4000, 53, payload), field=field)


@pytest.mark.parametrize("mask", [0x3F, 0x3F000000, 0xFC000000])
def test_marks_do_not_touch_each_other_nor_others(mask):
    marks = PlaneMarks(mask)
    assert marks.request | marks.fragment | marks.state | marks.epochs == mask
    assert marks.rest == 0xFFFFFFFF ^ mask
    assert len({0, marks.waiting, marks.waiting_sticky, marks.done}) == 4
    assert marks.waiting | marks.waiting_sticky == marks.done == marks.state
    assert marks.request == mask & -mask  # what `oegw sst enable` sets
    for epoch in range(4):
        assert marks.epoch_of(marks.epoch(epoch) | marks.rest | marks.state) == epoch
    assert marks.sticky & marks.epochs == 0


@pytest.mark.parametrize(
    ("packet", "way", "mark", "mtu", "reason"),
    [
        (datagram(), Way.SEAL, MARKS.waiting, 1500, Reason.UNKNOWN_FLOW),
        (datagram(bytes(1473)), Way.SEAL, MARKS.waiting, 1500, Reason.FRAGMENT),
        (datagram(bytes(1472)), Way.SEAL, MARKS.waiting, 1500, Reason.UNKNOWN_FLOW),
        (datagram(bytes(1473), field=0x4000), Way.SEAL, 0, 1500, Reason.UNKNOWN_FLOW),
        (datagram(bytes(1473)), Way.OPEN, MARKS.waiting, None, Reason.UNKNOWN_FLOW),
        (datagram(), Way.SEAL, MARKS.waiting | MARKS.fragment, 1500, Reason.FRAGMENT),
        (datagram(field=0x2000), Way.SEAL, MARKS.waiting, 1500, Reason.FRAGMENT),
        (datagram(PROBE_MAGIC), Way.OPEN, MARKS.waiting, None, Reason.PROBE),
        (datagram(PROBE_MAGIC), Way.SEAL, MARKS.waiting, 1500, Reason.UNKNOWN_FLOW),
        (datagram(PROBE_MAGIC[:-1]), Way.OPEN, MARKS.waiting, None, Reason.UNKNOWN_FLOW),
        (ipv4(HERE, THERE, 1, bytes(36)), Way.OPEN, MARKS.waiting, None, Reason.QUOTE),
    ],
)
def test_reasons(packet, way, mark, mtu, reason):
    assert CATCHING.caught(1, way, Leg.OUTSIDE, packet, mark, mtu).reason is reason


def test_what_marks_say_of_a_packet():
    sticky = MARKS.waiting_sticky | MARKS.epoch(2) | MARKS.request
    caught = CATCHING.caught(7, Way.SEAL, Leg.TUNNEL, datagram(), sticky, 1500)
    assert (caught.number, caught.asked, caught.sticky, caught.epoch) == (7, True, True, 2)
    caught = CATCHING.caught(7, Way.SEAL, Leg.TUNNEL, datagram(), MARKS.waiting, 1500)
    assert (caught.asked, caught.sticky, caught.epoch) == (False, False, None)
    gathered = MARKS.waiting | MARKS.fragment
    assert CATCHING.caught(7, Way.OPEN, Leg.OUTSIDE, datagram(), gathered, None).flagged
    assert not CATCHING.caught(7, Way.OPEN, Leg.OUTSIDE, datagram(), MARKS.waiting, None).flagged


@pytest.mark.parametrize("octets", [b"", b"\x45", datagram()[:19], b"\xf0" + bytes(60)])
def test_what_can_not_be_read_is_an_error_of_its_own(octets):
    with pytest.raises(PacketError):
        CATCHING.caught(1, Way.OPEN, Leg.OUTSIDE, octets, MARKS.waiting, None)


def entry(version: int = 4) -> Entry:
    here, there = ("192.0.2.1", "198.51.100.7") if version == 4 else ("fd00::1", "fd00::2")
    flow = PortFlow(ip_address(here), ip_address(there), UDP, 4000, 53)
    sealed = KEY.seal_ports(flow.local.packed, flow.remote.packed, UDP, 4000, 53)
    return Entry(Leg.OUTSIDE, flow, *sealed, 1, 60.0)


@pytest.mark.parametrize(("version", "length"), [(4, 20), (6, 44)])
def test_a_key_is_what_the_packet_shows(version, length):
    made = entry(version)
    out, back = outward_key(made.flow), inward_key(made)
    assert len(out) == len(back) == length
    width = 4 if version == 4 else 16
    assert out[: 2 * width] == back[width : 2 * width] + back[:width]
    assert out[-8:-6] == (4000).to_bytes(2, "big")
    assert back[-8:-6] == made.sealed_remote.to_bytes(2, "big")


def test_a_transaction_is_framed():
    octets = transaction(entered("t", entry()))
    kinds, lengths = [], 0
    while octets:
        length = int.from_bytes(octets[:4], "little")
        kinds.append(int.from_bytes(octets[4:6], "little"))
        lengths += length % 4
        octets = octets[length:]
    assert kinds == [0x10, 0xA0C, 0xA0C, 0x11]
    assert lengths == 0


def test_what_the_rules_leave_alone_is_rewritten_by_the_entry():
    ends = packed("fd00::1"), packed("fd00::2")
    made = entry(6)
    options = ((60, b"\0\0\x01\x04\0\0\0\0"),)
    packet = ipv6(*ends, UDP, udp(*ends, 4000, 53, b"x"), headers=options)

    class One:
        def of(self, leg, flow):
            return made if (leg, flow) == (made.leg, made.flow) else None

        def of_sealed(self, leg, local, remote, protocol, ports):
            wanted = (made.flow.local.packed, made.flow.remote.packed, UDP)
            sealed = made.sealed_local, made.sealed_remote
            found = leg is made.leg and ((local, remote, protocol), ports) == (wanted, sealed)
            return made if found else None

    caught = CATCHING.caught(1, Way.SEAL, Leg.OUTSIDE, packet, MARKS.waiting, 1500)
    sealed = rewritten(caught, One(), SIGNAL)
    assert sealed == (seal(packet, KEY, SIGNAL), 1)
    back = ipv6(
        ends[1], ends[0], UDP, udp(ends[1], ends[0], 53, 4000, b"x"), headers=options
    )  # fmt: skip
    caught = CATCHING.caught(1, Way.OPEN, Leg.OUTSIDE, seal(back, KEY, SIGNAL), MARKS.waiting, None)
    assert rewritten(caught, One(), SIGNAL) == (back, 1)
    other = replace(caught, leg=Leg.TUNNEL)
    assert rewritten(other, One(), SIGNAL) is None
    plain = CATCHING.caught(1, Way.SEAL, Leg.OUTSIDE, datagram(), MARKS.waiting, 1500)
    assert rewritten(plain, One(), SIGNAL) is None  # the kernel can do that


def test_what_will_be_fragmented_has_no_df():
    packet = fragmentable(seal(datagram(), KEY, SIGNAL))
    assert packet[6] == 0x80
    assert faults(packet) == []


def test_the_table_counts_what_it_drops_and_what_it_says_it_counts():
    text = whole_table(SETTINGS, policy_chains(only()), {"out0": 1400}, nft_queue=True)
    assert all(f"counter {name} {{ }}" in text for name in COUNTERS)
    strict = settings(lan_flag=LanFlag.DROP, fragments=Fragments.DROP)
    other = whole_table(strict, policy_chains(only()), {}, nft_queue=True)
    assert all(f"counter name {name}" in text + other for name in COUNTERS)
    for line in text.splitlines():
        if line.split()[-1:] == ["drop"]:
            assert "counter name" in line
    assert "bypass" not in text
    assert "meta length > 1400" in text
    assert "queue num 4530" in text
    assert "queue num 4531" in text
    assert "queue num" not in whole_table(SETTINGS, policy_chains(only()), {}, nft_queue=False)


def test_a_new_policy_touches_no_entries():
    text = new_policy(SETTINGS, policy_chains(off()), {}, nft_queue=False)
    assert "flush set inet oegw_sst declined_outside4" in text
    assert "map" not in text.replace("mapped", "")


@pytest.mark.parametrize(
    ("table", "left"),
    [
        (off(), False),
        (only(), False),
        (only(required=True), True),
        (policy(default=sst_rule(Sst.INNER, required=True)), True),
        (
            policy(default=sst_rule(Sst.OUTER, required=True)),
            False,
        ),  # the guard's, without a tunnel
        (policy(default=replace(Rule("p", Category.PERMIT), sst=Sst.OFF)), False),
    ],
)
def test_what_a_stop_leaves(table, left):
    text = residue(SETTINGS, policy_chains(table))
    assert ("required_dropped" in text) is left
    assert text.startswith("add table inet oegw_sst\ndelete table inet oegw_sst\n")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (settings(mark_mask=0x1F000000), "sst.mark_mask"),
        (settings(mark_mask=0x3F0000), "own mark"),
        (settings(queue=65535), "sst.queue"),
        (replace(SETTINGS, table="no name"), "table"),
        (replace(SETTINGS, outside=()), "outside"),
        (replace(SETTINGS, outside=('x"; drop',)), "interface"),
        (replace(SETTINGS, queue_length=0), "queue_length"),
    ],
)
def test_settings_that_can_not_work(given, words):
    with pytest.raises(SstError, match=words):
        checked(given)
