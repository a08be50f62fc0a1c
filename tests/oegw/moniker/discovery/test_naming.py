"""Services as DNS-SD has them, and read again from there."""

from __future__ import annotations

import random
from ipaddress import ip_address

import pytest

from dnsrecords.dnssd import Place, Text
from oegw.moniker.discovery.naming import (
    MAX_LABEL,
    MAX_TEXT,
    Finding,
    Instances,
    finding_of,
    strings_of,
    tellable,
    type_of,
)
from oegw.moniker.interface import Entry
from oegw.moniker.names import ServiceName, canonical
from oegw.moniker.uri import MonikerUri
from tests.support.moniker_entries import entry

BOB = ("bob", "site-b", "example")


def found(told: Entry) -> Finding | None:
    """What is read of what is told."""
    (label,) = Instances("bob").named([told])
    service = told.service
    instance = (label, *type_of(service.service, service.transport), "site-b", "example")
    return finding_of(
        instance,
        Place(0, service.weight, service.port, BOB),
        Text(strings_of(service)),
        [ip_address("192.2.0.66")],
        "site-b.example",
    )


@pytest.mark.parametrize(
    ("transport", "kind"),
    [("tcp", "_tcp"), ("mptcp", "_tcp"), ("udp", "_udp"), ("sctp", "_udp")],
)
def test_a_type_is_tcp_or_else_udp(transport: str, kind: str) -> None:
    """RFC 6763 section 7."""
    assert type_of("starwars", transport) == ("_starwars", kind)


@pytest.mark.parametrize("namespace", ["", "reynolds"])
@pytest.mark.parametrize("transport", ["tcp", "sctp", "udp"])
def test_what_is_told_is_found(namespace: str, transport: str) -> None:
    told = entry("chess", "1.2", transport=transport, namespace=namespace, text=("episode=4",))
    finding = found(told)
    assert finding is not None
    assert (finding.service, str(finding.version)) == ("chess", "1.2")
    assert (finding.namespace, finding.transport) == (namespace, transport)
    assert finding.says(["episode=4"])
    assert finding.says(["Episode=4"]), "keys have no case (RFC 6763 section 6.4)"
    assert not finding.says(["episode=5"])


def test_a_uri_has_no_port() -> None:
    """MK-5: who uses it asks the host's daemon."""
    finding = found(entry("http", "2", namespace="reynolds", port=28403))
    assert finding is not None
    assert finding.uri() == "reynolds::http@2://bob.site-b.example"
    assert "28403" not in finding.uri()


def test_a_uri_can_be_read_again() -> None:
    finding = found(entry(canonical("straße%"), "1", namespace="zoë"))
    assert finding is not None
    for host in (None, "2001:db8::1"):
        uri = MonikerUri.parse(finding.uri(host))
        assert str(uri.name) == "zoë::strasse%@1"
        assert uri.host == (host or "bob.site-b.example")


def test_titles_tell_instances_apart_and_stay() -> None:
    first, second, third = entry(), entry(), entry(version="2")
    instances = Instances("bob")
    assert list(instances.named([first, second, third])) == [
        "starwars 1 on bob",
        "starwars 1 on bob (2)",
        "starwars 2 on bob",
    ]
    assert instances.named([second]) == {"starwars 1 on bob (2)": second}
    fourth = entry()
    assert set(instances.named([second, fourth])) == {"starwars 1 on bob (2)", "starwars 1 on bob"}


def test_no_label_is_longer_than_a_label() -> None:
    entries = [entry("ß" * 31, "1") for _ in range(12)]
    labels = Instances("b" * 60).named(entries)
    assert len(labels) == 12
    assert all(len(label.encode()) <= MAX_LABEL for label in labels)


@pytest.mark.parametrize(("name", "fits"), [("x" * 62, True), ("x" * 63, False), ("ß" * 32, False)])
def test_a_name_that_has_no_room_in_a_label_is_not_told(name: str, fits: bool) -> None:
    assert tellable(entry(name).service) == fits


def test_our_keys_come_first_and_texts_are_bounded() -> None:
    service = entry(text=("version=9", "x=" + "y" * 300, *(f"k{n}={'v' * 200}" for n in range(20))))
    strings = strings_of(service.service)
    assert strings[:3] == (b"txtvers=1", b"version=1", b"transport=tcp")
    assert sum(1 + len(string) for string in strings) <= MAX_TEXT
    assert all(len(string) <= 255 for string in strings)
    finding = found(service)
    assert finding is not None
    assert str(finding.version) == "1", "of a key that comes twice the first counts"


@pytest.mark.parametrize(
    ("place", "text", "instance"),
    [
        (Place(0, 0, 0, BOB), Text(()), None),  # no port
        (Place(0, 0, 9, ()), Text(()), None),  # not available (RFC 2782)
        (Place(0, 0, 9, ("b\tob",)), Text(()), None),
        (Place(0, 0, 9, ("b?ob", "example")), Text(()), None),  # no host of a URI
        (Place(0, 0, 9, BOB), Text((b"version=x",)), None),
        (Place(0, 0, 9, BOB), Text((b"namespace=a:b",)), None),
        (Place(0, 0, 9, BOB), Text(()), ("x", "starwars", "_tcp", "e")),
        (Place(0, 0, 9, BOB), Text(()), ("x", "_")),
        (Place(0, 0, 9, BOB), Text(()), ("x", "_a b", "_tcp")),
    ],
)
def test_what_cannot_be_used_is_nothing(
    place: Place, text: Text, instance: tuple[str, ...] | None
) -> None:
    name = instance or ("x", "_starwars", "_tcp", "example")
    assert finding_of(name, place, text, [], "g") is None


def test_a_service_of_others_without_our_keys_is_found_too() -> None:
    finding = finding_of(
        ("Bob's", "_http", "_tcp", "example"), Place(0, 0, 80, BOB), Text((b"path=/",)), [], "g"
    )
    assert finding is not None
    assert finding.uri() == "http://bob.site-b.example"


def test_hostile_texts_never_raise() -> None:
    dice = random.Random(6763)
    for _ in range(2_000):
        words = [bytes(dice.randrange(256) for _ in range(dice.randrange(9))) for _ in range(3)]
        text = Text((b"version=" + words[0], b"namespace=" + words[1], words[2]))
        labels = tuple(word.decode("utf-8", "backslashreplace") for word in words)
        finding = finding_of(("x", *labels), Place(0, 0, 9, labels), text, [], "g")
        if finding is not None:
            ServiceName.parse(finding.service)
