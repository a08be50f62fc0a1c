"""URIs with the name of a service (MK-12, MK-13)."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oegw.moniker.names import InvalidName, ServiceName
from oegw.moniker.uri import MAX_URI_CHARACTERS, MonikerUri


@pytest.mark.parametrize(
    ("text", "name", "host", "port", "rest"),
    [
        ("starwars://theforce.net", "starwars", "theforce.net", None, ""),
        ("starwars://theforce.net/", "starwars", "theforce.net", None, "/"),
        ("reynolds::http://ietf.org", "reynolds::http", "ietf.org", None, ""),
        ("reynolds::http@2://ietf.org", "reynolds::http@2", "ietf.org", None, ""),
        ("http@>=1,<2://h", "http@>=1,<2", "h", None, ""),
        ("HTTP://IETF.org:4711/a?b=c#d", "http", "IETF.org", 4711, "/a?b=c#d"),
        ("x://[2001:DB8::1]:1/p", "x", "2001:db8::1", 1, "/p"),
        ("x://[2001:db8::1]", "x", "2001:db8::1", None, ""),
        ("x://[fe80::1%25eth0]:7", "x", "fe80::1%eth0", 7, ""),
        ("x://192.0.2.1?q", "x", "192.0.2.1", None, "?q"),
        ("caf%C3%A9://h", "café", "h", None, ""),
        ("caf%c3%a9::a%3fb://h", "café::a?b", "h", None, ""),
        ("x://h/a://b", "x", "h", None, "/a://b"),
    ],
)
def test_mk_12_read_and_written(
    text: str, name: str, host: str, port: int | None, rest: str
) -> None:
    uri = MonikerUri.parse(text)
    assert uri == MonikerUri(ServiceName.parse(name), host, port, rest)
    assert MonikerUri.parse(str(uri)) == uri


def test_mk_13_what_a_uri_can_not_have_is_written_in_percent() -> None:
    uri = MonikerUri(ServiceName.parse("joyce::café#1"), "2001:db8::1", 7, "/x")
    assert str(uri) == "joyce::caf%C3%A9%231://[2001:db8::1]:7/x"
    assert str(MonikerUri.parse("reynolds::http@2://ietf.org")) == "reynolds::http@2://ietf.org"
    assert MonikerUri.parse(str(uri)) == uri


@pytest.mark.parametrize(
    "text",
    [
        *("", "starwars", "starwars:theforce.net", "://h", "x://", "x:///p", "x://:1", "x://h:"),
        *("x://h:0", "x://h:65536", "x://h:99999", "x://h:01", "x://h:1a", "x://h:-1"),
        *("x://u@h", "x://h h", "x://h\n", "x://h/\x01", "x://h\\p", "x://[::1", "x://::1"),
        *(
            "x://[fe80::1%25]",
            "x://[fe80::1%eth0]",
            "x://[fe80::1%25a/b]",
            "x://[h]",
            "x://[]",
            "x://h%00",
            "a:b://h",
            "-://h",
            "*://h",
        ),
        *("%ff://h", "%00://h", "x@://h", "a::b::c://h", "a%3a%3ab::c://h", "x://" + "h" * 256),
        "x://h/" + "p" * MAX_URI_CHARACTERS,
    ],
)
def test_what_is_no_uri(text: str) -> None:
    with pytest.raises(InvalidName) as caught:
        MonikerUri.parse(text)
    assert len(str(caught.value)) < 400


@given(st.text(max_size=40), st.text(alphabet="abc:@/?#[].%0123456789", max_size=30))
def test_any_text_is_read_or_refused(scheme: str, where: str) -> None:
    try:
        uri = MonikerUri.parse(f"{scheme}://{where}")
    except InvalidName:
        return
    assert MonikerUri.parse(str(uri)) == uri
    assert str(MonikerUri.parse(str(uri))) == str(uri)


def test_a_long_text_costs_no_more_than_its_length() -> None:
    rng = random.Random(12)
    for _ in range(200):
        text = "x://" + "".join(rng.choice("h[]:/@%") for _ in range(MAX_URI_CHARACTERS - 4))
        try:
            MonikerUri.parse(text)
        except InvalidName:
            continue
