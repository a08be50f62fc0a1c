"""The TXT record of RFC 4322 section 5.2: forms, joining, precedence, and hostile ones."""

import time
from ipaddress import IPv4Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnsrecords import rsakey
from dnsrecords.delegation import Delegation
from dnsrecords.errors import MalformedDelegation, NearMissDelegation, RecordError
from tests.support.dns_keys import KEY_1024, KEY_2048, KEY_4096, base64_key, txt

SG_B = IPv4Address("192.1.1.5")
K1, K2, K4 = base64_key(1024), base64_key(2048), base64_key(4096)


@pytest.mark.parametrize(
    ("delegation", "strings"),
    [
        (Delegation(10, SG_B), ["X-IPsec-Server(10)=192.1.1.5"]),
        (Delegation(0, ip_address("2001:db8::5")), ["X-IPsec-Server(0)=2001:db8::5"]),
        (Delegation(65535, None, "sg-a.example"), ["X-IPsec-Server(65535)=@sg-a.example"]),
        (Delegation(10, SG_B, None, KEY_1024), [f"X-IPsec-Server(10)=192.1.1.5 {K1}"]),
        (
            Delegation(10, SG_B, None, KEY_2048),
            ["X-IPsec-Server(10)=192.1.1.5", " " + K2[:254], K2[254:]],
        ),
        (
            Delegation(10, None, "sg-a.example", KEY_4096),
            ["X-IPsec-Server(10)=@sg-a.example", " " + K4[:254], K4[254:509], K4[509:]],
        ),
    ],
)
def test_both_ways(delegation: Delegation, strings: list[str]) -> None:
    rdata = txt(*strings)
    assert delegation.serialize() == rdata
    assert delegation.strings() == strings
    assert delegation.text() == "".join(strings)
    assert delegation.presentation() == " ".join(f'"{each}"' for each in strings)
    parsed = Delegation.parse(rdata)
    assert parsed == delegation
    assert not parsed.joined_with_blanks


@pytest.mark.parametrize(
    "text",
    [
        "x-ipsec-server(10)=192.1.1.5",
        "X-IPSEC-SERVER(10)=192.1.1.5",
        "  X-IPsec-Server ( 10 ) = 192.1.1.5  ",
        "\tX-IPsec-Server\t(\r10\n)\t=\t192.1.1.5\n",
        "X-IPsec-Server(0xa)=192.1.1.5",
        "X-IPsec-Server(0X0A)=192.1.1.5",
    ],
)
def test_loose_forms_of_the_same(text: str) -> None:
    assert Delegation.parse(txt(text)) == Delegation(10, SG_B)


@pytest.mark.parametrize("form", ["SG-A.Example.", "sg-a.example", "sg-a.EXAMPLE."])
def test_domain_names_lose_case_and_last_dot(form: str) -> None:
    assert Delegation.parse(txt(f"X-IPsec-Server(10)=@{form}")) == Delegation(
        10, None, "sg-a.example"
    )


@pytest.mark.parametrize(
    ("strings", "with_blanks"),
    [
        (["X-IPsec-Server(10)=192.1.1.5 " + K2[:200], K2[200:]], False),
        (["X-IPsec-Server(10)=192.1.1.5", " " + K2[:100], K2[100:200], K2[200:]], False),
        (["X-IPsec-Server(10)=192.1.1.5 ", K2[:255], K2[255:]], False),
        (["X-IPsec-", "Server(10)=192.1.", "1.5 ", K2[:255], K2[255:]], False),
        (["X-IPsec-Server(10)=192.1.1.5 " + " ".join(K2[:100]), K2[100:300], K2[300:]], False),
        (["", "X-IPsec-Server(10)=192.1.1.5 ", "", K2[:255], K2[255:], ""], False),
        (["X-IPsec-Server(10)=192.1.1.5", K2[:255], K2[255:]], True),
        (["X-IPsec-Server(10)=192.1.1.5", K2[:150], K2[150:300], K2[300:]], True),
        (["X-IPsec-Server", "(10)=192.1.1.5", K2[:255], K2[255:]], True),
    ],
)
def test_both_conventions_for_joining(strings: list[str], with_blanks: bool) -> None:
    parsed = Delegation.parse(txt(*strings))
    assert parsed == Delegation(10, SG_B, None, KEY_2048)
    assert parsed.joined_with_blanks is with_blanks


def test_a_name_next_to_a_key_is_not_one_long_name() -> None:
    parsed = Delegation.parse(txt("X-IPsec-Server(10)=@road.example", K1))
    assert parsed == Delegation(10, None, "road.example", KEY_1024)
    assert parsed.joined_with_blanks


def test_a_full_string_gets_no_blank() -> None:
    """The blank of the older convention marks the end of a string that is not full."""
    head = "X-IPsec-Server(10)=192.1.1.5"
    padded = head + " " * (255 - len(head) - 100) + K2[:100]
    parsed = Delegation.parse(txt(padded, K2[100:200], K2[200:]))
    assert parsed == Delegation(10, SG_B, None, KEY_2048)


