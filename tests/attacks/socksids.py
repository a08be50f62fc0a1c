"""Attacks on ADDRESS IDs: guessed, stolen, used up, or led elsewhere."""

from __future__ import annotations

import random
from contextlib import suppress
from dataclasses import replace
from ipaddress import IPv4Address, ip_address

from oegw.socks5 import addressids
from oegw.socks5.addressids import AddressIds, Entry
from oegw.socks5.settings import AddressIdSettings
from oegw.socks5.terms import Refused, Scope
from oegw.socks5.wire import AddressId
from tests.attacks.frame import SOCKS, attack, replaced, survived

BOB = ip_address("2001:db8:b::7")
ALICE, MALLET = Scope(ip_address("192.0.2.1")), Scope(ip_address("192.0.2.66"))
ONE = Scope(ip_address("0.0.0.0"))  # of all, where there are no scopes
SMALL = AddressIdSettings(per_scope=16, total=64)

_look_up = AddressIds.look_up
_associate = AddressIds.associate
_free = AddressIds._free


def server(settings: AddressIdSettings = SMALL, numbers: int = 2**24) -> AddressIds:
    """A table; ``numbers``: REALIDs that there are, few where an attack is to be short."""
    rng = random.Random(7)
    return AddressIds(settings, lambda octets: rng.randrange(numbers).to_bytes(octets, "big"))


def leads(ids: AddressIds, scope: Scope, number: AddressId, now: float) -> Entry | None:
    with survived():
        try:
            return ids.look_up(scope, number, now)
        except Refused:
            return None


@attack(
    SOCKS,
    "Another process of the client's host tries REALIDs until one is right",
    source="the draft: vulnerabilities that still exist for the processes at the same host; SK-17",
    defence="oegw/socks5/addressids.py AddressIds._got_wrong",
    otherwise="it sends and receives in the name of its neighbour within minutes",
    without=replaced(
        ("oegw.socks5.addressids.AddressIds._got_wrong", lambda self, table, realid, now: None)
    ),
)
def ids_guessed() -> None:
    ids = server(numbers=4096)
    for destination in range(16):
        ids.associate(ALICE, IPv4Address(destination), 0.0)
    for guess in range(1, 4096):
        assert leads(ids, ALICE, AddressId(guess), guess / 1000) is None, "an ID was guessed"


@attack(
    SOCKS,
    "A client uses the number that was given to another",
    source="the draft: confusion, if SOCKS clients use the same ADDRESS ID; SK-15",
    defence="oegw/socks5/addressids.py AddressIds.look_up",
    otherwise="whoever sees or guesses a number reaches what only its owner may, as its owner",
    without=replaced(
        (
            "oegw.socks5.addressids.AddressIds.look_up",
            lambda self, scope, number, now: _look_up(self, ONE, number, now),
        ),
        (
            "oegw.socks5.addressids.AddressIds.associate",
            lambda self, scope, destination, now: _associate(self, ONE, destination, now),
        ),
    ),
)
def ids_of_another() -> None:
    ids = server()
    number = ids.associate(ALICE, BOB, 0.0)
    thieves = (MALLET, Scope(ALICE.address, "mallet"), Scope(ALICE.address, lineage=4))
    for thief in thieves:
        ids.associate(thief, "mallet.example", 0.0)
        assert leads(ids, thief, number, 1.0) is None, "Alice's ID is of use to others"


@attack(
    SOCKS,
    "Wrong IDs are sent only to have others locked out",
    source="lockouts of accounts, as a means of denial of service",
    defence="oegw/socks5/addressids.py AddressIds.look_up",
    otherwise="any client can shut out all others from their own IDs",
    without=replaced(
        (
            "oegw.socks5.addressids.AddressIds.look_up",
            lambda self, scope, number, now: _look_up(self, ONE, number, now),
        ),
        (
            "oegw.socks5.addressids.AddressIds.associate",
            lambda self, scope, destination, now: _associate(self, ONE, destination, now),
        ),
    ),
)
def lockout_of_others() -> None:
    ids = server()
    number = ids.associate(ALICE, BOB, 0.0)
    ids.associate(MALLET, "mallet.example", 0.0)
    for guess in range(100):
        leads(ids, MALLET, AddressId(number.realid ^ guess + 1), 1.0)
    assert leads(ids, ALICE, number, 2.0), "Alice is locked out for Mallet's guesses"


