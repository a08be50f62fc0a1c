"""What is registered: owners, limits, versions, instances (MK-1, MK-8, MK-9, MK-21, MK-22)."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address

import pytest

from oegw.moniker.interface import Entry, Owner, Service
from oegw.moniker.names import ServiceName, Version
from oegw.moniker.registry import (
    MAX_TEXT_OCTETS,
    MAX_TEXTS,
    MAX_WEIGHT,
    Limits,
    NotFound,
    RegistrationRefused,
    Registry,
)
from oegw.moniker.wire import Code

ALICE = Owner(pid=100, uid=1000, gid=1000, user="alice")
BOB = Owner(pid=200, uid=1001, gid=1001, user="bob")
ROOT = Owner(pid=1, uid=0, gid=0, user="root")
CHOOSE = random.Random(7).randrange


def service(
    name: str = "starwars",
    version: str = "1",
    transport: str = "tcp",
    port: int = 40000,
    families: str = "46",
    namespace: str = "",
    weight: int = 100,
) -> Service:
    return Service(name, Version.parse(version), transport, port, families, namespace, weight)


def found(registry: Registry, name: str, transport: str | None = "tcp", **how: object) -> Entry:
    return registry.find(ServiceName.parse(name), transport, CHOOSE, **how)  # type: ignore[arg-type]


def code_of(call: Callable[[], object]) -> Code | str:
    with pytest.raises((NotFound, RegistrationRefused)) as caught:
        call()
    assert str(caught.value)
    return caught.value.code


def test_mk_1_a_name_leads_to_its_port() -> None:
    registry = Registry()
    entry = registry.register(service(port=9876), ALICE, 5.0)
    assert found(registry, "StarWars") == entry
    assert (entry.service.port, entry.owner, entry.since) == (9876, ALICE, 5.0)
    assert registry.entries() == (entry,)
    assert registry.entry(entry.number) == entry
    assert len(registry) == registry.of_user(1000) == 1


def test_mk_8_register_update_unregister_list() -> None:
    registry = Registry()
    one = registry.register(service("one"), ALICE, 0.0)
    two = registry.register(service("two"), ALICE, 0.0)
    changed = registry.update(one.number, ALICE, weight=7, exported=True, text=("path=/",))
    assert changed.service == replace(one.service, weight=7, exported=True, text=("path=/",))
    assert registry.update(one.number, ALICE) == changed
    assert registry.entries() == (changed, two)
    assert found(registry, "one") == changed
    assert registry.unregister(two.number, ALICE) == two
    assert registry.entries() == (changed,)
    assert code_of(lambda: registry.unregister(two.number, ALICE)) == "unknown"


def test_mk_11_what_there_is_not_has_a_code() -> None:
    registry = Registry()
    registry.register(service("http", "2", namespace="alice"), ALICE, 0.0)
    assert code_of(lambda: found(registry, "http")) is Code.UNKNOWN
    assert code_of(lambda: found(registry, "bob::http")) is Code.UNKNOWN
    assert code_of(lambda: found(registry, "alice::http", "udp")) is Code.TRANSPORT
    assert code_of(lambda: found(registry, "alice::http@1")) is Code.VERSION
    assert code_of(lambda: found(registry, "alice::http", tcpmux=True)) is Code.TRANSPORT
    assert found(registry, "alice::http@2", None)


def test_mk_9_versions_side_by_side_the_highest_that_will_do() -> None:
    registry = Registry()
    ports = {}
    for port, version in enumerate(("1", "1.10", "1.9", "2"), 1000):
        registry.register(service("http", version, port=port), ROOT, 0.0)
        ports[version] = port
    for asked, version in (
        ("http", "2"),
        ("http@1", "1"),
        ("http@>=1,<2", "1.10"),
        ("http@<1.10", "1.9"),
        ("http@2.0", "2"),
    ):
        assert found(registry, asked).service.port == ports[version]
    assert code_of(lambda: found(registry, "http@>2")) is Code.VERSION


def test_mk_9_instances_share_by_weight() -> None:
    registry = Registry()
    for port, weight in ((1, 100), (2, 300), (3, 600)):
        registry.register(service(port=port, weight=weight), ROOT, 0.0)
    ports = Counter(found(registry, "starwars").service.port for _ in range(10_000))
    for port, share in ((1, 0.1), (2, 0.3), (3, 0.6)):
        assert abs(ports[port] / 10_000 - share) < 0.03  # six standard deviations
    drawn = [
        registry.find(ServiceName.parse("starwars"), "tcp", lambda _, at=at: at).service.port
        for at in (0, 99, 100, 399, 400, 999)
    ]
    assert drawn == [1, 1, 2, 2, 3, 3]


def test_mk_13_namespaces_are_apart() -> None:
    registry = Registry()
    registry.register(service("http", port=1, namespace="alice"), ALICE, 0.0)
    registry.register(service("http", port=2, namespace="bob"), BOB, 0.0)
    registry.register(service("http", port=3), ROOT, 0.0)
    ports = [found(registry, each).service.port for each in ("alice::http", "Bob::http", "http")]
    assert ports == [1, 2, 3]


def test_mk_29_who_listens_on_the_client_s_family_comes_first() -> None:
    registry = Registry()
    registry.register(service(version="3", port=1, families="4"), ROOT, 0.0)
    registry.register(service(version="2", port=2, families="46"), ROOT, 0.0)
    assert found(registry, "starwars", family="6").service.port == 2
    assert found(registry, "starwars", family="4").service.port == 1
    assert found(registry, "starwars@3", family="6").service.families == "4"


def test_mk_29_a_service_of_one_address_is_told_there_only() -> None:
    registry = Registry()
    here, there = ip_address("192.0.2.1"), ip_address("192.0.2.2")
    registry.register(replace(service(version="2", port=1), address=here), ROOT, 0.0)
    assert found(registry, "starwars", at=here).service.port == 1
    assert found(registry, "starwars").service.port == 1
    assert code_of(lambda: found(registry, "starwars", at=there)) is Code.UNKNOWN
    registry.register(service(port=2), ROOT, 0.0)
    assert found(registry, "starwars", at=there).service.port == 2
    assert found(registry, "starwars", at=here).service.port == 1


def test_mk_7_transports_of_one_name() -> None:
    registry = Registry()
    registry.register(service(transport="tcp", port=1), ROOT, 0.0)
    registry.register(service(transport="udp", port=1), ROOT, 0.0)
    assert found(registry, "starwars", "udp").service.transport == "udp"
    assert found(registry, "starwars", "stream").service.transport == "tcp"
    assert found(registry, "starwars", "datagram").service.transport == "udp"
    registry.register(service("here", transport="own"), ROOT, 0.0)  # an application's own
    assert code_of(lambda: found(registry, "here", "stream")) is Code.TRANSPORT
    assert found(registry, "here", "own").service.transport == "own"
    anything = {found(registry, "starwars", None).service.transport for _ in range(100)}
    assert anything == {"tcp", "udp"}


# ------------------------------------------------------------------- whose it is


def test_mk_21_only_the_process_that_registered_changes_it() -> None:
    registry = Registry()
    entry = registry.register(service(), ALICE, 0.0)
    for other in (BOB, ROOT, replace(ALICE, pid=101), replace(ALICE, uid=1001)):
        assert code_of(lambda other=other: registry.unregister(entry.number, other)) == "unknown"
        assert code_of(lambda other=other: registry.update(entry.number, other, weight=1)) == (
            "unknown"
        )
    assert registry.entries() == (entry,)
    said = {str(_raised(lambda n=n: registry.unregister(n, BOB))) for n in (entry.number, 4711)}
    assert len(said) == 1  # whether there is such an entry is none of his business


def _raised(call: Callable[[], object]) -> RegistrationRefused:
    with pytest.raises(RegistrationRefused) as caught:
        call()
    return caught.value


def test_mk_22_entries_end_with_their_process() -> None:
    registry = Registry()
    mine = [registry.register(service(name), ALICE, 0.0) for name in ("a", "b", "c")]
    other = registry.register(service("a"), BOB, 0.0)
    registry.unregister(mine[1].number, ALICE)
    assert registry.process_ended(ALICE.pid) == [mine[0], mine[2]]
    assert registry.process_ended(ALICE.pid) == []
    assert registry.entries() == (other,)
    assert found(registry, "a") == other
    assert registry.of_user(ALICE.uid) == 0


def test_numbers_are_never_used_twice() -> None:
    registry = Registry()
    numbers = []
    for _ in range(5):
        numbers.append(registry.register(service(), ALICE, 0.0).number)
        registry.process_ended(ALICE.pid)
    assert numbers == sorted(set(numbers))
    assert registry.remove(numbers[0]) is None


def test_a_connection_that_ended_takes_its_entry_along() -> None:
    registry = Registry()
    entry = registry.register(service(), ALICE, 0.0)
    assert registry.remove(entry.number) == entry
    assert registry.process_ended(ALICE.pid) == []
    assert len(registry) == 0


# ------------------------------------------------------------------------ bounds


def test_limits_of_a_user_of_all_and_of_a_name() -> None:
    registry = Registry(Limits(services=3, all=8, instances=4))
    for number in range(3):
        registry.register(service(f"a{number}"), ALICE, 0.0)
    assert code_of(lambda: registry.register(service("a3"), ALICE, 0.0)) == "limit"
    assert code_of(lambda: registry.register(service("x"), replace(ALICE, pid=9), 0.0)) == "limit"
    registry.register(service("b"), BOB, 0.0)
    for _ in range(4):
        registry.register(service("r"), ROOT, 0.0)  # root has no limit of his own
    assert code_of(lambda: registry.register(service("s"), ROOT, 0.0)) == "limit"
    registry.process_ended(ALICE.pid)
    assert code_of(lambda: registry.register(service("r"), ROOT, 0.0)) == "limit"
    registry.register(service("s"), ALICE, 0.0)
    assert len(registry) == 6


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"service": "a b"}, "malformed"),
        ({"service": ""}, "malformed"),
        ({"namespace": "-"}, "malformed"),
        ({"namespace": "a:b"}, "malformed"),
        ({"port": 0}, "malformed"),
        ({"port": 65536}, "malformed"),
        ({"families": "64"}, "malformed"),
        ({"weight": 0}, "malformed"),
        ({"weight": MAX_WEIGHT + 1}, "malformed"),
        ({"text": ("",)}, "malformed"),
        ({"text": ("x" * (MAX_TEXT_OCTETS + 1),)}, "malformed"),
        ({"text": ("x",) * (MAX_TEXTS + 1)}, "limit"),
        ({"text": ("x" * MAX_TEXT_OCTETS,) * 5}, "limit"),
    ],
)
def test_what_can_t_be_registered(change: dict[str, object], code: str) -> None:
    registry = Registry()
    bad = replace(service(), **change)  # type: ignore[arg-type]
    assert code_of(lambda: registry.register(bad, ALICE, 0.0)) == code
    assert len(registry) == registry.of_user(1000) == 0
    entry = registry.register(service(), ALICE, 0.0)
    if "weight" in change or "text" in change:
        assert code_of(lambda: registry.update(entry.number, ALICE, **change)) == code  # type: ignore[arg-type]
    assert registry.entries() == (entry,)


def test_names_are_compared_in_their_one_form() -> None:
    registry = Registry()
    entry = registry.register(service("StarWars", namespace="Alice"), ALICE, 0.0)
    assert (entry.service.service, entry.service.namespace) == ("starwars", "alice")
    assert found(registry, "ALICE::STARWARS") == entry


def test_a_look_up_costs_the_same_among_ten_thousand() -> None:
    """By growth: what one costs with 10,000 names is at most a few times what it costs with 100."""

    def seconds(names: int) -> float:
        registry = Registry()
        for number in range(names):
            registry.register(service(f"s{number}", port=1 + number), ROOT, 0.0)
        asked = [ServiceName.parse(f"s{number}") for number in range(0, names, names // 100)]
        best = 1.0
        for _ in range(5):
            start = time.perf_counter()
            for name in asked:
                registry.find(name, "tcp", CHOOSE)
            best = min(best, time.perf_counter() - start)
        return best

    assert seconds(10_000) < 8 * seconds(100)


def test_any_order_of_calls_leaves_the_books_straight() -> None:
    """2,000 calls at random, beside a plain list."""
    rng = random.Random(1821)
    registry, kept = Registry(Limits(services=20, all=50, instances=10)), dict[int, Entry]()
    owners = [ROOT, *(Owner(10 + n, 1000 + n % 3, 0, f"u{n % 3}") for n in range(6))]
    for now in range(2000):
        owner = rng.choice(owners)
        match rng.randrange(6):
            case 0 | 1 | 2:
                new = service(rng.choice("abcdef"))
                mine = [e for e in kept.values() if e.owner.uid == owner.uid]
                same = [e for e in kept.values() if e.service.service == new.service]
                if len(kept) >= 50 or (owner.uid and len(mine) >= 20) or len(same) >= 10:
                    with pytest.raises(RegistrationRefused):
                        registry.register(new, owner, now)
                else:
                    entry = registry.register(new, owner, now)
                    kept[entry.number] = entry
            case 3 if kept:
                entry = rng.choice(list(kept.values()))
                if entry.owner == owner:
                    kept.pop(registry.unregister(entry.number, owner).number)
            case 4 if kept:
                entry = rng.choice(list(kept.values()))
                changed = registry.update(entry.number, entry.owner, weight=1 + now % 1000)
                kept[entry.number] = changed
            case 5 if now % 20 == 0:
                for entry in registry.process_ended(owner.pid):
                    assert kept.pop(entry.number).owner == owner
            case _:
                continue
        assert registry.entries() == tuple(kept.values())
        assert len(registry) == len(kept)
    for owner in owners:
        registry.process_ended(owner.pid)
    assert len(registry) == 0
    assert not any((registry._named, registry._of_process, registry._of_user))
