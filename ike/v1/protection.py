"""Encryption of messages (RFC 2409 appendix B) and the HASH payload of phase 2.

The chain of initialization vectors is kept by the exchanges: each takes the last
block of the message before.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

from ike.constants import HEADER_LENGTH
from ike.errors import Dropped, GarbledMessage, WrongHash
from ike.header import Header
from ike.registry import ExchangeType, PayloadType
from ike.v1.keymat import ChannelKeys
from ike.v1.message import GENERIC_HEADER, Chain, join
from ike.v1.payloads import Payload
from ike.wire import Reader, Writer


@dataclass(frozen=True, slots=True)
class HashPayload:
    """RFC 2408 section 3.11."""

    kind: ClassVar[PayloadType] = PayloadType.HASH
    octets: bytes

    @classmethod
    def parse(cls, reader: Reader) -> Self:
        return cls(reader.rest())

    def serialize(self, writer: Writer) -> None:
        writer.octets(self.octets)


def last_block(keys: ChannelKeys, message: bytes) -> bytes:
    """The last block of ciphertext: the next initialization vector."""
    return message[-keys.cipher.block :]


def encrypted_message(
    keys: ChannelKeys,
    iv: bytes,
    exchange: ExchangeType,
    message_id: int,
    payloads: Sequence[Payload],
) -> bytes:
    """A whole message, padded with zeros to whole blocks and encrypted after the header."""
    chain = join(payloads)
    chain += bytes(-len(chain) % keys.cipher.block)
    header = Header.before(keys.cookies, exchange, message_id, payloads[0].kind, len(chain), True)
    return header + keys.cipher.encrypt(keys.cipher_key, iv, chain)


def decrypted_chain(keys: ChannelKeys, iv: bytes, header: Header, message: bytes) -> bytes:
    """The payloads of an encrypted message, with their padding."""
    ciphertext = message[HEADER_LENGTH:]
    if not ciphertext or len(ciphertext) % keys.cipher.block:
        raise GarbledMessage(f"{len(ciphertext)} octets are no whole blocks")
    return keys.cipher.decrypt(keys.cipher_key, iv, ciphertext)


def cut_decrypted(header: Header, octets: bytes) -> Chain:
    """Cut what was decrypted; any failure is ``GarbledMessage``, since the key may be wrong."""
    try:
        return Chain.cut(header.next_payload, octets, padded=True)
    except Dropped as error:
        raise GarbledMessage(f"{error.trigger}: {error}") from error


def hashed_message(
    keys: ChannelKeys,
    iv: bytes,
    exchange: ExchangeType,
    message_id: int,
    payloads: Sequence[Payload],
    before: bytes = b"",
) -> bytes:
    """A phase 2 message with the HASH over M-ID, ``before`` (Ni_b in message 2) and the rest."""
    digest = HashPayload(keys.exchange_hash(message_id, before, join(payloads)))
    return encrypted_message(keys, iv, exchange, message_id, [digest, *payloads])


def verified_chain(
    keys: ChannelKeys, iv: bytes, header: Header, message: bytes, before: bytes = b""
) -> Chain:
    """The payloads of a phase 2 message whose HASH, which comes first, is right.

    No payload body but that of HASH is looked at before.  Some peers hash the padding too;
    RFC 2409 section 5.5 says not to, and we follow it.
    """
    octets = decrypted_chain(keys, iv, header, message)
    chain = cut_decrypted(header, octets)
    if chain.first != PayloadType.HASH:
        raise WrongHash("the first payload is no HASH")
    digest = chain.pieces[0][1]
    rest = octets[GENERIC_HEADER + len(digest) : chain.length]
    if not hmac.compare_digest(digest, keys.exchange_hash(header.message_id, before, rest)):
        raise WrongHash("HASH differs")
    return chain


def verify_closing_hash(
    keys: ChannelKeys, iv: bytes, header: Header, message: bytes, nonces: tuple[bytes, bytes]
) -> None:
    """Message 3 of quick mode: HASH(3) alone counts."""
    chain = cut_decrypted(header, decrypted_chain(keys, iv, header, message))
    if chain.first != PayloadType.HASH:
        raise WrongHash("the first payload is no HASH")
    expected = keys.closing_hash(header.message_id, nonces)
    if not hmac.compare_digest(chain.pieces[0][1], expected):
        raise WrongHash("HASH(3) differs")
