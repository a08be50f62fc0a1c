"""Messages of nf_tables, as octets: what the nft language can't say.

nft 1.0 has no statement that writes both ports at once from one look-up, and puts the checksum
right.  The kernel has: one write of four octets.  So the rules that rewrite are made here, and for
speed the elements; the rest of the table is text (`ruleset.py`).  Numbers are those of
linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct

# Specification values: linux/netlink.h, linux/netfilter/nfnetlink.h.
_HEADER = Struct("=IHHII")
_NFGENMSG = Struct("!BBH")
_ATTRIBUTE = Struct("=HH")
_NESTED = 0x8000
_REQUEST, _ACK, _EXCL, _CREATE, _APPEND = 0x1, 0x4, 0x200, 0x400, 0x800
_NFTABLES = 10
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_INET = 1  # NFPROTO_INET

# linux/netfilter/nf_tables.h
_NEWRULE, _NEWSETELEM, _DELSETELEM = 6, 12, 14
_GOTO = -4  # NFT_GOTO
_VERDICT_REGISTER = 0
_FIRST_REGISTER = 8  # NFT_REG32_00; sixteen of four octets
_NETWORK, _TRANSPORT = 1, 2
_META_L4PROTO = 16
_CT_MARK = 3
_EQUAL = 0
_CHECKSUM_INET = 1


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a transaction, without its header: ``kind``, flags, attributes."""

    kind: int
    flags: int
    body: bytes


def transaction(messages: list[Message]) -> bytes:
    """All of them or none; the numbers of the messages are 1, 2, 3 and so on."""
    parts = [_message(_BATCH_BEGIN, _REQUEST, 0, _NFGENMSG.pack(0, 0, _NFTABLES))]
    for number, message in enumerate(messages, 1):
        kind = _NFTABLES << 8 | message.kind
        body = _NFGENMSG.pack(_INET, 0, 0) + message.body
        parts.append(_message(kind, _REQUEST | _ACK | message.flags, number, body))
    parts.append(_message(_BATCH_END, _REQUEST, 0, _NFGENMSG.pack(0, 0, _NFTABLES)))
    return b"".join(parts)


def new_rule(table: str, chain: str, expressions: list[bytes]) -> Message:
    """A rule behind those that the chain has."""
    body = (
        _attribute(1, _text(table))
        + _attribute(2, _text(chain))
        + _nested(4, b"".join(_nested(1, each) for each in expressions))
    )
    return Message(_NEWRULE, _CREATE | _APPEND, body)


def new_element(
    table: str, name: str, key: bytes, lifespan: float, datum: bytes | None = None
) -> Message:
    """An element for ``lifespan`` seconds; an error if the key is there."""
    milliseconds = max(1, round(lifespan * 1000))
    element = _nested(1, _attribute(1, key))
    if datum is not None:
        element += _nested(2, _attribute(1, datum))
    element += _attribute(4, milliseconds.to_bytes(8, "big"))
    return Message(_NEWSETELEM, _CREATE | _EXCL, _elements(table, name, element))


def delete_element(table: str, name: str, key: bytes) -> Message:
    """An error if the key is not there."""
    return Message(_DELSETELEM, 0, _elements(table, name, _nested(1, _attribute(1, key))))


def _elements(table: str, name: str, element: bytes) -> bytes:
    return (
        _attribute(1, _text(table)) + _attribute(2, _text(name)) + _nested(3, _nested(1, element))
    )


# ------------------------------------------------------------------ expressions of a rule


def load_network(offset: int, length: int, register: int) -> bytes:
    return _load(_NETWORK, offset, length, register)


def load_transport(offset: int, length: int, register: int) -> bytes:
    return _load(_TRANSPORT, offset, length, register)


def load_protocol(register: int) -> bytes:
    return _expression("meta", _number(1, _register(register)) + _number(2, _META_L4PROTO))


def look_up(name: str, key: int, datum: int) -> bytes:
    """The rule ends here unless the key that begins in register ``key`` is in the map."""
    return _expression(
        "lookup",
        _attribute(1, _text(name)) + _number(2, _register(key)) + _number(3, _register(datum)),
    )


def write_ports(register: int, checksum: int | None) -> bytes:
    """Both ports out of a register, and the transport checksum at ``checksum`` put right."""
    body = _number(5, _register(register)) + _number(2, _TRANSPORT) + _number(3, 0) + _number(4, 4)
    if checksum is not None:
        body += _number(6, _CHECKSUM_INET) + _number(7, checksum)
    return _expression("payload", body)


def compare(register: int, value: bytes) -> bytes:
    """The rule ends here unless the register has this value."""
    return _expression(
        "cmp",
        _number(1, _register(register)) + _number(2, _EQUAL) + _nested(3, _attribute(1, value)),
    )


def load_connection_mark(register: int) -> bytes:
    return _expression("ct", _number(1, _register(register)) + _number(2, _CT_MARK))


def store_connection_mark(register: int) -> bytes:
    return _expression("ct", _number(4, _register(register)) + _number(2, _CT_MARK))


def mask(register: int, kept: int, set_bits: int) -> bytes:
    """Of a number in the machine's order keep some bits, then set others."""
    body = (
        _number(1, _register(register))
        + _number(2, _register(register))
        + _number(3, 4)
        + _nested(4, _attribute(1, _native(kept & ~set_bits)))
        + _nested(5, _attribute(1, _native(set_bits)))
    )
    return _expression("bitwise", body)


def go_to(chain: str) -> bytes:
    verdict = _nested(2, _number(1, _GOTO & 0xFFFFFFFF) + _attribute(2, _text(chain)))
    return _expression("immediate", _number(1, _VERDICT_REGISTER) + _nested(2, verdict))


def _load(base: int, offset: int, length: int, register: int) -> bytes:
    return _expression(
        "payload",
        _number(1, _register(register))
        + _number(2, base)
        + _number(3, offset)
        + _number(4, length),
    )


def _expression(name: str, body: bytes) -> bytes:
    return _attribute(1, _text(name)) + _nested(2, body)


# ---------------------------------------------------------------------- netlink attributes


def _register(number: int) -> int:
    return _FIRST_REGISTER + number


def _number(kind: int, value: int) -> bytes:
    return _attribute(kind, value.to_bytes(4, "big"))


def _native(value: int) -> bytes:
    return Struct("=I").pack(value & 0xFFFFFFFF)


def _text(word: str) -> bytes:
    return word.encode("ascii") + b"\0"


def _nested(kind: int, body: bytes) -> bytes:
    return _attribute(kind | _NESTED, body)


def _attribute(kind: int, body: bytes) -> bytes:
    padding = b"\0" * (-len(body) % 4)
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(body), kind) + body + padding


def _message(kind: int, flags: int, number: int, body: bytes) -> bytes:
    return _HEADER.pack(_HEADER.size + len(body), kind, flags, number, 0) + body