@pytest.mark.parametrize(
    "rdata",
    [
        b"",
        txt(""),
        txt("v=spf1 -all"),
        txt("X-IPsec"),
        txt("X-IPsec-Server-Room=3"),
        txt("X-IPsec-Server2(10)=192.1.1.5"),
        txt("X-IPsec-Servers(10)=192.1.1.5"),
        txt("see X-IPsec-Server(10)=192.1.1.5"),
        txt(b"\x00X-IPsec-Server(10)=192.1.1.5"),
        txt(bytes(range(256))[:255]),
        txt("a" * 255, "b" * 255) * 100,
    ],
)
def test_foreign_records_are_not_ours_to_judge(rdata: bytes) -> None:
    assert Delegation.parse(rdata) is None


def ours(rest: str) -> bytes:
    return txt(*[f"X-IPsec-Server{rest}"[i : i + 255] for i in range(0, 14 + len(rest), 255)])


@pytest.mark.parametrize(
    ("rest", "reason"),
    [
        ("", "is not X-IPsec-Server"),
        (" is a fine thing", "is not X-IPsec-Server"),
        ("=192.1.1.5", "is not X-IPsec-Server"),
        ("(10)192.1.1.5", "is not X-IPsec-Server"),
        ("(10)=", "is not X-IPsec-Server"),
        ("()=192.1.1.5", "is not X-IPsec-Server"),
        ("((10))=192.1.1.5", "is not X-IPsec-Server"),
        ("(((((((10)=192.1.1.5", "is not X-IPsec-Server"),
        ("(-1)=192.1.1.5", "is not X-IPsec-Server"),
        ("(1 0)=192.1.1.5", "is not X-IPsec-Server"),
        ("(65536)=192.1.1.5", "precedence 65536 is above"),
        ("(99999)=192.1.1.5", "precedence 99999 is above"),
        ("(0x10000)=192.1.1.5", "precedence 65536 is above"),
        ("(0x)=192.1.1.5", "is not a number"),
        ("(0x123456789)=192.1.1.5", "is not a number"),
        ("(123456)=192.1.1.5", "is not a number"),
        ("(010)=192.1.1.5", "is not a number"),
        ("(ten)=192.1.1.5", "is not a number"),
        ("(\u00b2)=192.1.1.5", "is not X-IPsec-Server"),
        ("(10)=192.1.1", "neither an address"),
        ("(10)=192.1.1.05", "neither an address"),
        ("(10)=192.1.1.5/32", "neither an address"),
        ("(10)=sg-b.example", "neither an address"),
        ("(10)==192.1.1.5", "neither an address"),
        ("(10)=2001:db8::g", "neither an address"),
        ("(10)=" + "1" * 3000, "neither an address"),
        ("(10)=fe80::1%eth0", "zone index"),
        ("(10)=::ffff:192.1.1.5", "IPv6 clothes"),
        ("(10)=0.0.0.0", "the unspecified address"),
        ("(10)=::", "the unspecified address"),
        ("(10)=127.0.0.1", "a loopback address"),
        ("(10)=::1", "a loopback address"),
        ("(10)=224.0.0.1", "a multicast address"),
        ("(10)=ff02::1", "a multicast address"),
        ("(10)=169.254.0.1", "a link-local address"),
        ("(10)=fe80::1", "a link-local address"),
        ("(10)=255.255.255.255", "the broadcast address"),
        ("(10)=@", "a domain name has 1 to"),
        ("(10)=@a=b.example", "is not a domain name"),
        ("(10)=@a..example", "is not a domain name"),
        ("(10)=@192.1.1.5", "ends like an address"),
        ("(10)=@road\x00.example", "is not a domain name"),
        ("(10)=192.1.1.5 AQN*", "not base64"),
        ("(10)=192.1.1.5 AQN", "not base64"),
        ("(10)=192.1.1.5 \u00e4", "not base64"),
        (f"(10)=192.1.1.5 {K2} {K2}", "not base64"),
        ("(10)=192.1.1.5 AQNRU3mG7TVTO2BkR47usntb102uFJtugbo6BSGvgqt4AQ==", "modulus of 255"),
        ("(10)=192.1.1.5" + " " * 5000, "at most 4096 are read"),
    ],
)
def test_records_with_our_name_that_can_not_be_read(rest: str, reason: str) -> None:
    started = time.process_time()
    with pytest.raises(MalformedDelegation, match=reason) as caught:
        Delegation.parse(ours(rest))
    assert time.process_time() - started < 0.01
    assert caught.value.trigger == "txt_record_malformed"
    assert str(caught.value).isascii()
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize("prefix", ["0s", "0S", "0x"])
def test_prefixes_of_a_configuration_are_a_near_miss(prefix: str) -> None:
    digits = rsakey.serialize(KEY_1024).hex() if prefix == "0x" else K1
    with pytest.raises(NearMissDelegation, match="belongs into a configuration") as caught:
        Delegation.parse(txt("X-IPsec-Server(10)=192.1.1.5 ", (prefix + digits)[:255]))
    assert caught.value.trigger == "txt_record_near_miss"


