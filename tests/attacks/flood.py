"""Attacks by number: row 10, and what was measured on others (design page, below its table).

``python -m tests.attacks.flood`` measures at full size and prints the numbers.
"""

from __future__ import annotations

import random
import struct
import sys
import time
from dataclasses import dataclass
from ipaddress import ip_address

from ike import events as e
from ike.v1 import main_mode
from tests.attacks import lenient
from tests.attacks.frame import attack, replaced
from tests.ike import test_attacks as shown
from tests.support import ike_stranger as x
from tests.support.ike_pair import A, B, Pair, Side
from tests.support.ike_stranger import Stranger


def message_1(number: int, offer: bytes | None = None) -> bytes:
    cookies = (struct.pack("!Q", number + 1), bytes(8))
    return x.clear(cookies, x.MAIN, 0, (x.SA, x.offer() if offer is None else offer))


def shower(side: Side, data: bytes, source: int) -> int:
    """A datagram from an address of its own; the octets that go out for it."""
    side.endpoint.receive_datagram(1000.0, data, B, shown.flood(source))
    while side.endpoint.next_event() is not None:
        pass
    return sum(len(datagram.data) for datagram in side.endpoint.datagrams_to_send())


@dataclass
class Garbled:
    octets_in: int = 0
    octets_out: int = 0
    larger: int = 0  # answers that were larger than what they answered

    @property
    def ratio(self) -> float:
        return self.octets_out / self.octets_in


def garbled(count: int) -> Garbled:
    """Datagrams of phase 1 with some octets changed, each from an address of its own."""
    side, dice, result = shown.responder(), random.Random(60), Garbled()
    for number in range(count):
        data = bytearray(message_1(number))
        for _ in range(dice.randrange(1, 8)):
            data[dice.randrange(len(data))] = dice.randrange(256)
        out = shower(side, bytes(data), number)
        result.octets_in += len(data)
        result.octets_out += out
        result.larger += out > len(data)
    return result


def one_message_1() -> dict[str, float]:
    """What one message 1 brings out, by its octets, for several offers."""
    whole = Pair()
    whole.initiate()
    many = whole.wire[0].data
    ratios = {}
    for name, data in {
        "one transform": message_1(1),
        "all transforms and vendor IDs": many,
        "nothing that we know": message_1(2, x.offer(x.MODERN_1.replace(x.tv(4, 14), x.tv(4, 1)))),
    }.items():
        side = shown.responder()
        out = shower(side, data, 1)
        assert out, name
        while (timer := side.endpoint.next_timer()) is not None and timer < 1060.0:
            side.endpoint.handle_timer(timer)
            out += sum(len(datagram.data) for datagram in side.endpoint.datagrams_to_send())
        ratios[name] = out / len(data)
    return ratios


@dataclass
class Flood:
    connected: int = 0
    of: int = 0
    half_open: int = 0


