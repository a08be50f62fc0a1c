"""The TXT record that names a gateway: RFC 4322 section 5.2, the draft's sections 6.2 and 6.3.

    X-IPsec-Server(P)=A.B.C.D KEY
    X-IPsec-Server(P)=@FQDN KEY

The text comes in strings of at most 255 octets, and two conventions for
joining them are about.  RFC 4322 section 5.2.1 puts nothing between them.
Early implementations put a blank after each string, other than the last, that
is not full.  We read the RFC's way and, if that makes no sense, the other.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from ipaddress import AddressValueError, IPv4Address, IPv6Address

from cryptography.hazmat.primitives.asymmetric import rsa

from dnsrecords import rsakey
from dnsrecords.address import IPAddress, why_unusable
from dnsrecords.errors import (
    MalformedDelegation,
    MalformedName,
    MalformedRsaKey,
    NearMissDelegation,
    shown,
)
from dnsrecords.name import normal_fqdn
from dnsrecords.wire import Reader

# Specification.
ATTRIBUTE = "X-IPsec-Server"
MAX_PRECEDENCE = 0xFFFF  # as of MX, which RFC 4322 section 5.2 likens it to
MAX_STRING = 255  # RFC 1035 section 3.3

# Our choice: the largest key we accept has 1380 characters; blanks may come on top.
MAX_TEXT = 4096

# The name that the design paper of 2001 had before the RFC.
_FORMER_ATTRIBUTE = "X-IPsec-Gateway"

_BLANK = " \t\r\n"
# An attribute name ends where no further character of a name follows, so that
# "X-IPsec-Server-Room=2" belongs to somebody else.
_OURS = re.compile(
    rf"[{_BLANK}]*(?P<name>{ATTRIBUTE}|{_FORMER_ATTRIBUTE})(?![A-Za-z0-9_.-])",
    re.IGNORECASE | re.ASCII,
)
_FIELDS = re.compile(
    rf"[{_BLANK}]*\([{_BLANK}]*(?P<precedence>[0-9A-Za-z]+)[{_BLANK}]*\)"
    rf"[{_BLANK}]*=[{_BLANK}]*(?P<gateway>[^{_BLANK}]+)(?P<key>.*)",
    re.DOTALL | re.ASCII,
)
_DECIMAL = re.compile(r"0|[1-9][0-9]{0,4}", re.ASCII)
_HEXADECIMAL = re.compile(r"0[xX][0-9a-fA-F]{1,8}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Delegation:
    """Leave to a gateway to speak for the address whose reverse name holds the record.

    Exactly one of ``address`` and ``fqdn`` is given; ``fqdn`` is in lower case
    without a trailing dot.  Without a ``key``, it is that of the gateway's KEY
    record.  Lower ``precedence`` is tried first.
    """

    precedence: int
    address: IPAddress | None = None
    fqdn: str | None = None
    key: rsa.RSAPublicKey | None = None
    joined_with_blanks: bool = field(default=False, compare=False)  # counted, not meant

    def __post_init__(self) -> None:
        if not 0 <= self.precedence <= MAX_PRECEDENCE:
            raise MalformedDelegation(
                f"precedence {self.precedence} is not within 0 to {MAX_PRECEDENCE}"
            )
        if self.address is not None:
            if self.fqdn is not None:
                raise MalformedDelegation("gateway has both an address and a domain name")
            refuse_unusable(self.address)
        elif self.fqdn is None:
            raise MalformedDelegation("gateway has neither an address nor a domain name")
        elif normal_fqdn(self.fqdn) != self.fqdn:
            raise MalformedDelegation(f"{shown(self.fqdn)} is not in lower case without a last dot")

    @classmethod
    def parse(cls, rdata: bytes) -> Delegation | None:
        """The delegation in a TXT record's ``rdata``, or None if the record is foreign.

        Raises MalformedDelegation if the record has our attribute name and
        can't be read, and NearMissDelegation for forms that were never the RFC's.
        """
        strings = _strings(rdata)
        text = "".join(strings)
        if (ours := _OURS.match(text)) is None:
            return None
        if ours["name"].lower() != ATTRIBUTE.lower():
            raise NearMissDelegation(f"attribute is named {_FORMER_ATTRIBUTE}, not {ATTRIBUTE}")
        if len(text) > MAX_TEXT:
            raise MalformedDelegation(f"{len(text)} characters, at most {MAX_TEXT} are read")
        try:
            return _parse_text(text, joined_with_blanks=False)
        except MalformedDelegation as error:
            spaced = _join_with_blanks(strings)
            if spaced == text:
                raise
            try:
                return _parse_text(spaced, joined_with_blanks=True)
            except MalformedDelegation:
                raise error from None  # what the RFC's joining gave is the better explanation

    def text(self) -> str:
        """The record's text in one piece."""
        return "".join(self.strings())

    def strings(self) -> list[str]:
        """The record's text in strings of at most 255 octets.

        If there must be more than one, the first ends before the blank in
        front of the key.  So the blank is explicit, and both conventions for
        joining give the same delegation.
        """
        gateway = f"@{self.fqdn}" if self.address is None else str(self.address)
        head = f"{ATTRIBUTE}({self.precedence})={gateway}"
        tail = "" if self.key is None else " " + rsakey.format_base64(self.key)
        if len(head) + len(tail) <= MAX_STRING:
            return [head + tail]
        pieces = [head[i : i + MAX_STRING] for i in range(0, len(head), MAX_STRING)]
        pieces += [tail[i : i + MAX_STRING] for i in range(0, len(tail), MAX_STRING)]
        return pieces

    def serialize(self) -> bytes:
        """The RDATA."""
        return b"".join(bytes([len(piece)]) + piece.encode("ascii") for piece in self.strings())

    def presentation(self) -> str:
        """The RDATA as a zone file has it: quoted strings, one blank between them."""
        return " ".join(f'"{piece}"' for piece in self.strings())


