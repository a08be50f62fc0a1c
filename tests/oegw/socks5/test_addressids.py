"""The table of ADDRESS IDs: random, scoped, bounded, and never another's (SK-11 to SK-23)."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import IPv4Address, ip_address
from itertools import pairwise

import pytest

from oegw.socks5 import addressids
from oegw.socks5.addressids import AddressIds, Entry, LockedOut, TableFull, UnknownId
from oegw.socks5.codes import AddressType, ReplyCode
from oegw.socks5.settings import AddressIdSettings
from oegw.socks5.terms import UDP, Refused, Resolved, Scope
from oegw.socks5.wire import AddressId, place_octets
from tests.support.amount import amount

ALICE, CAROL = Scope(ip_address("192.0.2.1")), Scope(ip_address("2001:db8::c"))
BOB = ip_address("2001:db8:b::7")
SETTINGS = AddressIdSettings()


def table(settings: AddressIdSettings = SETTINGS, seed: int = 7) -> AddressIds:
    return AddressIds(settings, random.Random(seed).randbytes)


def drawing(*numbers: int) -> Callable[[int], bytes]:
    """Randomness that gives these numbers, and no other."""
    left: Iterator[int] = iter(numbers)
    return lambda octets: next(left).to_bytes(octets, "big")


def refused(call: Callable[[], object]) -> Refused:
    with pytest.raises(Refused) as caught:
        call()
    return caught.value


def a_wrong_id(ids: AddressIds, scope: Scope, now: float, number: int) -> Refused:
    return refused(lambda: ids.look_up(scope, AddressId(number), now))


def test_an_id_stands_for_what_was_associated() -> None:
    ids = table()
    for destination in (BOB, ip_address("198.51.100.9"), "bob.example"):
        number = ids.associate(ALICE, destination, 0.0)
        assert ids.look_up(ALICE, number, 1.0).destination == destination
    assert ids.snapshot()["ids"] == len(ids) == 3


def test_sk_11_and_12_four_octets_and_class_0() -> None:
    ids = table()
    number = ids.associate(ALICE, BOB, 0.0)
    assert len(place_octets(number, 0)) == 1 + 4 + 2
    assert number.category == 0
    other_class = AddressId(number.realid, 1)
    error = refused(lambda: ids.look_up(ALICE, other_class, 0.0))
    assert (error.code, error.reason) == (ReplyCode.INVALID_ADDRESS, "id_of_other_class")
    assert ids.look_up(ALICE, number, 0.0).destination == BOB


def test_sk_13_numbers_are_all_over_the_place() -> None:
    """Neither in sequence nor near each other: each sixteenth of the numbers has its share."""
    ids = table(replace(SETTINGS, per_scope=4096))
    drawn = [ids.associate(ALICE, IPv4Address(n), 0.0).realid for n in range(4096)]
    assert len(set(drawn)) == 4096
    assert 0 not in drawn
    for shift in (20, 12, 4, 0):
        shares = Counter(number >> shift & 15 for number in drawn)
        assert len(shares) == 16
        assert all(160 < share < 360 for share in shares.values()), shares
    steps = Counter(b - a for a, b in pairwise(drawn))
    assert max(steps.values()) < 4


def test_sk_13_a_number_that_is_taken_or_0_is_drawn_again() -> None:
    ids = AddressIds(SETTINGS, drawing(5, 5, 0, 6, 5))
    first, second = (ids.associate(ALICE, name, 0.0) for name in ("a.example", "b.example"))
    assert (first.realid, second.realid) == (5, 6)
    assert ids.look_up(ALICE, first, 0.0).destination == "a.example"


def test_randomness_that_is_broken_is_no_endless_loop() -> None:
    ids = AddressIds(SETTINGS, lambda octets: bytes(octets))
    error = refused(lambda: ids.associate(ALICE, BOB, 0.0))
    assert (type(error), error.code) == (TableFull, ReplyCode.FAILURE)
    assert len(ids) == 0


def test_sk_15_an_id_is_of_no_use_to_another() -> None:
    """Another address, another user at that address, another connection of that user."""
    ids = table()
    mine = Scope(ALICE.address, "alice", lineage=1)
    number = ids.associate(mine, BOB, 0.0)
    for other in (
        CAROL,
        ALICE,
        Scope(ALICE.address, "mallet", lineage=1),
        Scope(ALICE.address, "alice", lineage=2),
        Scope(CAROL.address, "alice", lineage=1),
    ):
        ids.associate(other, "elsewhere.example", 0.0)
        assert a_wrong_id(ids, other, 0.0, number.realid).code == ReplyCode.INVALID_ADDRESS
    assert ids.look_up(mine, number, 0.0).destination == BOB


def test_sk_16_the_same_number_may_be_two_clients() -> None:
    ids = AddressIds(SETTINGS, drawing(77, 77))
    alices, carols = ids.associate(ALICE, BOB, 0.0), ids.associate(CAROL, "carol.example", 0.0)
    assert alices == carols
    assert ids.look_up(ALICE, alices, 0.0).destination == BOB
    assert ids.look_up(CAROL, carols, 0.0).destination == "carol.example"
    ids.expire(SETTINGS.idle - 1)
    ids.look_up(CAROL, carols, SETTINGS.idle - 1)
    assert a_wrong_id(ids, ALICE, SETTINGS.idle, 77).reason == "expired_id"
    assert ids.look_up(CAROL, carols, SETTINGS.idle).destination == "carol.example"


def test_sk_17_who_guesses_is_locked_out_and_nobody_else() -> None:
    ids = table()
    number, carols = ids.associate(ALICE, BOB, 0.0), ids.associate(CAROL, BOB, 0.0)
    for guess in range(1, SETTINGS.failures + 1):
        assert isinstance(a_wrong_id(ids, ALICE, 1.0, guess), UnknownId)
    for _ in range(3):
        error = refused(lambda: ids.look_up(ALICE, number, 2.0))
        assert isinstance(error, LockedOut)
        assert error.code == ReplyCode.INVALID_ADDRESS, "it looks like any other wrong ID"
    assert ids.look_up(CAROL, carols, 2.0).destination == BOB
    assert ids.look_up(ALICE, number, 1.0 + SETTINGS.lockout).destination == BOB
    assert ids.snapshot()["lockouts"] == 1
    assert ids.snapshot()["locked_out"] == 3


def test_sk_17_failures_are_counted_within_the_window_only() -> None:
    ids = table()
    number = ids.associate(ALICE, BOB, 0.0)
    between = 1.01 * SETTINGS.window / (SETTINGS.failures - 1)
    for guess in range(40):
        a_wrong_id(ids, ALICE, guess * between, guess + 1)
        ids.look_up(ALICE, number, guess * between)
    assert "lockouts" not in ids.snapshot()


def test_sk_17_the_same_wrong_number_again_is_no_guess() -> None:
    """A client that repeats itself, as those of UDP do, is not locked out for it."""
    ids = table()
    number = ids.associate(ALICE, BOB, 0.0)
    for _ in range(100):
        a_wrong_id(ids, ALICE, 1.0, 12345)
    assert ids.look_up(ALICE, number, 1.0)


def test_sk_17_an_id_of_before_is_no_guess() -> None:
    ids = table()
    old = [ids.associate(ALICE, IPv4Address(n), 0.0) for n in range(50)]
    later = SETTINGS.idle
    number = ids.associate(ALICE, BOB, later)
    for each in old:
        assert a_wrong_id(ids, ALICE, later, each.realid).reason == "expired_id"
    assert ids.look_up(ALICE, number, later)


def test_sk_17_whoever_tries_all_numbers_finds_few_enough() -> None:
    """A day of guessing as fast as it goes: less than one in a thousand of all numbers was
    looked at, so one of ten IDs is found less than once in a hundred days."""
    ids = table(replace(SETTINGS, idle=1e9, lifetime=1e9))
    ids.associate(ALICE, BOB, 0.0)
    looked_at, now, guess = 0, 0.0, 0
    while now < 3600:
        guess += 1
        looked_at += not isinstance(a_wrong_id(ids, ALICE, now, guess), LockedOut)
        now += 0.25
    assert looked_at * 24 < 2**24 / 1000


def test_guesses_of_who_has_no_id_cost_no_memory() -> None:
    ids = table()
    for number in range(5000):
        a_wrong_id(ids, Scope(IPv4Address(number)), 0.0, number + 1)
    assert ids.snapshot()["scopes"] == 0


def test_sk_18_a_number_leads_nowhere_else_for_a_while() -> None:
    settings = replace(SETTINGS, idle=10.0, quarantine=100.0)
    ids = AddressIds(settings, drawing(1, 1, 2, 1))
    ids.associate(ALICE, "first.example", 0.0)
    second = ids.associate(ALICE, "second.example", 10.0)
    assert second.realid == 2
    assert a_wrong_id(ids, ALICE, 109.9, 1).reason == "expired_id"
    third = ids.associate(ALICE, "third.example", 110.0)
    assert third.realid == 1
    assert ids.look_up(ALICE, third, 110.0).destination == "third.example"


def test_sk_18_unknown_and_expired_look_alike() -> None:
    ids = table()
    number = ids.associate(ALICE, BOB, 0.0)
    ids.associate(ALICE, "other.example", 599.0)
    expired = refused(lambda: ids.look_up(ALICE, number, 600.0))
    unknown = a_wrong_id(ids, ALICE, 600.0, number.realid ^ 1)
    assert expired.code == unknown.code == ReplyCode.INVALID_ADDRESS


def test_sk_19_idle_and_absolute_lifetime() -> None:
    ids = table(replace(SETTINGS, idle=100.0, lifetime=1000.0))
    number = ids.associate(ALICE, BOB, 0.0)
    for now in range(0, 1000, 99):
        assert ids.look_up(ALICE, number, float(now))
    assert isinstance(refused(lambda: ids.look_up(ALICE, number, 1000.0)), UnknownId)
    number = ids.associate(ALICE, BOB, 2000.0)
    assert isinstance(refused(lambda: ids.look_up(ALICE, number, 2100.0)), UnknownId)
    assert len(ids) == 0


def test_sk_19_in_use_it_lasts() -> None:
    ids = table()
    number = ids.associate(ALICE, BOB, 0.0)
    entry = ids.look_up(ALICE, number, 0.0)
    ids.hold(entry)
    ids.hold(entry)
    week = 7 * 86400.0
    ids.expire(week)
    assert ids.look_up(ALICE, number, week) is entry
    ids.release(entry, week)
    assert ids.look_up(ALICE, number, week + 1000) is entry
    ids.release(entry, week + 1000)
    assert isinstance(refused(lambda: ids.look_up(ALICE, number, week + 1000)), UnknownId)
    assert len(ids) == 0


def test_sk_19_after_its_use_the_idle_time_begins() -> None:
    ids = table()
    number = ids.associate(ALICE, BOB, 0.0)
    entry = ids.look_up(ALICE, number, 0.0)
    ids.hold(entry)
    ids.release(entry, 5000.0)
    assert ids.look_up(ALICE, number, 5000.0 + SETTINGS.idle - 1) is entry


def test_an_entry_that_went_before_it_was_held_harms_no_other() -> None:
    """Between a look-up and its use a name is resolved: the entry may be over by then."""
    ids = AddressIds(replace(SETTINGS, idle=10.0, quarantine=10.0), drawing(1, 1))
    old = ids.look_up(ALICE, ids.associate(ALICE, BOB, 0.0), 0.0)
    ids.expire(20.0)
    ids.expire(30.0)
    new = ids.associate(ALICE, "new.example", 30.0)
    assert new == old.id
    ids.hold(old)
    ids.release(old, 31.0)
    assert ids.look_up(ALICE, new, 31.0).destination == "new.example"
    ids.expire(60.0)
    assert len(ids) == 0


def test_sk_20_the_least_recently_used_gives_way() -> None:
    ids = table(replace(SETTINGS, per_scope=3))
    a, b, c = (ids.associate(ALICE, IPv4Address(n), 0.0) for n in range(3))
    ids.look_up(ALICE, a, 1.0)
    ids.hold(ids.look_up(ALICE, b, 2.0))
    ids.associate(ALICE, BOB, 3.0)
    assert isinstance(refused(lambda: ids.look_up(ALICE, c, 3.0)), UnknownId)
    ids.associate(ALICE, "next.example", 4.0)
    assert isinstance(refused(lambda: ids.look_up(ALICE, a, 4.0)), UnknownId)
    assert ids.look_up(ALICE, b, 4.0), "in use"


def test_sk_20_a_table_in_use_is_full() -> None:
    ids = table(replace(SETTINGS, per_scope=2, total=3))
    for n in range(2):
        ids.hold(ids.look_up(ALICE, ids.associate(ALICE, IPv4Address(n), 0.0), 0.0))
    error = refused(lambda: ids.associate(ALICE, BOB, 0.0))
    assert (type(error), error.code, error.reason) == (TableFull, ReplyCode.FAILURE, "ids_of_scope")
    ids.hold(ids.look_up(CAROL, ids.associate(CAROL, BOB, 0.0), 0.0))
    assert refused(lambda: ids.associate(CAROL, "b.example", 0.0)).reason == "ids_in_all"
    assert ids.associate(ALICE, IPv4Address(1), 0.0), "what is there already needs no room"


def test_sk_20_a_crowd_empties_no_other_scope() -> None:
    ids = table(replace(SETTINGS, per_scope=100, total=500))
    mine = [ids.associate(CAROL, IPv4Address(n), 0.0) for n in range(5)]
    for scope in range(50):
        for n in range(100):
            ids.associate(Scope(IPv4Address(scope)), IPv4Address(n), 1.0)
    assert len(ids) == 500
    for number in mine:
        assert ids.look_up(CAROL, number, 2.0)


def test_numbers_in_quarantine_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = table(replace(SETTINGS, per_scope=4, total=16))
    most = addressids.QUARANTINED_OF_A_SCOPE * 4
    for n in range(most + 4):
        ids.associate(ALICE, IPv4Address(n), 0.0)
    error = refused(lambda: ids.associate(ALICE, BOB, 0.0))
    assert (type(error), error.reason) == (TableFull, "ids_in_quarantine")
    assert ids.associate(CAROL, BOB, 0.0), "it is the scope's own limit"
    assert ids.associate(ALICE, BOB, SETTINGS.quarantine)

    for scope in range(100):
        for n in range(20):
            ids.associate(Scope(IPv4Address(scope)), IPv4Address(n), 1000.0)
    assert ids.snapshot()["quarantined"] <= addressids.QUARANTINED_IN_ALL * 16


def test_sk_21_the_same_destination_has_the_same_id() -> None:
    ids = table(replace(SETTINGS, lifetime=1000.0))
    number = ids.associate(ALICE, "Bob.Example", 0.0)
    assert ids.associate(ALICE, "bob.example", 500.0) == number
    assert ids.associate(CAROL, "bob.example", 500.0) != number
    assert ids.look_up(ALICE, number, 1099.0), "its time began anew"
    assert isinstance(refused(lambda: ids.look_up(ALICE, number, 1700.0)), UnknownId)
    assert ids.associate(ALICE, "bob.example", 1700.0) != number

    other = table(replace(SETTINGS, refresh=False))
    assert other.associate(ALICE, BOB, 0.0) != other.associate(ALICE, BOB, 0.0)


def test_another_preference_is_another_id() -> None:
    ids = table()
    first = ids.associate(ALICE, BOB, 0.0, preference=AddressType.IPV4)
    second = ids.associate(ALICE, BOB, 0.0, preference=AddressType.IPV6)
    assert first != second
    assert ids.look_up(ALICE, first, 0.0).preference == AddressType.IPV4
    assert ids.look_up(ALICE, second, 0.0).preference == AddressType.IPV6


def test_where_a_name_led_is_known_for_its_time() -> None:
    ids = table()
    led = Resolved((BOB,), 30.0)
    entry = ids.look_up(ALICE, ids.associate(ALICE, "bob.example", 0.0, resolved=led), 0.0)
    assert entry.resolved(29.9) == led
    assert entry.resolved(30.0) is None
    entry.learn(replace(led, seconds=5.0), 40.0)
    assert entry.resolved(44.0) is not None


def test_a_port_that_a_name_says_itself_is_of_one_transport() -> None:
    """Moniker's services have another port for each."""
    ids = table()
    led = Resolved((BOB,), 30.0, 41234)
    entry = ids.look_up(ALICE, ids.associate(ALICE, "star.mon", 0.0, resolved=led), 0.0)
    assert entry.resolved(1.0) == led
    assert entry.resolved(1.0, UDP) is None
    entry.learn(replace(led, port=51234), 1.0, UDP)
    assert entry.resolved(2.0, UDP) == replace(led, port=51234)
    assert entry.resolved(2.0) is None
    entry.learn(replace(led, port=None), 3.0)
    assert entry.resolved(4.0, UDP) is not None


