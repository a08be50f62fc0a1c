"""What is known of hosts' keys: who is believed, for how long, and how much is remembered."""

from __future__ import annotations

from ipaddress import IPv4Address, ip_address

import pytest

from dnsrecords.outcome import Malformed, NamesFound, NothingFound, SstKeysFound, Unanswered
from dnsrecords.trust import Trust
from oegw.sst.directory import (
    MAX_ROWS,
    MAX_SECONDS,
    MIN_SECONDS,
    SILENCE_SECONDS,
    KeyDirectory,
    KnownKeys,
    NoKeys,
    NotToBeTrusted,
    Silence,
    Source,
)
from oegw.sst.interface import Algorithm
from tests.support.sst_keys import sst_key

BOB, CAROL = ip_address("192.2.0.66"), ip_address("192.1.1.67")
SG_B = ip_address("192.1.1.5")
KEY = sst_key(SG_B)
BOBS = sst_key(BOB, 2)
NAME = "bob.example"
NOTHING = NothingFound(60.0, "no such record")


def found(*keys: object, ttl: float = 300.0, trust: Trust = Trust.INSECURE) -> SstKeysFound:
    return SstKeysFound(keys, ttl, trust)  # type: ignore[arg-type]


@pytest.fixture
def directory() -> KeyDirectory:
    return KeyDirectory()


def test_of_who_was_never_asked_nothing_is_known(directory: KeyDirectory) -> None:
    assert directory.find(BOB, 0.0) is None


def test_sst32_keys_hold_for_their_ttl(directory: KeyDirectory) -> None:
    known = directory.learn(BOB, found(KEY), 100.0)
    assert known == KnownKeys((KEY,), Trust.INSECURE, Source.REVERSE, 400.0)
    assert directory.find(BOB, 399.9) == known
    assert directory.find(BOB, 400.0) is None
    assert directory.find(CAROL, 100.0) is None


def test_sst32_that_there_are_none_holds_for_the_negative_ttl(directory: KeyDirectory) -> None:
    assert directory.learn(BOB, NOTHING, 0.0) == NoKeys("no such record", 60.0)
    assert directory.find(BOB, 59.9) == NoKeys("no such record", 60.0)
    assert directory.find(BOB, 60.0) is None


def test_sst36_silence_holds_for_a_moment(directory: KeyDirectory) -> None:
    silence = Silence("no answer in time", SILENCE_SECONDS)
    assert directory.learn(BOB, Unanswered("no answer in time"), 0.0) == silence
    assert directory.find(BOB, SILENCE_SECONDS - 0.1) == silence
    assert directory.find(BOB, SILENCE_SECONDS) is None


def test_sst36_silence_does_not_undo_what_is_known(directory: KeyDirectory) -> None:
    known = directory.learn(BOB, found(KEY), 0.0)
    assert directory.learn(BOB, Unanswered("no answer"), 10.0) == known
    assert directory.find(BOB, 11.0) == known
    directory.learn(CAROL, NOTHING, 0.0)
    assert isinstance(directory.learn(CAROL, Unanswered("no answer"), 1.0), NoKeys)


def test_what_can_not_be_read_is_told_apart(directory: KeyDirectory) -> None:
    bad = NotToBeTrusted("bogus", 30.0)
    assert directory.learn(BOB, Malformed("bogus", 30.0), 0.0) == bad
    assert directory.find(BOB, 1.0, secure=True) == bad


def test_the_last_answer_counts(directory: KeyDirectory) -> None:
    directory.learn(BOB, found(KEY), 0.0)
    directory.learn(BOB, NOTHING, 1.0)
    assert isinstance(directory.find(BOB, 2.0), NoKeys)
    directory.learn(BOB, Malformed("odd", 60.0), 2.0)
    assert isinstance(directory.find(BOB, 3.0), NotToBeTrusted)
    directory.learn(BOB, found(KEY), 3.0)
    assert isinstance(directory.find(BOB, 4.0), KnownKeys)
    directory.learn(BOB, NOTHING, 5.0)
    assert isinstance(directory.find(BOB, 6.0), NoKeys)


