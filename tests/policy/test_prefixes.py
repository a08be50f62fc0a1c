"""Prefix lists: the file format, its errors, and the compact sequence."""

import ipaddress
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.errors import PolicyError, PrefixFileError
from policy.prefixes import PrefixList, keys, parse_prefix, read_prefixes

V4, V6 = ipaddress.IPv4Network, ipaddress.IPv6Network


def written(tmp_path, text):
    path = tmp_path / "list"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def problems(tmp_path, text):
    path = written(tmp_path, text)
    with pytest.raises(PrefixFileError) as caught:
        read_prefixes(path)
    assert caught.value.file == str(path)
    assert all(str(p).startswith(f"{path}:{p.line}: ") for p in caught.value.problems)
    return [(p.line, p.reason) for p in caught.value.problems]


def test_comments_blank_lines_and_both_families(tmp_path):
    text = "# head\n\n  10.0.0.0/8 # ours\r\n2001:DB8::/32\n192.0.2.1/32\n::/0\n0.0.0.0/0\n"
    found = read_prefixes(written(tmp_path, text))
    assert list(found) == [
        V4("0.0.0.0/0"), V4("10.0.0.0/8"), V4("192.0.2.1/32"), V6("::/0"), V6("2001:db8::/32")
    ]  # fmt: skip
    assert found.name.endswith("list")


def test_an_empty_file_is_an_empty_list(tmp_path):
    found = read_prefixes(str(written(tmp_path, b"\xef\xbb\xbf# nothing \xff\n")))
    assert len(found) == 0
    assert found.families == set()


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("10.0.0.1/8", "host bits set; the network is 10.0.0.0/8"),
        ("2001:db8::1/32", "host bits set; the network is 2001:db8::/32"),
        ("10.0.0.0", "needs a prefix length after a slash"),
        ("10.0.0.0/33", "not a CIDR"),
        ("2001:db8::/129", "not a CIDR"),
        ("10.0.0.0/255.0.0.0", "not a CIDR"),
        ("10.0.0.0/08", "not a CIDR"),
        ("10.0.0/8", "not a CIDR"),
        ("10.0.0.256/32", "not a CIDR"),
        ("010.0.0.0/8", "not a CIDR"),
        ("10.0.0.0/8 11.0.0.0/8", "not a CIDR"),
        ("/8", "not a CIDR"),
        ("::1::/64", "not a CIDR"),
        ("1:2:3:4:5:6:7::8:9/128", "not a CIDR"),
        ("12345::/16", "not a CIDR"),
        ("::g/128", "not a CIDR"),
        ("2001:db8:1/48", "not a CIDR"),
        ("fe80::%eth0/64", "names an interface"),
        ("example.org", "needs a prefix length"),
        ("x" * 5000 + "/8", "..."),
    ],
)
def test_a_bad_line_is_named_with_its_number_and_reason(tmp_path, line, reason):
    ((number, text),) = problems(tmp_path, f"192.0.2.0/24\n# x\n{line}\n")
    assert number == 3
    assert reason in text
    assert len(text) < 200


def test_octets_that_are_no_text_are_an_error_of_that_line(tmp_path):
    ((number, _),) = problems(tmp_path, b"10.0.0.0/8\n\xff\xfe/8\n")
    assert number == 2


def test_duplicates_name_both_lines(tmp_path):
    text = "10.0.0.0/8\n2001:db8::/32\n10.0.0.0/9\n10.0.0.0/8\n2001:0db8::/32\n10.0.0.0/8\n"
    assert problems(tmp_path, text) == [
        (4, "10.0.0.0/8 is already in line 1"),
        (5, "2001:db8::/32 is already in line 2"),
        (6, "10.0.0.0/8 is already in line 1"),
    ]


def test_twenty_errors_are_reported_and_the_rest_counted(tmp_path):
    path = written(tmp_path, "rubbish\n" * 50)
    with pytest.raises(PrefixFileError) as caught:
        read_prefixes(path)
    assert [p.line for p in caught.value.problems] == list(range(1, 21))
    assert caught.value.line == 1
    assert caught.value.unreported == 30
    assert str(caught.value).endswith("and 30 more")
    assert isinstance(caught.value, PolicyError)


def test_a_file_that_can_not_be_read_is_named(tmp_path):
    with pytest.raises(PrefixFileError, match="absent: No such file"):
        read_prefixes(tmp_path / "absent")
    with pytest.raises(PrefixFileError, match="directory"):
        read_prefixes(tmp_path)


@given(st.ip_addresses())
def test_every_spelling_that_ipaddress_prints_is_read_alike(address):
    width = address.max_prefixlen
    for spelling in {str(address), address.exploded, str(address).upper()}:
        family, key = parse_prefix(f"{spelling}/{width}")
        assert (family, key) == (address.version, int(address) << 8 | width)


def test_dotted_tails_of_ipv6_are_read_though_not_by_the_quick_way():
    assert parse_prefix("::ffff:192.0.2.1/128") == (6, 0xFFFFC0000201 << 8 | 128)


def reference(text):
    network = ipaddress.ip_network(text)
    return network.version, int(network.network_address) << 8 | network.prefixlen


@pytest.mark.fuzz
def test_random_and_mutated_lines_are_read_as_ipaddress_reads_them_or_refused():
    rng = random.Random(1918)
    seeds = ["10.0.0.0/8", "2001:db8::/32", "::/0", "1:2:3:4:5:6:7:8/128", "::ffff:1.2.3.4/128"]
    alphabet = "0123456789abcdefABCDEF.:/%# +-_x\u0661\u00b2"
    accepted = 0
    for _ in range(100_000):
        text = list(rng.choice(seeds))
        for _ in range(rng.randrange(4)):
            place = rng.randrange(len(text) + 1)
            text[place : place + rng.randrange(3)] = rng.choices(alphabet, k=rng.randrange(3))
        line = "".join(text)
        try:
            found = parse_prefix(line)
        except ValueError:
            continue
        accepted += 1
        assert found == reference(line)
    assert accepted > 10_000


networks = st.one_of(
    st.builds(
        lambda a, n: V4((a >> n << n, 32 - n)), st.integers(0, 2**32 - 1), st.integers(0, 32)
    ),
    st.builds(
        lambda a, n: V6((a >> n << n, 128 - n)), st.integers(0, 2**128 - 1), st.integers(0, 128)
    ),
)


@given(st.lists(networks, max_size=12))
def test_a_list_is_a_sorted_sequence_of_its_networks(members):
    found = PrefixList(members, "x")
    wanted = sorted(set(members), key=lambda n: (n.version, n.network_address, n.prefixlen))
    assert list(found) == wanted
    assert len(found) == len(wanted)
    assert found[1:] == tuple(wanted[1:])
    assert [found[i] for i in range(-len(wanted), 0)] == wanted
    assert found.families == {n.version for n in wanted}
    for family in (4, 6):
        in_list = list(keys(found, family))
        assert in_list == sorted(in_list)
        assert in_list == sorted(keys(tuple(members), family))
    again = PrefixList(reversed(members))
    assert found == again
    assert hash(found) == hash(again)
    with pytest.raises(IndexError):
        found[len(wanted)]


def test_lists_are_equal_by_content_only():
    one = PrefixList([V4("10.0.0.0/8")], "one")
    assert one != PrefixList([V4("10.0.0.0/9")])
    assert one != (V4("10.0.0.0/8"),)
    assert repr(one) == "PrefixList('one', 1 prefixes)"