def test_a_scope_that_is_over_is_forgotten() -> None:
    ids = table(replace(SETTINGS, quarantine=10.0))
    mine = Scope(ALICE.address, lineage=9)
    ids.hold(ids.look_up(mine, ids.associate(mine, BOB, 0.0), 0.0))
    ids.associate(mine, "bob.example", 0.0)
    ids.forget(mine, 1.0)
    assert len(ids) == 0
    ids.expire(11.0)
    assert ids.snapshot()["scopes"] == 0
    ids.forget(mine, 12.0)


def test_no_number_is_told() -> None:
    """REALIDs are keys: neither traces nor errors have them (as text: "an ADDRESS ID")."""
    ids = AddressIds(SETTINGS, drawing(0xABCDEF))
    entry = ids.look_up(ALICE, ids.associate(ALICE, BOB, 0.0), 0.0)
    wrong = a_wrong_id(ids, ALICE, 0.0, 0xABCDEE)
    for text in (repr(entry), str(wrong), repr(wrong), str(ids.snapshot())):
        for form in ("11259375", "11259374", "abcdef", "abcdee"):
            assert form not in text.lower()


def consistent(ids: AddressIds) -> None:
    """All its indexes say the same."""
    entries = [e for t in ids._tables.values() for e in t.entries.values()]
    assert len(entries) == len(ids)
    unused = {(e.scope, e.id.realid) for e in entries if not e.uses}
    assert set(ids._unused) == unused
    assert {(s, n) for s, t in ids._tables.items() for n in t.unused} == unused
    sizes = Counter(scope for scope, _ in unused)
    assert ids._sizes._of == dict(sizes)
    largest = ids._sizes.largest()
    assert (sizes[largest] if largest else 0) == max(sizes.values(), default=0)
    freed = {(scope, number) for _, scope, number in ids._freed}
    assert {(s, n) for s, t in ids._tables.items() for n in t.quarantined} == freed
    assert not freed & {(e.scope, e.id.realid) for e in entries}
    assert all(t.entries or t.quarantined for t in ids._tables.values())
    ages = [entry.used for entry in ids._unused.values()]
    assert ages == sorted(ages)