@pytest.mark.parametrize(
    ("ttl", "seconds"), [(0.0, MIN_SECONDS), (1.0, MIN_SECONDS), (1e9, MAX_SECONDS)]
)
def test_times_are_kept_within_bounds(directory: KeyDirectory, ttl: float, seconds: float) -> None:
    for outcome in (found(KEY, ttl=ttl), NothingFound(ttl, "none"), Malformed("odd", ttl)):
        assert directory.learn(BOB, outcome, 0.0).expires == seconds


# ----------------------------------------------------------------------- by name


def test_sst32_by_name_where_the_reverse_zone_has_none(directory: KeyDirectory) -> None:
    assert directory.learn_by_name(NAME, [BOB], found(BOBS), 0.0) == 1
    assert directory.find(BOB, 1.0) is None, "the reverse zone has to be asked first"
    by_name = KnownKeys((BOBS,), Trust.INSECURE, Source.NAME, 300.0, NAME)
    assert directory.learn(BOB, NOTHING, 2.0) == by_name
    assert directory.find(BOB, 3.0) == by_name
    # 62 seconds: the reverse zone is asked again.
    assert directory.find(BOB, 62.0) is None


def test_sst32_the_reverse_zone_wins(directory: KeyDirectory) -> None:
    directory.learn_by_name(NAME, [BOB], found(BOBS, trust=Trust.SECURE), 0.0)
    directory.learn(BOB, found(KEY), 0.0)
    known = directory.find(BOB, 1.0)
    assert isinstance(known, KnownKeys)
    assert (known.keys, known.source) == ((KEY,), Source.REVERSE)
    directory.learn(BOB, Malformed("odd", 60.0), 2.0)
    assert isinstance(directory.find(BOB, 3.0), NotToBeTrusted)
    directory.forget()
    directory.learn_by_name(NAME, [BOB], found(BOBS), 4.0)
    directory.learn(BOB, Unanswered("silent"), 4.0)
    assert isinstance(directory.find(BOB, 5.0), Silence), "nobody said that there is none"


def test_a_name_speaks_for_hosts_that_are_their_own_gateway_only(directory: KeyDirectory) -> None:
    """Mallet puts Bob's address beside his name, and a key of his own below it."""
    mallets = sst_key(CAROL, 66)
    assert directory.learn_by_name("mallet.example", [BOB], found(mallets, KEY), 0.0) == 0
    directory.learn(BOB, NOTHING, 0.0)
    assert isinstance(directory.find(BOB, 1.0), NoKeys)
    assert directory.learn_by_name(NAME, [BOB, CAROL], found(mallets, BOBS), 2.0) == 2
    known = directory.find(BOB, 3.0)
    assert isinstance(known, KnownKeys)
    assert known.keys == (BOBS,)


def test_the_first_name_is_believed_until_it_expires(directory: KeyDirectory) -> None:
    directory.learn(BOB, NothingFound(3600.0, "none"), 0.0)
    directory.learn_by_name(NAME, [BOB], found(BOBS, ttl=100.0), 0.0)
    others = sst_key(BOB, 66)
    assert directory.learn_by_name("mallet.example", [BOB], found(others), 1.0) == 0
    assert directory.learn_by_name("mallet.example", [BOB], NOTHING, 1.0) == 0
    known = directory.find(BOB, 99.0)
    assert isinstance(known, KnownKeys)
    assert known.keys == (BOBS,)
    assert directory.learn_by_name("other.example", [BOB], found(others), 101.0) == 1
    known = directory.find(BOB, 102.0)
    assert isinstance(known, KnownKeys)
    assert (known.keys, known.name) == ((others,), "other.example")


def test_a_name_may_change_its_mind(directory: KeyDirectory) -> None:
    directory.learn(BOB, NothingFound(3600.0, "none"), 0.0)
    newer = sst_key(BOB, 3)
    for outcome, keys in (
        (found(BOBS), (BOBS,)),
        (found(newer), (newer,)),
        (Unanswered("silent"), (newer,)),  # as for the reverse zone
        (NOTHING, None),
        (found(BOBS), (BOBS,)),
        (Malformed("odd", 60.0), None),
        (found(BOBS), (BOBS,)),
        (found(KEY), None),  # another's
    ):
        directory.learn_by_name(NAME, [BOB], outcome, 1.0)
        known = directory.find(BOB, 2.0)
        assert (known.keys if isinstance(known, KnownKeys) else None) == keys