@attack(
    SOCKS,
    "An ID of a client runs out, and its number is soon somebody else's destination",
    source="SK-18; reuse of transaction IDs and of file handles",
    defence="oegw/socks5/addressids.py AddressIds._free",
    otherwise="datagrams that were meant for one host go to another, and nobody notices",
    without=replaced(
        (
            "oegw.socks5.addressids.AddressIds._free",
            lambda self, entry, now, why: _free(self, entry, now - 600, why),
        )
    ),
)
def numbers_that_lead_elsewhere() -> None:
    ids = server(replace(SMALL, idle=10.0), numbers=16)
    number = ids.associate(ALICE, BOB, 0.0)
    for destination in range(45):
        now = 10.0 + destination * 13
        with survived(), suppress(Refused):
            ids.associate(ALICE, IPv4Address(destination), now)
        entry = leads(ids, ALICE, number, now)
        assert entry is None or entry.destination == BOB, "it leads to another now"


@attack(
    SOCKS,
    "A client associates all that it can think of, so that others' IDs are pushed out",
    source="SK-20; caches shared by strangers",
    defence="oegw/socks5/addressids.py _Sizes.largest",
    otherwise="whoever has many addresses, or asks often, ends what others have begun",
    without=replaced(
        (
            "oegw.socks5.addressids._Sizes.largest",
            lambda self: next(iter(self._of), None),
        )
    ),
)
def tables_filled() -> None:
    ids = server()
    number = ids.associate(ALICE, BOB, 0.0)
    for client in range(20):
        for destination in range(16):
            scope = Scope(IPv4Address(client))
            with survived():
                ids.associate(scope, IPv4Address(destination), 1.0)
    assert len(ids) <= SMALL.total
    assert leads(ids, ALICE, number, 2.0), "Alice's ID was pushed out by a crowd"


@attack(
    SOCKS,
    "One client associates as fast as it can, for numbers and memory to run out",
    source="design: every table bounded",
    defence=(
        "oegw/socks5/addressids.py QUARANTINED_OF_A_SCOPE",
        "oegw/socks5/addressids.py QUARANTINED_IN_ALL",
    ),
    otherwise="the server's memory grows by as much as a client can ask",
    without=replaced(
        ("oegw.socks5.addressids.QUARANTINED_OF_A_SCOPE", 10**9),
        ("oegw.socks5.addressids.QUARANTINED_IN_ALL", 10**9),
    ),
)
def numbers_without_end() -> None:
    ids = server()
    for destination in range(5000):
        with survived(), suppress(Refused):
            ids.associate(MALLET, IPv4Address(destination), 1.0)
    numbers = ids.snapshot()
    assert numbers["ids"] + numbers["quarantined"] < 1000
    assert ids.associate(ALICE, BOB, 1.0), "nothing is left for Alice"


@attack(
    SOCKS,
    "Wrong IDs from each of 20,000 clients, for their failures to fill the memory",
    source="design: every table bounded",
    defence="oegw/socks5/addressids.py AddressIds.look_up",
    otherwise="memory grows with every address that somebody makes up",
    without=replaced(
        (
            "oegw.socks5.addressids.AddressIds.look_up",
            lambda self, scope, number, now: (
                self._tables.setdefault(scope, addressids._Table()),
                _look_up(self, scope, number, now),
            )[1],
        )
    ),
)
def failures_without_end() -> None:
    ids = server()
    for client in range(20_000):
        leads(ids, Scope(IPv4Address(client)), AddressId(client + 1), 1.0)
    assert ids.snapshot()["scopes"] == 0


@attack(
    SOCKS,
    "A client that has seen some IDs foretells those of its neighbours",
    source="the draft: not simple sequential numbers; SK-13",
    defence="oegw/socks5/addressids.py AddressIds._draw",
    otherwise="one try is enough, and no lockout comes in time",
    without=replaced(
        (
            "oegw.socks5.addressids.AddressIds._draw",
            lambda self, table: self.counters["associated"] + 1,
        )
    ),
)
def ids_foretold() -> None:
    ids = server()
    mine = [ids.associate(MALLET, IPv4Address(n), 0.0).realid for n in range(10)]
    theirs = ids.associate(ALICE, BOB, 0.0).realid
    step = mine[-1] - mine[-2]
    foretold = {mine[-1] + step, *(number + 1 for number in mine), *(n - 1 for n in mine)}
    assert theirs not in foretold, "the next ID was known before it was given"
