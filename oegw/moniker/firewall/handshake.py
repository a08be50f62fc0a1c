"""How a host and its gateway begin the lease protocol, and what both then have in common.

    host    -> gateway   MON/1 L BASE64URL(key_id of the host, 8 octets || E_H, 32 octets)
    gateway -> host      MON/1 L BASE64URL(E_G, 32 octets)          or MON/1 - NONCE CODE TEXT

Both have an X25519 key that the other knows, S_H and S_G, and make another for each connection,
E_H and E_G.  The keys of the two directions are 64 octets of

    HKDF-SHA256(salt SHA-256(E_H || E_G), X25519(S_H, S_G) || X25519(E_H, E_G),
                info "oegw moniker lease 1" || public S_H || public S_G)

the first half from host to gateway.  Only who has S_H or S_G can compute them, nobody can play a
connection's messages into another (E_G is the gateway's challenge, E_H the host's), and who gets
S_H later can't read what went before.  The first message that opens (`channel`) is the proof.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from hashlib import sha256

from oegw.moniker.names import MonikerError
from oegw.moniker.wire import PROTOCOL
from oegw.sst.interface import SstError
from oegw.sst.statickey import KEY_ID_OCTETS, StaticKey

# Specification (ours).
HELLO = f"{PROTOCOL} L "
INFO = b"oegw moniker lease 1"
KEY_OCTETS = 32
MAX_HELLO = len(HELLO) + 64


class LeaseProtocolError(MonikerError):
    """The other end says what the protocol doesn't allow; ``trigger``: its name in counters."""

    def __init__(self, trigger: str, text: str) -> None:
        super().__init__(text)
        self.trigger = trigger


@dataclass(frozen=True, slots=True)
class Keys:
    """One for each direction; never shown."""

    to_gateway: bytes
    to_host: bytes

    def __repr__(self) -> str:
        return "Keys(...)"


def is_hello(line: str) -> bool:
    """Whether the first line of a connection is a host's that wants to ask for leases."""
    return line.startswith(HELLO)


def hello(host: StaticKey, ephemeral: StaticKey) -> str:
    """The host's first line, without CRLF."""
    return HELLO + _encoded(host.key_id + ephemeral.public)


def read_hello(line: str) -> tuple[bytes, bytes]:
    """The host's key ID and E_H.  Raises LeaseProtocolError."""
    octets = _decoded(line, KEY_ID_OCTETS + KEY_OCTETS)
    return octets[:KEY_ID_OCTETS], octets[KEY_ID_OCTETS:]


def welcome(ephemeral: StaticKey) -> str:
    """The gateway's line, without CRLF."""
    return HELLO + _encoded(ephemeral.public)


def read_welcome(line: str) -> bytes:
    """E_G.  Raises LeaseProtocolError."""
    return _decoded(line, KEY_OCTETS)


def keys_of_host(host: StaticKey, ephemeral: StaticKey, gateway: bytes, e_g: bytes) -> Keys:
    """As the host computes them.  Raises LeaseProtocolError."""
    return _keys(host, gateway, ephemeral, e_g, host.public + gateway, ephemeral.public + e_g)


def keys_of_gateway(gateway: StaticKey, ephemeral: StaticKey, host: bytes, e_h: bytes) -> Keys:
    """As the gateway computes them.  Raises LeaseProtocolError."""
    return _keys(gateway, host, ephemeral, e_h, host + gateway.public, e_h + ephemeral.public)


def _keys(
    ours: StaticKey,
    theirs: bytes,
    our_ephemeral: StaticKey,
    their_ephemeral: bytes,
    names: bytes,
    challenges: bytes,
) -> Keys:
    try:
        octets = ours.session_keys(
            theirs,
            our_ephemeral,
            their_ephemeral,
            salt=sha256(challenges).digest(),
            info=INFO + names,
            length=2 * KEY_OCTETS,
        )
    except SstError as error:
        raise LeaseProtocolError("lease_key_weak", str(error)) from None
    return Keys(octets[:KEY_OCTETS], octets[KEY_OCTETS:])


def _encoded(octets: bytes) -> str:
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


def _decoded(line: str, octets: int) -> bytes:
    if not line.startswith(HELLO) or len(line) > MAX_HELLO:
        raise LeaseProtocolError("lease_malformed", "no line of the lease protocol")
    text = line[len(HELLO) :]
    try:
        found = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (ValueError, binascii.Error):
        raise LeaseProtocolError("lease_malformed", "a line that is not base64url") from None
    if len(found) != octets:
        raise LeaseProtocolError("lease_malformed", f"{len(found)} octets instead of {octets}")
    return found