def called(*names: str, ttl: float = 300.0, trust: Trust = Trust.INSECURE) -> NamesFound:
    return NamesFound(names, ttl, trust)


def test_sst32_a_name_that_the_reverse_zone_confirms_speaks_for_hosts_behind_a_gateway(
    directory: KeyDirectory,
) -> None:
    directory.learn(BOB, NothingFound(3600.0, "none"), 0.0)
    reverse = {BOB: called("other.example", NAME, ttl=50.0)}
    assert directory.learn_by_name(NAME, [BOB, CAROL], found(KEY), 0.0, reverse) == 1
    assert directory.find(BOB, 1.0) == KnownKeys(
        (KEY,), Trust.INSECURE, Source.NAME, 50.0, NAME, confirmed=True
    )
    directory.forget()
    directory.learn(BOB, NOTHING, 0.0)
    reverse = {BOB: called("other.example")}
    assert directory.learn_by_name(NAME, [BOB], found(KEY), 0.0, reverse) == 0
    assert isinstance(directory.find(BOB, 1.0), NoKeys)


def test_a_confirmed_name_takes_the_place_of_another(directory: KeyDirectory) -> None:
    directory.learn(BOB, NothingFound(3600.0, "none"), 0.0)
    directory.learn_by_name("mallet.example", [BOB], found(sst_key(BOB, 66)), 0.0)
    reverse = {BOB: called(NAME, "second.example")}
    for outcome in (NOTHING, Malformed("odd", 60.0), Unanswered("silent")):
        assert directory.learn_by_name(NAME, [BOB], outcome, 1.0, reverse) == 0
        known = directory.find(BOB, 1.0)
        assert isinstance(known, KnownKeys)
        assert known.name == "mallet.example"
    assert directory.learn_by_name(NAME, [BOB], found(KEY), 1.0, reverse) == 1
    assert directory.learn_by_name("second.example", [BOB], found(BOBS), 2.0, reverse) == 0
    assert directory.learn_by_name("mallet.example", [BOB], found(sst_key(BOB, 66)), 2.0) == 0
    known = directory.find(BOB, 3.0)
    assert isinstance(known, KnownKeys)
    assert (known.name, known.keys) == (NAME, (KEY,))


# ------------------------------------------------------------------------- trust


@pytest.mark.parametrize("trust", [Trust.INSECURE, Trust.INDETERMINATE])
def test_sst33_unsigned_keys_do_where_the_policy_asks_for_no_more(
    directory: KeyDirectory, trust: Trust
) -> None:
    directory.learn(BOB, found(KEY, trust=trust), 0.0)
    known = directory.find(BOB, 1.0)
    assert isinstance(known, KnownKeys)
    assert known.trust is trust
    refused = directory.find(BOB, 1.0, secure=True)
    assert refused == NoKeys(f"{BOB}: its keys are {trust.value}, not secure", 300.0)


def test_sst33_signed_keys_do_always(directory: KeyDirectory) -> None:
    directory.learn(BOB, found(KEY, trust=Trust.SECURE), 0.0)
    assert isinstance(directory.find(BOB, 1.0, secure=True), KnownKeys)


def test_sst33_a_name_can_not_vouch_for_an_address(directory: KeyDirectory) -> None:
    """Mallet's own zone may well be signed."""
    directory.learn_by_name(NAME, [BOB], found(BOBS, trust=Trust.SECURE), 0.0)
    directory.learn(BOB, NOTHING, 0.0)
    assert isinstance(directory.find(BOB, 1.0), KnownKeys)
    assert isinstance(directory.find(BOB, 1.0, secure=True), NoKeys)


@pytest.mark.parametrize("weak", [Trust.INSECURE, Trust.INDETERMINATE])
def test_sst33_a_confirmed_name_is_as_good_as_its_weakest_link(
    directory: KeyDirectory, weak: Trust
) -> None:
    directory.learn(BOB, NothingFound(3600.0, "none"), 0.0)
    secure, insecure = found(KEY, trust=Trust.SECURE), found(KEY, trust=weak)
    for outcome, trust, good in (
        (secure, Trust.SECURE, True), (insecure, Trust.SECURE, False), (secure, weak, False),
    ):  # fmt: skip
        directory.learn_by_name(NAME, [BOB], outcome, 0.0, {BOB: called(NAME, trust=trust)})
        assert isinstance(directory.find(BOB, 1.0), KnownKeys)
        assert isinstance(directory.find(BOB, 1.0, secure=True), KnownKeys) is good


