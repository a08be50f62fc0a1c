"""One direction of a connection of the lease protocol: messages sealed one by one, in order.

    length, 2 octets || ChaCha20-Poly1305(key of the direction, nonce: number of the message,
                                          associated: length; message)

A message that is changed, left out, repeated or in another place does not open, and the
connection ends: there is nothing after it that could be trusted.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from oegw.moniker.firewall.handshake import LeaseProtocolError

# Specification (ours).
LENGTH_OCTETS = 2
TAG_OCTETS = 16
NONCE_OCTETS = 12
MAX_SEALED = 8192


class Sealing:
    """The sending end."""

    def __init__(self, key: bytes) -> None:
        self._cipher = ChaCha20Poly1305(key)
        self._number = 0

    def seal(self, message: bytes) -> bytes:
        """The octets of the next message.  Raises ValueError for one that is too long."""
        length = (len(message) + TAG_OCTETS).to_bytes(LENGTH_OCTETS, "big")
        if len(message) + TAG_OCTETS > MAX_SEALED:
            raise ValueError(f"a message of {len(message)} octets")
        sealed = self._cipher.encrypt(_nonce(self._number), message, length)
        self._number += 1
        return length + sealed


class Opening:
    """The receiving end: octets in any pieces, messages out."""

    def __init__(self, key: bytes) -> None:
        self._cipher = ChaCha20Poly1305(key)
        self._number = 0

    def length(self, octets: bytes) -> int:
        """How many octets follow these LENGTH_OCTETS.  Raises LeaseProtocolError."""
        length = int.from_bytes(octets, "big")
        if not TAG_OCTETS <= length <= MAX_SEALED:
            raise LeaseProtocolError("lease_malformed", f"a message of {length} octets")
        return length

    def open(self, sealed: bytes) -> bytes:
        """The next message.  Raises LeaseProtocolError."""
        length = len(sealed).to_bytes(LENGTH_OCTETS, "big")
        try:
            message = self._cipher.decrypt(_nonce(self._number), sealed, length)
        except InvalidTag:
            raise LeaseProtocolError(
                "lease_not_authentic", "a message that does not open"
            ) from None
        self._number += 1
        return message


def _nonce(number: int) -> bytes:
    return number.to_bytes(NONCE_OCTETS, "big")
