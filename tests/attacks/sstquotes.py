"""Attacks by ICMP errors: can a quote make us say which ports are sealed as which?"""

from __future__ import annotations

from typing import Any

from oegw.sst import packet as packets
from oegw.sst import quote as quotes
from oegw.sst.interface import Algorithm, PortKey
from oegw.sst.permutation import NotEligible, Permutation
from oegw.sst.place import Place, locate
from oegw.sst.signal import Signal
from tests.attacks.frame import SST, attack, replaced
from tests.support.sst_wire import TCP, UDP, build, icmp_error, look, quote_of

ALICE, MALLET, BOB = "192.0.2.1", "192.0.2.66", "198.51.100.7"
ALICE6, MALLET6, BOB6 = "2001:db8:1::1", "2001:db8:1::66", "2001:db8:2::2"
FARAWAY, FARAWAY6 = "203.0.113.9", "2001:db8:66::9"
SIGNAL = Signal()


def _permutation() -> Permutation:
    return Permutation(PortKey(Algorithm.FF1_AES_128, bytes(range(16))))


def _whoever_it_goes_to(packet: bytes) -> Place:
    head = 20 if packet[0] >> 4 == 4 else 40
    return locate(packet, head + 8, len(packet), quoted=True)


_CARELESS = replaced(("oegw.sst.quote.quote_of", _whoever_it_goes_to))


def _ports_in(error: bytes) -> Any:
    return look(quote_of(error), quoted=True).ports


@attack(
    SST,
    "What was seen outside of a neighbour's flow is quoted in an ICMP error for an accomplice "
    "inside",
    source="RFC 1122 section 3.2.2: an error goes to the sender of what it is about",
    defence="oegw/sst/quote.py quote_of",
    otherwise="we open the quote for him, and he reads the neighbour's ports: a decryption oracle",
    without=_CARELESS,
)
def quote_opened_for_another() -> None:
    ours = _permutation()
    for alice, mallet, bob in ((ALICE, MALLET, BOB), (ALICE6, MALLET6, BOB6)):
        for protocol in (TCP, UDP):
            wire = packets.seal(build(alice, bob, protocol, 40000, 993), ours, SIGNAL)
            honest = quotes.open_quote(icmp_error(wire, bob), ours, SIGNAL)
            assert _ports_in(honest) == (40000, 993)
            forged = icmp_error(wire, bob, to=mallet)
            try:
                told = quotes.open_quote(forged, ours, SIGNAL)
            except NotEligible:
                continue
            assert _ports_in(told) != (40000, 993), "Mallet reads Alice's ports"


@attack(
    SST,
    "A host inside quotes ports of its choice in an ICMP error to an accomplice far away",
    source="RFC 1122 section 3.2.2",
    defence="oegw/sst/quote.py quote_of",
    otherwise="we seal the quote, and he gets the sealed ports of any flow of Alice's that he "
    "guesses: a codebook",
    without=_CARELESS,
)
def quote_sealed_for_another() -> None:
    ours = _permutation()
    for alice, far, bob in ((ALICE, FARAWAY, BOB), (ALICE6, FARAWAY6, BOB6)):
        came = build(bob, alice, UDP, 993, 40000)
        guess = icmp_error(came, alice, to=far)
        try:
            told = quotes.seal_quote(guess, ours, SIGNAL)
        except NotEligible:
            continue
        true = look(packets.seal(came, ours, SIGNAL)).ports
        assert _ports_in(told) != true, "the sealed ports of a guess"


def _one_way(octets: Any, place: Place, permutation: Permutation, signal: Signal) -> None:
    """A quote with the real ports in it goes out as it is."""


@attack(
    SST,
    "A packet for a closed port, or with a TTL too short: what does the error say outside?",
    source="SST-20",
    defence="oegw/sst/quote.py seal_quote",
    otherwise="one packet repeated with a shorter TTL tells the ports of its flow",
    without=replaced(("oegw.sst.quote.seal_in_place", _one_way)),
)
def real_ports_in_an_error() -> None:
    ours = _permutation()
    for alice, bob in ((ALICE, BOB), (ALICE6, BOB6)):
        for protocol in (TCP, UDP):
            came = packets.open_sealed(
                packets.seal(build(bob, alice, protocol, 993, 40000, b"secret?"), ours, SIGNAL),
                ours,
                SIGNAL,
            )
            error = quotes.seal_quote(icmp_error(came, alice), ours, SIGNAL)
            assert look(error).right
            assert (993).to_bytes(2, "big") + (40000).to_bytes(2, "big") not in error
            assert _ports_in(error) == look(packets.seal(came, ours, SIGNAL)).ports
