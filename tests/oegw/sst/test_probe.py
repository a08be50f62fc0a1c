"""The message that tries a path: both directions of its codec, and who made it."""

from __future__ import annotations

import random
from contextlib import suppress
from ipaddress import ip_address

import pytest

from oegw.sst.interface import PROBE_MAGIC, Algorithm
from oegw.sst.probe import (
    PROBE_OCTETS,
    Kind,
    Probe,
    ProbeError,
    Terms,
    addresses_of,
    is_probe,
    packet_with,
    payload_of,
    verify,
)
from oegw.sst.settings import Ipv4Signal
from oegw.sst.signal import Signal
from tests.support.sst_wire import TCP, build, look

HERE, THERE = ip_address("192.0.2.1"), ip_address("192.0.2.2")
HERE6, THERE6 = ip_address("2001:db8::1"), ip_address("2001:db8::2")
KEY = bytes(range(32))
TERMS = Terms(Algorithm.FF1_AES_128, 20_000, b"ownownow", b"peerpeer")
QUESTION = Probe(Kind.QUESTION, TERMS, 1_728_043_200_000_000, bytes(range(16)), sent_flagged=True)


@pytest.mark.parametrize("day", [None, 0, 20_000, 0xFFFFFFFE])
@pytest.mark.parametrize("flagged", [True, False])
@pytest.mark.parametrize("algorithm", list(Algorithm))
def test_what_is_written_is_read_again(
    day: int | None, flagged: bool, algorithm: Algorithm
) -> None:
    terms = Terms(algorithm, day, b"12345678", b"abcdefgh")
    probe = Probe(Kind.QUESTION, terms, 7, bytes(16), flagged)
    for each in (probe, probe.answered(arrived_flagged=flagged)):
        octets = each.serialize(KEY, HERE, THERE)
        assert len(octets) == PROBE_OCTETS
        assert octets.startswith(PROBE_MAGIC)
        assert Probe.parse(octets) == each
        verify(octets, KEY, HERE, THERE)


def test_an_answer_is_the_question_seen_from_the_other_side() -> None:
    answer = QUESTION.answered(arrived_flagged=False)
    assert (answer.kind, answer.nonce, answer.sent_flagged) == (Kind.ANSWER, QUESTION.nonce, True)
    assert answer.terms == Terms(Algorithm.FF1_AES_128, 20_000, b"peerpeer", b"ownownow")
    assert not answer.arrived_flagged


def test_another_key_another_address_and_each_changed_bit_are_noticed() -> None:
    octets = QUESTION.serialize(KEY, HERE, THERE)
    for key, source, destination in (
        (bytes(32), HERE, THERE), (KEY, THERE, HERE), (KEY, HERE, HERE), (KEY, HERE6, THERE6),
    ):  # fmt: skip
        with pytest.raises(ProbeError, match="probe_forged"):
            verify(octets, key, source, destination)
    for bit in range(8 * len(octets)):
        changed = bytearray(octets)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(ProbeError):
            verify(bytes(changed), KEY, HERE, THERE)


@pytest.mark.parametrize(
    ("change", "trigger"),
    [
        (lambda o: o[:-1], "probe_length"),
        (lambda o: o + b"\0", "probe_length"),
        (lambda o: b"", "probe_length"),
        (lambda o: b"\0" + o[1:], "probe_magic"),
        (lambda o: o[:8] + b"\x02" + o[9:], "probe_version"),
        (lambda o: o[:9] + b"\x03" + o[10:], "probe_unknown_word"),
        (lambda o: o[:11] + b"\x09" + o[12:], "probe_unknown_word"),
    ],
)
def test_what_cannot_be_read_says_why(change, trigger: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ProbeError, match=trigger):
        Probe.parse(change(QUESTION.serialize(KEY, HERE, THERE)))


@pytest.mark.parametrize(("source", "destination"), [(HERE, THERE), (HERE6, THERE6)])
@pytest.mark.parametrize("flagged", [True, False])
def test_the_packet_around_it_is_right(source, destination, flagged: bool) -> None:  # type: ignore[no-untyped-def]
    payload = QUESTION.serialize(KEY, source, destination)
    packet = packet_with(payload, source, destination, (40000, 7), Signal(), flagged=flagged)
    seen = look(packet)
    assert (seen.right, seen.flagged, seen.dont_fragment) == (True, flagged, True)
    assert (seen.source, seen.destination, seen.ports) == (source, destination, (40000, 7))
    assert payload_of(packet) == (payload, (40000, 7))
    assert addresses_of(packet) == (source, destination)
    assert is_probe(packet)
    cleared = Signal().cleared(packet)
    assert is_probe(cleared)  # whether the flag is still there or not


def test_a_code_point_can_be_the_flag_in_ipv4() -> None:
    signal = Signal(ipv4=Ipv4Signal.DSCP)
    packet = packet_with(b"x", HERE, THERE, (1, 2), signal, flagged=True)
    assert signal.flagged(packet)
    assert not Signal().flagged(packet)
    assert look(packet).right


def test_other_packets_are_no_probes() -> None:
    assert not is_probe(build(HERE, THERE, TCP, 1, 2, PROBE_MAGIC))
    assert not is_probe(b"")
    rng = random.Random(1)
    for _ in range(2000):
        packet = bytearray(packet_with(PROBE_MAGIC, HERE, THERE, (1, 2), Signal(), flagged=True))
        packet[rng.randrange(len(packet))] = rng.getrandbits(8)
        octets = bytes(packet[: rng.randrange(len(packet))])
        is_probe(octets)
        for read in (payload_of, addresses_of):
            with suppress(ProbeError):
                read(octets)
