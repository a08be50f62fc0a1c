"""What protects a channel and a tunnel, by list and by name.

The list ``modern`` is AES with SHA2-256 and the groups 14 and 15.  ``draft`` is what
draft-richardson-ipsec-opportunistic section 5.7.1 and RFC 4322 section 4.6.1 ask for:
3DES with SHA1 or MD5 and the groups 5 and 2.  An administrator may name others for peers
that know neither: ``aes128-sha256-modp2048`` for a channel, ``aes128gcm16`` or
``3des-md5`` for a tunnel.  Single DES and group 1 do not exist here.

Suites come in tiers: the responder exhausts a tier before it looks at the next.  A list
is one tier; of names each is a tier of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

from ike import algorithms as a
from ike.configuration import Configuration
from ike.constants import TRIPLE_DES_BYTES
from ike.groups import GROUPS, ModpGroup
from ike.registry import (
    Authentication,
    Encapsulation,
    EspTransform,
    Group,
    Phase1Attribute,
    Phase2Attribute,
)

_NAMED = "named"  # the profile of suites that were configured by name


@dataclass(frozen=True, slots=True)
class ChannelSuite:
    """How a keying channel is protected."""

    profile: str
    cipher: a.CipherAlgorithm
    hash: a.HashAlgorithm
    group: ModpGroup

    def __str__(self) -> str:
        return f"{self.profile}: {self.cipher.name} {self.hash.name} {self.group.name}"

    def attributes(self) -> dict[int, int]:
        values: dict[int, int] = {
            Phase1Attribute.ENCRYPTION: self.cipher.number,
            Phase1Attribute.HASH: self.hash.number,
            Phase1Attribute.AUTHENTICATION: Authentication.RSA_SIGNATURES,
            Phase1Attribute.GROUP: self.group.number,
        }
        if self.cipher.key_bits is not None:
            values[Phase1Attribute.KEY_LENGTH] = self.cipher.key_bits
        return values


@dataclass(frozen=True, slots=True)
class TunnelSuite:
    """How the packets of a tunnel are protected."""

    profile: str
    cipher: a.EspCipher
    integrity: a.EspIntegrity | None
    extended: bool  # extended sequence numbers

    @property
    def key_octets(self) -> int:
        """KEYMAT wanted for one direction."""
        integrity = self.integrity.key_length if self.integrity else 0
        return self.cipher.key_length + self.cipher.salt + integrity

    @property
    def byte_limit(self) -> int | None:
        return TRIPLE_DES_BYTES if self.cipher.number is EspTransform.TRIPLE_DES else None

    def attributes(self, group: ModpGroup | None, encapsulated: bool) -> dict[int, int]:
        """``group``: of perfect forward secrecy, None without.  ``encapsulated``: ESP in UDP."""
        mode = Encapsulation.UDP_TUNNEL if encapsulated else Encapsulation.TUNNEL
        values: dict[int, int] = {Phase2Attribute.ENCAPSULATION: mode}
        if group is not None:
            values[Phase2Attribute.GROUP] = group.number
        if self.integrity is not None:
            values[Phase2Attribute.AUTHENTICATION] = self.integrity.number
        if self.cipher.key_bits is not None:
            values[Phase2Attribute.KEY_LENGTH] = self.cipher.key_bits
        if self.extended:
            values[Phase2Attribute.EXTENDED_SEQUENCE_NUMBER] = 1
        return values


CHANNEL_SUITES: dict[str, tuple[ChannelSuite, ...]] = {
    "modern": tuple(
        ChannelSuite("modern", cipher, a.SHA2_256, GROUPS[group])
        for group in (Group.MODP_2048, Group.MODP_3072)  # the quicker first
        for cipher in (a.AES_CBC_256, a.AES_CBC_128)
    ),
    "draft": tuple(
        ChannelSuite("draft", a.TRIPLE_DES_CBC, hash_, GROUPS[group])
        for group in (Group.MODP_1536, Group.MODP_1024)  # RFC 4322 4.6.1: group 5 first
        for hash_ in (a.SHA1, a.MD5)
    ),
}

_MODERN_ESP: tuple[tuple[a.EspCipher, a.EspIntegrity | None], ...] = (
    (a.ESP_AES_GCM_128, None),
    (a.ESP_AES_GCM_256, None),
    (a.ESP_AES_CBC_128, a.ESP_HMAC_SHA2_256),
    (a.ESP_AES_CBC_256, a.ESP_HMAC_SHA2_256),
)

TUNNEL_SUITES: dict[str, tuple[TunnelSuite, ...]] = {
    "modern": tuple(
        TunnelSuite("modern", cipher, integrity, extended)
        for extended in (True, False)
        for cipher, integrity in _MODERN_ESP
    ),
    "draft": tuple(
        TunnelSuite("draft", a.ESP_TRIPLE_DES, integrity, False)
        for integrity in (a.ESP_HMAC_SHA1, a.ESP_HMAC_MD5)
    ),
}

_CIPHERS = {"aes128": a.AES_CBC_128, "aes256": a.AES_CBC_256, "3des": a.TRIPLE_DES_CBC}
_HASHES = {"sha256": a.SHA2_256, "sha1": a.SHA1, "md5": a.MD5}
_GROUPS = {f"modp{group.length * 8}": group for group in GROUPS.values()}
_ESP_CIPHERS = {"aes128": a.ESP_AES_CBC_128, "aes256": a.ESP_AES_CBC_256, "3des": a.ESP_TRIPLE_DES}
_ESP_INTEGRITY = {
    "sha256": a.ESP_HMAC_SHA2_256,
    "sha1": a.ESP_HMAC_SHA1,
    "md5": a.ESP_HMAC_MD5,
}

_NEVER_TOGETHER = {("aes128", "md5"), ("aes256", "md5"), ("3des", "sha256")}

NAMED_CHANNEL_SUITES: dict[str, ChannelSuite] = {
    f"{cipher}-{hash_}-{group}": ChannelSuite(
        _NAMED, _CIPHERS[cipher], _HASHES[hash_], _GROUPS[group]
    )
    for cipher in _CIPHERS
    for hash_ in _HASHES
    for group in _GROUPS
}

NAMED_TUNNEL_SUITES: dict[str, tuple[a.EspCipher, a.EspIntegrity | None]] = {
    "aes128gcm16": (a.ESP_AES_GCM_128, None),
    "aes256gcm16": (a.ESP_AES_GCM_256, None),
    **{
        f"{cipher}-{integrity}": (_ESP_CIPHERS[cipher], _ESP_INTEGRITY[integrity])
        for cipher in _ESP_CIPHERS
        for integrity in _ESP_INTEGRITY
        if (cipher, integrity) not in _NEVER_TOGETHER
    },
}

PFS_CHOICES = ("required", "optional", "off")


def _named_tunnel_tier(name: str) -> tuple[TunnelSuite, ...]:
    """With extended sequence numbers first; 3DES ends long before it could need them."""
    cipher, integrity = NAMED_TUNNEL_SUITES[name]
    variants = (False,) if cipher is a.ESP_TRIPLE_DES else (True, False)
    return tuple(TunnelSuite(_NAMED, cipher, integrity, extended) for extended in variants)


def channel_tiers(configuration: Configuration) -> list[tuple[ChannelSuite, ...]]:
    """What may protect a channel, the preferred first."""
    if configuration.channel_proposals:
        return [(NAMED_CHANNEL_SUITES[name],) for name in configuration.channel_proposals]
    return [CHANNEL_SUITES[profile] for profile in configuration.profiles]


def tunnel_tiers(configuration: Configuration) -> list[tuple[TunnelSuite, ...]]:
    """What may protect a tunnel, the preferred first."""
    if configuration.tunnel_proposals:
        tiers = [_named_tunnel_tier(name) for name in configuration.tunnel_proposals]
    else:
        tiers = [TUNNEL_SUITES[profile] for profile in configuration.profiles]
    if not configuration.extended_sequence_numbers:
        tiers = [tuple(suite for suite in tier if not suite.extended) for tier in tiers]
    return tiers


def secrecy_groups(configuration: Configuration) -> dict[int, ModpGroup]:
    """The groups in which a peer may ask for perfect forward secrecy, by number.

    As initiator we use the group of the channel; so strangers may use that, and any stronger one.
    """
    weakest = min(suite.group.length for tier in channel_tiers(configuration) for suite in tier)
    return {int(g.number): g for g in GROUPS.values() if g.length >= weakest}


def check_proposals(configuration: Configuration) -> None:
    """Raise ``ValueError``, with key and value, for a name that is none."""
    lists: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
        ("profiles", configuration.profiles, tuple(CHANNEL_SUITES)),
        ("channel_proposals", configuration.channel_proposals, tuple(NAMED_CHANNEL_SUITES)),
        ("tunnel_proposals", configuration.tunnel_proposals, tuple(NAMED_TUNNEL_SUITES)),
        ("pfs", (configuration.pfs,), PFS_CHOICES),
    )
    for key, values, known in lists:
        for value in values:
            if value not in known:
                raise ValueError(f"{key}: {value!r} is none of {sorted(known)}")
    if not configuration.profiles:
        raise ValueError("profiles: at least one is needed")