def spoofed(count: int, legitimate: int = 5) -> Flood:
    """First messages with forged sources, and now and then somebody who means it.

    Between each two messages of theirs 20 forged ones arrive.
    """
    side = shown.responder()
    result = Flood(of=legitimate)
    sent = 0

    def rain(messages: int) -> None:
        nonlocal sent
        for _ in range(messages):
            shower(side, message_1(sent), sent)
            sent += 1

    for number in range(legitimate):
        rain(count // legitimate - 60)
        peer = Stranger(side, address=e.TransportAddress(ip_address(f"203.0.113.{number + 1}")))
        peer.cookies = (b"legit%03d" % number, bytes(8))
        answered = bool(peer.send_1())
        rain(20)
        answered = answered and bool(peer.send_3())
        rain(20)
        result.connected += answered and bool(peer.send_5())
        rain(20)
        result.half_open = max(result.half_open, side.endpoint.snapshot().half_open)
    return result


@attack(
    10,
    "5000 forged sources while one peer means it",
    source="Simpson, IKE/ISAKMP considered harmful (1999); RFC 4322 section 12.3",
    defence="ike/half_open.py HalfOpenTable.must_go",
    otherwise="with a limit that turns newcomers away, nobody gets in any more",
    without=replaced(
        (
            "ike.half_open.HalfOpenTable.admits",
            lambda self, address: len(self) < self._limit,
        )
    ),
)
def forged_sources() -> None:
    shown.test_10_a_flood_of_forged_sources_does_not_shut_out_a_true_peer()


@attack(
    10,
    "Many exchanges from one source",
    source="RFC 4322 section 12.3",
    defence="ike/half_open.py HalfOpenTable.admits",
    otherwise="one source fills the table",
    without=replaced(("ike.half_open.HalfOpenTable.admits", lambda self, address: True)),
)
def one_busy_source() -> None:
    shown.test_10_half_open_limit_per_source()


@attack(
    10,
    "Message 3 with a guessed cookie of ours",
    source="RFC 2408 section 2.5.3",
    defence="ike/v1/directory.py Directory.answered",
    otherwise="a forged source makes us do Diffie-Hellman",
    without=replaced(("ike.v1.directory.Directory.answered", lenient.by_initiator_cookie)),
)
def key_agreement_without_our_cookie() -> None:
    shown.test_10_no_key_agreement_without_our_cookie()


@attack(
    10,
    "Exchanges that are begun and never ended",
    source="RFC 4322 section 12.3",
    defence="ike/v1/opening.py ResponderOpening._time_over",
    otherwise="they stay for ever",
    without=replaced(("ike.v1.opening.ResponderOpening._time_over", lambda self, now: None)),
)
def exchanges_that_never_end() -> None:
    shown.test_10_half_open_exchanges_end()


@attack(
    "measured",
    "Garbled messages 1 from many sources: octets out for each octet in (strongSwan 5.9.8: 0.30)",
    source="measured on strongSwan 5.9.8",
    defence="ike/v1/main_mode.py MainModeResponder",
    otherwise="each one that can still be read is answered with all our vendor IDs: more than came",
    without=replaced(
        (
            "ike.v1.main_mode.vendor_payloads",
            lambda vendors: _all_vendors(main_mode.own_vendors(e.Encapsulation.AUTO)),
        )
    ),
)
def garbled_messages_are_not_amplified() -> None:
    result = garbled(3000)
    assert result.larger == 0
    assert result.ratio < 0.30


_all_vendors = main_mode.vendor_payloads


@attack(
    "measured",
    "One message 1, and what comes out for it within a minute (strongSwan 5.9.8: 1.1 to 1.38)",
    source="measured on strongSwan 5.9.8; CVE-2016-5361",
    defence="ike/v1/main_mode.py MainModeResponder",
    otherwise="the answer has vendor IDs that nobody asked for, and is larger than the question",
    without=replaced(
        (
            "ike.v1.main_mode.vendor_payloads",
            lambda vendors: _all_vendors(main_mode.own_vendors(e.Encapsulation.AUTO)),
        )
    ),
)
def one_message_1_is_not_amplified() -> None:
    for name, ratio in one_message_1().items():
        assert ratio <= 1.0, name


@attack(
    "measured",
    "20,000 forged first messages while five peers connect (strongSwan 5.9.8: 4 of 5, or 0)",
    source="measured on strongSwan 5.9.8",
    defence="ike/half_open.py HalfOpenTable.must_go",
    otherwise="with a limit that turns newcomers away none of them connects",
    without=replaced(
        (
            "ike.half_open.HalfOpenTable.admits",
            lambda self, address: len(self) < self._limit,
        )
    ),
)
def legitimate_peers_in_a_flood() -> None:
    result = spoofed(20000)
    assert (result.connected, result.of) == (5, 5)
    assert result.half_open <= 1000


@attack(
    "measured",
    "A late duplicate of message 1 (strongSwan 5.9.8: ends the exchange)",
    source="measured on strongSwan 5.9.8",
    defence="ike/v1/opening.py ResponderOpening.repeated",
    otherwise="a packet that the network doubled ends the exchange that it began",
    without=replaced(("ike.v1.opening.ResponderOpening.repeated", lenient.ends_on_duplicate)),
)
def late_duplicate_of_message_1() -> None:
    for after in (1, 3):
        side = shown.responder()
        stranger = Stranger(side)
        stranger.send_1()
        first = stranger.last_sent
        if after == 3:
            stranger.send_3()
        side.endpoint.receive_datagram(stranger.now, first, B, A)
        side.endpoint.datagrams_to_send()
        if after == 1:
            stranger.send_3()
        assert stranger.keys is not None
        assert stranger.send_5(), "the exchange is over"


@attack(
    "measured",
    "Clear messages with sniffed cookies, before the true ones (strongSwan 5.9.8: 24 to 28 of 176)",
    source="measured on strongSwan 5.9.8",
    defence="ike/v1/main_mode.py MainModeResponder.take_3",
    otherwise="the first comer wins, and the true message comes too late",
    without=replaced(("ike.v1.main_mode.CANDIDATES_MOST", 1)),
)
def clear_messages_with_sniffed_cookies() -> None:
    public = x.PRIMES[14] - 5
    for name, forged in {
        "another public value": ((x.KE, public.to_bytes(256, "big")), (x.NONCE, b"m" * 16)),
        "a degenerate value": ((x.KE, bytes(256)), (x.NONCE, b"m" * 16)),
        "no nonce": ((x.KE, public.to_bytes(256, "big")),),
        "an unknown payload": ((199, b"what"),),
        "an error": ((x.N, struct.pack("!IBBH", 1, 1, 0, 14)),),
    }.items():
        side = shown.responder()
        stranger = Stranger(side)
        stranger.send_1()
        for exchange in (x.MAIN, x.INFO):
            stranger.send(x.clear(stranger.cookies, exchange, 0, *forged))
        assert stranger.send_3(), name
        assert stranger.send_5(), name


@attack(
    "measured",
    "A zero octet before a right signature (strongSwan 5.9.8: accepted)",
    source="measured on strongSwan 5.9.8",
    defence="ike/signer.py verifying_key",
    otherwise="one signature has many forms",
    without=replaced(
        ("ike.v1.main_mode.verifying_key", lenient.any_length(main_mode.verifying_key))
    ),
)
def zero_octet_before_a_signature() -> None:
    side = shown.responder()
    stranger = Stranger(side)
    stranger.send_1()
    stranger.send_3()
    identification = stranger.identification()
    signature = b"\0" + stranger.sign(identification)
    stranger.send_5((x.ID, identification), (x.SIG, signature))
    assert not side.seen(e.KeyingChannelEstablished)
    assert side.triggers == ["wrong_signature"]


def main() -> None:
    """Measure at full size."""
    begun = time.monotonic()
    result = garbled(60000)
    print(f"60000 garbled messages 1: {result.ratio:.3f} octets out for each in, ", end="")
    print(f"{result.larger} answers larger than the question, {time.monotonic() - begun:.1f} s")
    for name, ratio in one_message_1().items():
        print(f"one message 1 with {name}: {ratio:.2f} octets out for each in")
    begun = time.monotonic()
    flood = spoofed(20000)
    print(f"20000 forged first messages: {flood.connected} of {flood.of} peers connect, ", end="")
    print(f"{flood.half_open} exchanges at most, {time.monotonic() - begun:.1f} s")


if __name__ == "__main__":
    sys.exit(main())
