"""Questions that only the host can read, and answers that only the asker can (MK-16).

    question    BASE64URL(key_id || HPKE(public key of the host, padded line || answer key))
    answer      BASE64URL(nonce || ChaCha20-Poly1305(answer key, padded line))

HPKE (RFC 9180) in base mode with DHKEM(X25519, HKDF-SHA256), HKDF-SHA256 and ChaCha20-Poly1305;
``info`` is INFO, there is no additional authenticated text.  key_id are the first 8 octets of the
SHA-256 of the host's public key, which it has for port encryption (X-SST-Key).  The answer key is
32 random octets, new for each question, so the answer needs no key of its own.  Lines are padded,
so that a length says nothing of a name, and a refusal looks like an answer.  What is said in clear
to a sealed question (``key``, ``busy``) has `nonce_of` its line for a nonce.
"""

from __future__ import annotations

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from oegw.moniker.names import MonikerError
from oegw.moniker.wire import MAX_LINE_OCTETS, MalformedMessage, Sealed, padded, parse, text
from oegw.sst.statickey import KEY_ID_OCTETS, NotOpened, StaticKey, key_id, sealed_to

# Specification (ours).
INFO = b"oegw moniker question 1"
ANSWER_KEY_OCTETS = 32
NONCE_DIGITS = 32  # of the SHA-256 of a sealed question's line
ANSWER_NONCE_OCTETS = 12
ANSWER_TEXT = b"oegw moniker answer 1"  # authenticated with each answer

# Our choices.
QUESTION_STEP = 256  # a question's line is padded to a multiple of them
ANSWER_OCTETS = 192  # an answer's line to these; it is shorter than any sealed question's

Random = Callable[[int], bytes]  # so many octets


class UnknownKey(MonikerError):  # noqa: N818  (it names the fact)
    """A question that is sealed to a key which is not ours: an old one, perhaps."""


@dataclass(frozen=True, slots=True)
class SealedQuery:
    """``text``: the line to send, without CRLF.  ``answer_key``: for `unseal_answer`."""

    text: str
    answer_key: bytes = field(repr=False)


def seal(line: str, public_key: bytes, random: Random) -> SealedQuery:
    """``line``: a question.  ``public_key``: the host's, 32 octets.

    Raises ValueError for a public key that can't be used.
    """
    answer_key = random(ANSWER_KEY_OCTETS)
    octets = len(line.encode("utf-8"))
    plain = padded(line, octets + -octets % QUESTION_STEP).encode("utf-8") + answer_key
    box = key_id(public_key) + sealed_to(public_key, plain, INFO)
    return SealedQuery(text(Sealed(_base64(box))), answer_key)


def unseal(line: str, private: StaticKey) -> tuple[str, bytes]:
    """The question's line without padding, and the key for its answer.

    Raises UnknownKey, and MalformedMessage for all else that may be wrong with it.
    """
    box = _box(line)
    if box[:KEY_ID_OCTETS] != private.key_id:
        raise UnknownKey("the question is sealed to another key")
    try:
        plain = private.opened(box[KEY_ID_OCTETS:], INFO)
        return plain[:-ANSWER_KEY_OCTETS].decode("utf-8").rstrip(" "), _answer_key(plain)
    except (NotOpened, UnicodeDecodeError):
        raise MalformedMessage("a sealed question that can't be opened") from None


def nonce_of(line: str) -> str:
    """What a refusal in clear carries for a sealed question, whose nonce can't be read (MK-33)."""
    return sha256(line.rstrip(" ").encode("utf-8")).hexdigest()[:NONCE_DIGITS]


def seal_answer(line: str, answer_key: bytes, random: Random) -> str:
    """The line to send for ``line``; of one length, whatever the answer is."""
    nonce = random(ANSWER_NONCE_OCTETS)
    plain = padded(line, ANSWER_OCTETS).encode("utf-8")
    return text(
        Sealed(_base64(nonce + ChaCha20Poly1305(answer_key).encrypt(nonce, plain, ANSWER_TEXT)))
    )


def unseal_answer(line: str, answer_key: bytes) -> str:
    """The answer's line, without padding.  Raises MalformedMessage."""
    box = _box(line)
    nonce, sealed = box[:ANSWER_NONCE_OCTETS], box[ANSWER_NONCE_OCTETS:]
    try:
        plain = ChaCha20Poly1305(answer_key).decrypt(nonce, sealed, ANSWER_TEXT)
        return plain.decode("utf-8").rstrip(" ")
    except (InvalidTag, ValueError):
        raise MalformedMessage("a sealed answer that can't be opened") from None


def _answer_key(plain: bytes) -> bytes:
    if len(plain) <= ANSWER_KEY_OCTETS:
        raise MalformedMessage("a sealed question without a question")
    return plain[-ANSWER_KEY_OCTETS:]


def _base64(octets: bytes) -> str:
    return urlsafe_b64encode(octets).rstrip(b"=").decode("ascii")


def _box(line: str) -> bytes:
    message = parse(line)
    if not isinstance(message, Sealed) or len(message.body) > MAX_LINE_OCTETS:
        raise MalformedMessage("a message that is not sealed")
    try:
        box = urlsafe_b64decode(message.body + "=" * (-len(message.body) % 4))
    except (binascii.Error, ValueError):
        raise MalformedMessage("a sealed message that is not base64url") from None
    if _base64(box) != message.body:  # one text for one value: no second form of a replay
        raise MalformedMessage("a sealed message that is not base64url")
    return box
