"""What may be a name, and which names are one (MK-9, MK-10, MK-13, MK-25)."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oegw.moniker.names import (
    MAX_NAME_OCTETS,
    SYSTEM,
    InvalidName,
    ServiceName,
    Version,
    Versions,
    canonical,
)


@pytest.mark.parametrize(
    ("written", "form"),
    [
        ("StarWars", "starwars"),
        ("http", "http"),
        ("STRASSE", "strasse"),
        ("Straße", "strasse"),
        ("Cafe\u0301", "caf\u00e9"),
        ("CAFÉ", "café"),
        ("Ⴀ", "ⴀ"),
        ("im.sip_v2+tls%20", "im.sip_v2+tls%20"),
        ("--", "--"),
    ],
)
def test_mk_25_one_form_whatever_the_case(written: str, form: str) -> None:
    assert canonical(written) == form == canonical(form)


@pytest.mark.parametrize(
    "written",
    [
        *("", "-", "*", "a*", "a b", "a\tb", "a\r\nb", "a\0", "a\x7f", "a:b", "a@b", "a/b", "a,b"),
        "a\u0085b",  # next line, a control character of Latin-1
        "a\u2028b",  # a separator of lines
        "a\u00a0b",  # a space that does not look like one
        "a\u200bb",  # of no width
        "a\u202eb",  # turns the direction
        "a\ue000",  # private use
        "a\U000e0041",  # a tag
        "\ud800",
        "a\u0378",  # not assigned
    ],
)
def test_mk_25_what_is_no_name(written: str) -> None:
    with pytest.raises(InvalidName, match="service"):
        canonical(written)


def test_mk_25_at_most_255_octets() -> None:
    assert len(canonical("é" * 127)) == 127
    assert canonical("x" * MAX_NAME_OCTETS)
    for too_long in ("x" * 256, "é" * 128, "ß" * 200, "x" * 1_000_000):
        with pytest.raises(InvalidName, match=r"namespace: .*255") as caught:
            canonical(too_long, "namespace")
        assert len(str(caught.value)) < 400


@given(st.text())
def test_the_form_is_its_own(text: str) -> None:
    try:
        form = canonical(text)
    except InvalidName:
        return
    assert canonical(form) == form
    assert canonical(text.swapcase().casefold()) == canonical(text.casefold())


# ----------------------------------------------------------------------- versions


def test_mk_9_versions_are_ordered_by_their_numbers() -> None:
    texts = ["0", "0.1", "0.9", "0.10", "1", "1.0.1", "1.2.3.4", "2", "10"]
    versions = [Version.parse(text) for text in texts]
    shuffled = list(versions)
    random.Random(9).shuffle(shuffled)
    assert sorted(shuffled) == versions
    assert Version.parse("1.0.0") == Version.parse("1")
    assert str(Version.parse("1.0")) == "1.0"
    assert hash(Version.parse("2.0")) == hash(Version.parse("2"))


@pytest.mark.parametrize(
    "text",
    [
        *("", "v1", "01", "1.", ".1", "1..2", "1.2.3.4.5", "-1", "1 ", "1\n", "١", "9" * 10),
        ".".join(["123456789"] * 4),
    ],
)
def test_what_is_no_version(text: str) -> None:
    with pytest.raises(InvalidName, match="version"):
        Version.parse(text)


@pytest.mark.parametrize(
    ("versions", "within", "without"),
    [
        ("*", ["0", "1", "99.9"], []),
        ("1", ["1", "1.0"], ["1.1", "2", "0"]),
        ("=1.2", ["1.2"], ["1"]),
        (">=1,<2", ["1", "1.9.9"], ["0.9", "2", "2.0"]),
        (">1,<=2.5", ["1.0.1", "2.5"], ["1", "2.6"]),
    ],
)
def test_mk_9_ranges_of_versions(versions: str, within: list[str], without: list[str]) -> None:
    asked = Versions.parse(versions)
    assert all(Version.parse(text) in asked for text in within)
    assert not any(Version.parse(text) in asked for text in without)
    assert Versions.parse(str(asked)) == asked


@pytest.mark.parametrize(
    "text", ["", ",", "1,", "=>1", "~1", ">=", ">=1 ,<2", "1,2,3,4,5", "*,1", "<" + "1" * 200]
)
def test_what_is_no_range_of_versions(text: str) -> None:
    with pytest.raises(InvalidName, match="version"):
        Versions.parse(text)


# -------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("text", "namespace", "service", "versions"),
    [
        ("starwars", SYSTEM, "starwars", "*"),
        ("Reynolds::HTTP", "reynolds", "http", "*"),
        ("http@2", SYSTEM, "http", "2"),
        ("reynolds::http@>=1,<2", "reynolds", "http", ">=1,<2"),
    ],
)
def test_mk_13_names_in_one_line(text: str, namespace: str, service: str, versions: str) -> None:
    name = ServiceName.parse(text)
    assert (name.namespace, name.service, str(name.versions)) == (namespace, service, versions)
    assert ServiceName.parse(str(name)) == name


@pytest.mark.parametrize(
    "text", ["", "::http", "a::", "a::b::c", "a:b", "http@", "@1", "a@1@2", "-::http", "*", "a b"]
)
def test_what_is_no_name_in_one_line(text: str) -> None:
    with pytest.raises(InvalidName):
        ServiceName.parse(text)


def test_mk_10_applications_of_one_protocol_are_different_names() -> None:
    names = {ServiceName.parse(text) for text in ("voice.sip", "chat.sip", "a::chat.sip", "sip")}
    assert len(names) == 4