# ------------------------------------------------------------------- which of them


def test_sst37_the_best_key_of_those_that_both_can_do(directory: KeyDirectory) -> None:
    keys = (
        sst_key(SG_B, 1, precedence=5, algorithm=2),
        sst_key(SG_B, 2, precedence=10, algorithm=1),
        sst_key(SG_B, 2, precedence=10, algorithm=2),
        sst_key(SG_B, 3, precedence=20, algorithm=1),
    )
    known = directory.learn(BOB, found(*keys), 0.0)
    assert isinstance(known, KnownKeys)
    small, large = Algorithm.FF1_AES_128, Algorithm.FF1_AES_256
    assert known.usable((small, large)) == keys
    assert known.usable((large, small)) == (keys[0], keys[2], keys[1], keys[3])
    assert known.usable((small,)) == (keys[1], keys[3])
    assert known.usable(()) == ()


# ------------------------------------------------------------------------ bounds


def test_sst36_strangers_do_not_push_out_keys() -> None:
    directory = KeyDirectory(limit=100)
    directory.learn(BOB, found(KEY, ttl=3600.0), 0.0)
    directory.learn_by_name(NAME, [CAROL], found(sst_key(CAROL), ttl=3600.0), 0.0)
    for number in range(1000):
        directory.learn(IPv4Address(0x0B000000 + number), NothingFound(3600.0, "none"), 1.0)
    assert isinstance(directory.find(BOB, 2.0), KnownKeys)
    counts = directory.snapshot(2.0)
    assert (counts["with_keys"], counts["by_name"], counts["without"]) == (1, 1, 100)


def test_the_least_wanted_go_first() -> None:
    directory = KeyDirectory(limit=3)
    hosts = [IPv4Address(0x0B000000 + number) for number in range(4)]
    for host in hosts[:3]:
        directory.learn(host, found(KEY), 0.0)
    directory.find(hosts[0], 1.0)
    directory.learn(hosts[3], found(KEY), 1.0)
    known = [directory.find(host, 2.0) is not None for host in hosts]
    assert known == [True, False, True, True]


def test_a_directory_without_room_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="of 0 addresses"):
        KeyDirectory(limit=0)


def test_forgotten_is_forgotten(directory: KeyDirectory) -> None:
    directory.learn(BOB, found(KEY), 0.0)
    directory.learn(CAROL, NOTHING, 0.0)
    directory.learn_by_name(NAME, [BOB], found(BOBS), 0.0)
    assert directory.forget(BOB) == 2
    assert directory.find(BOB, 1.0) is None
    assert isinstance(directory.find(CAROL, 1.0), NoKeys)
    assert directory.forget() == 1
    assert directory.forget() == 0
    directory.learn(BOB, NOTHING, 1.0)
    assert isinstance(directory.find(BOB, 2.0), NoKeys), "by name it is forgotten too"


def test_the_status_names_keys_by_their_ids(directory: KeyDirectory) -> None:
    directory.learn(BOB, found(KEY, trust=Trust.SECURE), 0.0)
    directory.learn_by_name("carol.example", [CAROL], found(sst_key(CAROL, 3)), 0.0)
    rows = directory.snapshot(100.0)["keys"]
    assert [(row["address"], row["source"], row["name"], row["trust"]) for row in rows] == [
        (str(BOB), "reverse", "", "secure"),
        (str(CAROL), "name", "carol.example", "insecure"),
    ]
    assert rows[0]["seconds"] == 200.0
    (key,) = rows[0]["keys"]
    assert (key["gateway"], key["algorithm"], key["precedence"]) == (str(SG_B), 1, 10)
    assert len(key["id"]) == 16
    for number in range(MAX_ROWS + 10):
        directory.learn(IPv4Address(0x0B000000 + number), found(KEY), 100.0)
    assert len(directory.snapshot(101.0)["keys"]) == MAX_ROWS
    assert directory.snapshot(1e9)["keys"] == []