def test_the_former_name_of_the_attribute_is_a_near_miss() -> None:
    with pytest.raises(NearMissDelegation, match="named X-IPsec-Gateway, not X-IPsec-Server"):
        Delegation.parse(txt("x-ipsec-gateway(10)=192.1.1.5"))


def test_strings_that_lie_about_their_length() -> None:
    whole = Delegation(10, SG_B, None, KEY_2048).serialize()
    ends, position = [0], 0
    while position < len(whole):
        position += 1 + whole[position]
        ends.append(position)
    for length in range(1, len(whole)):
        if length in ends:
            continue
        with pytest.raises(MalformedDelegation, match=r"string: \d+ octets needed"):
            Delegation.parse(whole[:length])
    with pytest.raises(MalformedDelegation):
        Delegation.parse(whole[: ends[2]])  # a whole string, but half a key
    assert Delegation.parse(whole[: ends[1]]) == Delegation(10, SG_B)


def test_64_kilobytes_take_bounded_time() -> None:
    """Ten times the text takes ten times as long, not a hundred times."""
    for kind in (
        lambda n: txt("X-IPsec-Server(10)=192.1.1.5 ", *["A" * 255] * (n // 120)),
        lambda n: txt("X-IPsec-Server", *[" " * 255] * (n // 120)),
        lambda n: txt(*[" "] * n, "X-IPsec-Server"),
        lambda n: txt("X-IPsec-Server(10)=", *["("] * n),
    ):
        # The least of three: the collector of garbage may take its turn in one of them.
        tenth, whole = (min(_seconds_of_refusal(kind(n)) for _ in range(3)) for n in (3000, 30000))
        assert whole < 40 * tenth + 0.005


def _seconds_of_refusal(rdata: bytes) -> float:
    started = time.process_time()
    with pytest.raises(MalformedDelegation):
        Delegation.parse(rdata)
    return time.process_time() - started


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ((10,), "neither an address nor"),
        ((10, SG_B, "a.example"), "both"),
        ((-1, SG_B), "precedence -1"),
        ((65536, SG_B), "precedence 65536"),
        ((1, IPv4Address("127.0.0.1")), "loopback"),
        ((1, None, "A.example"), "lower case"),
        ((1, None, "a b"), "not a domain name"),
    ],
)
def test_delegations_that_nobody_may_publish(arguments: tuple, reason: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(RecordError, match=reason):
        Delegation(*arguments)


def usable(address: object) -> bool:
    try:
        Delegation(1, address)  # type: ignore[arg-type]
    except MalformedDelegation:
        return False
    return True


LABELS = st.from_regex(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?", fullmatch=True)
NAMES = st.lists(LABELS, min_size=1, max_size=3).map(lambda labels: ".".join([*labels, "example"]))
KEYS = st.sampled_from([None, KEY_1024, KEY_2048, KEY_4096])


@given(st.integers(0, 65535), st.ip_addresses().filter(usable), KEYS)
def test_every_delegation_to_an_address_survives(precedence, address, key) -> None:  # type: ignore[no-untyped-def]
    delegation = Delegation(precedence, address, None, key)
    assert Delegation.parse(delegation.serialize()) == delegation


@given(st.integers(0, 65535), NAMES, KEYS)
def test_every_delegation_to_a_name_survives(precedence, name, key) -> None:  # type: ignore[no-untyped-def]
    delegation = Delegation(precedence, None, name, key)
    assert all(len(each) <= 255 for each in delegation.strings())
    assert Delegation.parse(delegation.serialize()) == delegation


@given(st.lists(st.integers(1, 254), min_size=1, max_size=8))
def test_any_way_to_split_is_joined(cuts: list[int]) -> None:
    text = Delegation(10, SG_B, None, KEY_2048).text()
    pieces, position = [], 0
    for cut in cuts:
        pieces.append(text[position : position + cut])
        position += cut
    while position < len(text):
        pieces.append(text[position : position + 255])
        position += 255
    parsed = Delegation.parse(txt(*pieces))
    assert parsed == Delegation(10, SG_B, None, KEY_2048)


@given(st.lists(st.text("X-IPsec-Server(10)=@.:aA/+ \t\x00\xff", max_size=60), max_size=6))
def test_any_text_is_read_foreign_or_an_error_of_ours(pieces: list[str]) -> None:
    for rdata in (txt(*pieces), txt("X-IPsec-Server", *pieces), txt("X-IPsec-Server(1)=", *pieces)):
        try:
            parsed = Delegation.parse(rdata)
        except RecordError:
            continue
        if parsed is not None:
            assert Delegation.parse(parsed.serialize()) == parsed
