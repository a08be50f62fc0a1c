"""The TXT record of a key for port encryption (SST): the static keys of both ends are in the DNS.

    X-SST-Key(P)=GATEWAY ALGORITHM BASE64

It stands at the reverse name of an address, or at ``_sst.`` and a domain name.  GATEWAY is the
address that opens packets for it, ALGORITHM a number in decimal, BASE64 the 32 octets of an X25519
public key (RFC 7748).  Lower P is preferred.  There is one record for each algorithm that the owner
accepts; those of other algorithms than ours are skipped, so that new ones may come (SST-37).

Algorithm 254 is for a host that encrypts no ports: with its key questions for services are
encrypted (Moniker), and who encrypts ports skips it.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from dnsrecords.address import IPAddress, why_unusable
from dnsrecords.errors import MalformedSstKey, UnknownSstAlgorithm, UnsafeSstKey, shown
from dnsrecords.wire import Reader

# Specification.
ATTRIBUTE = "X-SST-Key"
NAME_PREFIX = "_sst."  # of the owner name, where a key is found by name
ALGORITHMS = (1, 2)  # FF1 with AES-128, with AES-256
QUESTIONS = 254  # ours: no ports; only questions for services by name
MAX_PRECEDENCE = 0xFFFF
MAX_ALGORITHM = 0xFF  # one octet wherever it is part of something
KEY_OCTETS = 32
PRIME = 2**255 - 19

# Our choice: what we write has at most 110 characters.
MAX_TEXT = 512

_OURS = re.compile(rf"[ \t]*{ATTRIBUTE}(?![A-Za-z0-9_.-])", re.IGNORECASE | re.ASCII)
_FORM = re.compile(
    rf"{ATTRIBUTE}\((?P<precedence>[^()]*)\)=(?P<gateway>[^ \t]+)[ \t]+"
    r"(?P<algorithm>[^ \t]+)[ \t]+(?P<key>[^ \t]+)",
    re.IGNORECASE | re.ASCII,
)
_NUMBER = re.compile(r"0|[1-9][0-9]{0,4}", re.ASCII)  # no leading zero: it may mean octal

# Any private key will do to tell the points of small order: with all of them they give zero.
_PROBE = X25519PrivateKey.from_private_bytes(bytes(range(1, KEY_OCTETS + 1)))


@dataclass(frozen=True, slots=True)
class SstKey:
    """A key with which ports may be encrypted on the way to the record's owner.

    ``gateway`` opens the packets, and answers probes of the path.  ``algorithm``: a number of
    ALGORITHMS, or QUESTIONS.  ``public_key``: 32 octets.
    """

    precedence: int
    gateway: IPAddress
    algorithm: int
    public_key: bytes

    def __post_init__(self) -> None:
        if not 0 <= self.precedence <= MAX_PRECEDENCE:
            raise MalformedSstKey(
                f"precedence {self.precedence} is not within 0 to {MAX_PRECEDENCE}"
            )
        if (why := why_unusable(self.gateway)) is not None:
            raise MalformedSstKey(why)
        if self.algorithm not in (*ALGORITHMS, QUESTIONS):
            raise UnknownSstAlgorithm(f"algorithm {self.algorithm}")
        check_encoding(self.public_key)
        check_order(self.public_key)

    @classmethod
    def parse(cls, rdata: bytes) -> SstKey | None:
        """The key in a TXT record's ``rdata``, or None if the record is foreign.

        Raises MalformedSstKey if the record has our attribute name and can't be read, and
        UnknownSstAlgorithm, which is no fault of the record's.
        """
        text = "".join(_strings(rdata))
        return cls.parse_text(text) if _OURS.match(text) else None

    @classmethod
    def parse_text(cls, text: str) -> SstKey:
        """The key in the text of a record.  Raises as ``parse`` does."""
        if len(text) > MAX_TEXT:
            raise MalformedSstKey(f"{len(text)} characters, at most {MAX_TEXT} are read")
        form = _FORM.fullmatch(text)
        if form is None:
            raise MalformedSstKey(f"{shown(text)} is not {ATTRIBUTE}(P)=GATEWAY ALGORITHM KEY")
        precedence = _number(form["precedence"], "precedence", 0, MAX_PRECEDENCE)
        gateway = _gateway(form["gateway"])
        algorithm = _number(form["algorithm"], "algorithm", 1, MAX_ALGORITHM)
        if algorithm not in (*ALGORITHMS, QUESTIONS):  # its key may have any form
            raise UnknownSstAlgorithm(f"algorithm {algorithm}")
        return cls(precedence, gateway, algorithm, _key(form["key"]))

    def text(self) -> str:
        """The record's text."""
        digits = base64.b64encode(self.public_key).decode("ascii")
        return f"{ATTRIBUTE}({self.precedence})={self.gateway} {self.algorithm} {digits}"

    def serialize(self) -> bytes:
        """The RDATA: one string."""
        text = self.text().encode("ascii")
        return bytes([len(text)]) + text

    def presentation(self) -> str:
        """The RDATA as a zone file has it."""
        return f'"{self.text()}"'


def check_encoding(octets: bytes) -> None:
    """Raise MalformedSstKey for what is no X25519 public key, or not the usual form of one.

    RFC 7748 section 5 lets one point have two encodings.  Key ids and derived keys are made of the
    octets, so only the lower one, which everybody computes, is a key here.
    """
    if len(octets) != KEY_OCTETS:
        raise MalformedSstKey(f"key of {len(octets)} octets, not {KEY_OCTETS}")
    if int.from_bytes(octets, "little") >= PRIME:
        raise MalformedSstKey("key is not the usual encoding of its point")


def check_order(octets: bytes) -> None:
    """Raise UnsafeSstKey for a point of small order: the secret would be zero for everybody."""
    try:
        _PROBE.exchange(X25519PublicKey.from_public_bytes(octets))
    except ValueError:  # RFC 7748 section 6.1
        raise UnsafeSstKey("key is a point of small order") from None


def _strings(rdata: bytes) -> list[str]:
    """The character-strings of a TXT record.  Latin-1 keeps each octet one character."""
    reader = Reader(rdata, MalformedSstKey)
    strings = []
    while reader.left:
        strings.append(reader.take(reader.uint8("length"), "string").decode("latin-1"))
    return strings


def _number(word: str, what: str, least: int, most: int) -> int:
    if not _NUMBER.fullmatch(word) or not least <= int(word) <= most:
        raise MalformedSstKey(f"{what} {shown(word)} is not a decimal number, {least} to {most}")
    return int(word)


def _gateway(word: str) -> IPAddress:
    try:
        return IPv6Address(word) if ":" in word else IPv4Address(word)
    except AddressValueError as error:
        raise MalformedSstKey(f"gateway {shown(word)} is not an address") from error


def _key(word: str) -> bytes:
    try:
        octets = base64.b64decode(word, validate=True)
    except (binascii.Error, ValueError) as error:
        raise MalformedSstKey(f"key is not base64: {error}") from error
    if base64.b64encode(octets).decode("ascii") != word:
        raise MalformedSstKey("key has bits beyond its last octet")
    return octets
