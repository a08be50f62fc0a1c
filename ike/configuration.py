"""The settings of the keying core, one documented value."""

from __future__ import annotations

from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric import rsa

from ike.events import Encapsulation, Identity
from ike.signer import Signing


@dataclass(frozen=True, slots=True)
class Configuration:
    """Settings of one ``Endpoint``.  Times are seconds.

    ``private_key``: the key, or what signs with it.
    ``identity``: None means ID_IPV4_ADDR or ID_IPV6_ADDR of the local address
    in use (draft section 5.7.1); a string means ID_FQDN (section 6.3).
    ``profiles``: proposal lists in order of preference, of ``"modern"`` and ``"draft"``.
    ``channel_proposals`` and ``tunnel_proposals``, where not empty, stand in place of ``profiles``:
    ``"aes256-sha256-modp2048"`` and ``"aes128gcm16"``, ``"3des-md5"`` (see ``v1/suites.py``).
    ``pfs``: ``"required"`` (RFC 4322 section 4.6.1), ``"optional"`` (proposed, and done without if
    the peer does) or ``"off"`` (not proposed; accepted if the peer proposes it).
    ``channel_bytes``, ``tunnel_bytes``: lifetimes in octets to propose and to keep; None: no limit.
    ``lost_contacts``: peers that may still hold tunnels of a former life of ours: each is told
    INITIAL-CONTACT once.
    ``sst``: ports inside of tunnels may be encrypted: we say so in message 1 or 2, and heed offers.
    """

    private_key: rsa.RSAPrivateKey | Signing = field(repr=False)
    identity: Identity | None = None
    profiles: tuple[str, ...] = ("modern", "draft")
    retransmit_first: float = 0.5
    retransmit_factor: float = 2.0
    retransmit_jitter: float = 0.1  # fraction of the interval, both ways
    retransmit_tries: int = 5  # datagrams in all, the first included
    channel_lifetime: int = 8 * 3600
    tunnel_lifetime: int = 3600
    half_open_limit: int = 1000  # responder exchanges without authenticated peer, in all
    half_open_per_source: int = 8
    half_open_timeout: float = 15.0
    tunnels_per_channel: int = 1000
    extended_sequence_numbers: bool = True
    channel_proposals: tuple[str, ...] = ()
    tunnel_proposals: tuple[str, ...] = ()
    pfs: str = "required"
    channel_bytes: int | None = None
    tunnel_bytes: int | None = None
    encapsulation: Encapsulation = Encapsulation.AUTO
    keepalive_interval: float = 20.0  # RFC 3948 section 4; only behind a NAT
    dpd_interval: float = 10.0  # of silence while we send, until R-U-THERE; 0: never
    dpd_tries: int = 5  # unanswered ones until the peer counts as dead
    lost_contacts: frozenset[Identity] = frozenset()
    sst: bool = False
