"""The reader of DNS messages, against dnspython's and against hostile names."""

import time

import dns.message
import dns.rrset
import pytest

from dnsrecords.message import (
    MalformedResponse,
    MessageReader,
    Record,
    extended_code,
    extended_errors,
)

HEADER = bytes.fromhex("0007 8180 0000")


def reader(body: bytes, answers: int = 1) -> MessageReader:
    return MessageReader(HEADER + answers.to_bytes(2, "big") + bytes(4) + body)


def owners(body: bytes, answers: int = 1) -> list[tuple[bytes, ...]]:
    read = reader(body, answers)
    found = [each.owner for each in read.records(answers)]
    read.end()
    return found


def record(name: bytes, rdata: bytes = b"") -> bytes:
    return name + bytes.fromhex("0010 0001 0000003c") + len(rdata).to_bytes(2, "big") + rdata


def options(rdata: str = "", ttl: int = 0) -> Record:
    return Record((), 41, 1232, ttl, 0, bytes.fromhex(rdata))


def test_the_same_records_as_dnspython() -> None:
    made = dns.message.make_response(dns.message.make_query("A.b.example.", "TXT", id=7))
    for owner, rdtype, text in (
        ("a.b.example.", "CNAME", "c.b.example."),
        ("c.b.example.", "TXT", '"x" "y"'),
        ("example.", "KEY", "16896 4 1 AQNR"),
    ):
        made.answer.append(dns.rrset.from_text(owner, 60, "IN", rdtype, text))
    read = MessageReader(made.to_wire())
    assert (read.query_id, read.counts) == (7, (1, 3, 0, 0))
    assert read.question() == ((b"a", b"b", b"example"), 16, 1)
    found = list(read.records(3))
    read.end()
    assert read.name_in(found[0]) == (b"c", b"b", b"example")
    for each, rrset in zip(found, made.answer, strict=True):
        assert b".".join(each.owner) + b"." == str(rrset.name).encode()
        assert (each.rdtype, each.rdclass, each.ttl) == (rrset.rdtype, 1, 60)
    assert [each.rdata for each in found[1:]] == [rrset[0].to_wire() for rrset in made.answer[1:]]


def test_names_read_before_end_where_they_stand() -> None:
    """Names that were first met through a pointer, and are then read in place."""
    inner = b"\x01B\x00"
    assert owners(record(b"\x00", inner) + record(b"\xc0\x17"), 2) == [(), (b"b",)]
    read = reader(record(b"\x00", inner) + record(b"\x01a\xc0\x17") + record(b"\xc0\x1a"), 3)
    found = list(read.records(3))
    assert [each.owner for each in found] == [(), (b"a", b"b"), (b"a", b"b")]
    assert read.name_in(found[0]) == (b"b",)
    pointing = reader(record(b"\x00", b"\x01b\xc0\x0c") + record(b"\xc0\x17"), 2)
    found = list(pointing.records(2))
    assert pointing.name_in(found[0]) == found[1].owner == (b"b",)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (b"\xc0\x0c", "points forward"),
        (b"\xc0\x0d", "points forward"),
        (b"\xff\xff", "points forward"),
        (b"\xc0\x00", "points forward"),
        (b"\x01a\xc0\x0c", "points forward"),
        (b"\x40", "unknown kind"),
        (b"\x80", "unknown kind"),
        (b"\x3f" + b"a" * 63 + (b"\x3f" + b"a" * 63) * 3 + b"\x00", "too long"),
        (b"\x01a" * 127 + b"\x01a\x00", "too long"),
    ],
)
def test_hostile_names(name: bytes, reason: str) -> None:
    with pytest.raises(MalformedResponse, match=reason):
        owners(record(name))


@pytest.mark.parametrize("body", [b"", b"\xc0", b"\x05ab", b"\x01a", record(b"\x00", b"x")[:-1]])
def test_cut_short(body: bytes) -> None:
    with pytest.raises(MalformedResponse, match="cut short"):
        owners(body)


def test_the_longest_name() -> None:
    assert owners(record(b"\x01a" * 127 + b"\x00")) == [(b"a",) * 127]


def test_a_name_must_fill_its_record() -> None:
    read = reader(record(b"\x00", b"\x01a\x00\x00"))
    (found,) = read.records(1)
    with pytest.raises(MalformedResponse, match="does not fill"):
        read.name_in(found)


def test_left_over_octets() -> None:
    with pytest.raises(MalformedResponse, match="follow the last"):
        owners(record(b"\x00") + b"\x00")
    with pytest.raises(MalformedResponse, match="message of 11 octets"):
        MessageReader(bytes(11))


def test_pointers_to_pointers_and_long_names_take_bounded_time() -> None:
    long = b"\x01a" * 120 + b"\x00"
    chain = b"".join(
        (0xC000 | at).to_bytes(2, "big") for at in range(12 + 11, 12 + 11 + len(long), 2)
    )
    points = b"".join(
        record((0xC000 | (12 + 11 + 2 * (i % 60))).to_bytes(2, "big"), chain[:2])
        for i in range(2000)
    )
    started = time.process_time()
    assert len(owners(record(b"\x00", long) + points, 2001)) == 2001
    hops, last = b"\x00", 23
    while len(hops) < 15000:
        at = 23 + len(hops)
        hops += (0xC000 | last).to_bytes(2, "big")
        last = at
    tail = record((0xC000 | last).to_bytes(2, "big"))
    assert owners(record(b"\x00", hops) + tail * 1000, 1001) == [()] * 1001
    assert time.process_time() - started < 0.5


def test_extended_codes() -> None:
    assert extended_code(0x8183, None) == 3
    assert extended_code(0x8180, options(ttl=0x01000000)) == 16
    assert extended_errors(None) == []
    assert extended_errors(options("000f 0002 0006")) == [6]
    assert extended_errors(options("000a 0001 ff 000f 0004 0016 4142 000f 0002 0007")) == [22, 7]
    assert extended_errors(options("000f 0001 06")) == []
    assert extended_errors(options("000f 0005 0006")) == []