@pytest.mark.parametrize("seed", range(amount(20, 4)))
def test_a_random_life(seed: int) -> None:
    """Against a list of what was told to whom: an ID leads where it was said to, or nowhere."""
    rng = random.Random(seed)
    settings = AddressIdSettings(
        idle=50.0, lifetime=300.0, quarantine=40.0, per_scope=8, total=20, failures=4, window=10.0,
        lockout=10.0,
    )  # fmt: skip
    ids = AddressIds(settings, lambda octets: rng.randrange(64).to_bytes(octets, "big"))
    scopes = [Scope(IPv4Address(n)) for n in range(5)]
    told: dict[tuple[Scope, int], tuple[str, float]] = {}
    held: list[Entry] = []
    now = 0.0
    for _ in range(600):
        now += rng.choice((0.0, 0.1, 1.0, 5.0))
        scope = rng.choice(scopes)
        match rng.randrange(6):
            case 0 | 1:
                name = f"host-{rng.randrange(30)}.example"
                try:
                    number = ids.associate(scope, name, now)
                except TableFull:
                    continue
                before = told.get((scope, number.realid))
                assert before is None or before[0] == name or now - before[1] >= 40.0
                told[scope, number.realid] = name, now
            case 2 | 3:
                realid = rng.randrange(64)
                try:
                    entry = ids.look_up(scope, AddressId(realid), now)
                except (UnknownId, LockedOut):
                    continue
                assert told[scope, realid][0] == entry.destination
                told[scope, realid] = told[scope, realid][0], now
                if rng.random() < 0.4:
                    ids.hold(entry)
                    held.append(entry)
            case 4 if held:
                ids.release(held.pop(rng.randrange(len(held))), now)
            case 5:
                ids.expire(now)
        for entry in held:
            assert ids.associated(entry.scope, entry.id) is entry
        assert len(ids) <= 20
        consistent(ids)


def test_the_largest_table_costs_as_much_as_a_small_one() -> None:
    """An association and a look-up among 65,536 of 4,096 scopes, and with each scope its own."""

    def seconds(total: int) -> float:
        ids = table(replace(SETTINGS, total=total))
        for n in range(total):
            ids.associate(Scope(IPv4Address(n % 4096)), IPv4Address(n), 0.0)
        best = 1.0
        for _ in range(3):
            began = time.perf_counter()
            for n in range(200):
                scope = Scope(IPv4Address(n), "new")
                ids.look_up(scope, ids.associate(scope, BOB, 1.0), 1.0)
            best = min(best, time.perf_counter() - began)
        return best

    assert seconds(amount(65536, 32768)) < 8 * seconds(256) + 0.01