def refuse_unusable(address: IPAddress) -> None:
    """Raise MalformedDelegation if no gateway in the Internet can have ``address``."""
    if (why := why_unusable(address)) is not None:
        raise MalformedDelegation(why)


def _strings(rdata: bytes) -> list[str]:
    """The character-strings of a TXT record.  Latin-1 keeps each octet one character."""
    reader = Reader(rdata, MalformedDelegation)
    strings = []
    while reader.left:
        strings.append(reader.take(reader.uint8("length"), "string").decode("latin-1"))
    return strings


def _join_with_blanks(strings: list[str]) -> str:
    inner = [piece if len(piece) == MAX_STRING else piece + " " for piece in strings[:-1]]
    return "".join(inner) + strings[-1]


def _parse_text(text: str, *, joined_with_blanks: bool) -> Delegation:
    ours = _OURS.match(text)
    fields = None if ours is None else _FIELDS.fullmatch(text, ours.end())
    if fields is None:
        raise MalformedDelegation(f"{shown(text)} is not {ATTRIBUTE}(P)=GATEWAY KEY")
    precedence = _precedence(fields["precedence"])
    address, fqdn = _gateway(fields["gateway"])
    key = _key(fields["key"].strip(_BLANK))
    return Delegation(precedence, address, fqdn, key, joined_with_blanks)


def _precedence(word: str) -> int:
    if _DECIMAL.fullmatch(word):
        number = int(word)
    elif _HEXADECIMAL.fullmatch(word):
        number = int(word, 16)
    else:
        # "010" too: it was 8 to those who read it as C does, and 10 to others.
        raise MalformedDelegation(f"precedence {shown(word)} is not a number in decimal or 0x form")
    if number > MAX_PRECEDENCE:
        raise MalformedDelegation(f"precedence {number} is above {MAX_PRECEDENCE}")
    return number


def _gateway(word: str) -> tuple[IPAddress | None, str | None]:
    if word.startswith("@"):
        try:
            return None, normal_fqdn(word[1:])
        except MalformedName as error:
            raise MalformedDelegation(f"gateway: {error}") from error
    try:
        return (IPv6Address(word) if ":" in word else IPv4Address(word)), None
    except AddressValueError as error:
        raise MalformedDelegation(
            f"gateway {shown(word)} is neither an address nor @ and a domain name"
        ) from error


def _key(text: str) -> rsa.RSAPublicKey | None:
    if not text:
        return None
    if text[:2].lower() in ("0s", "0x"):
        # Base64 of an RSA key can't begin so: the first octet, the exponent's
        # length, would be 0xd2 or 0xd3, and the largest exponent has 8 octets.
        raise NearMissDelegation(
            f"key begins with {text[:2]}, which belongs into a configuration, not into the DNS"
        )
    try:
        return rsakey.parse_base64(text)
    except MalformedRsaKey as error:
        raise MalformedDelegation(str(error)) from error
