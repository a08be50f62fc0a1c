"""The key of port encryption inside a tunnel (draft-unice-dispatch-enc-ports; SST-34, SST-35).

It is agreed upon in quick mode, by a private attribute of the transform, and belongs to what
two peers have between them: each quick mode under one channel and for the same two sides comes to
the same key, so a rekey of ESP does not change it, and crossed or lost messages cannot leave the
two ends with different ones.  A new channel brings a new key.
"""

from __future__ import annotations

from ike.events import TrafficSelector
from ike.registry import PortCipher
from ike.v1.keymat import ChannelKeys

# Specification value.
PROTO_SST = 249  # RFC 2407 section 6.2: 249 to 255 are private.  It stands in no message

# Our choice.
PORT_KEY_LENGTH = 16  # octets: AES-128


def port_key(keys: ChannelKeys, selectors: tuple[TrafficSelector, TrafficSelector]) -> bytes:
    """K_sst = prf+(SKEYID_d, PROTO_SST | cipher | lower side | higher side), cut to 16 octets.

    A side is: IP version (1 octet), network, prefix length (1), protocol (1), port (2).  Sorted, so
    that both ends and both directions have the same key.  No ESP key can be the same: their seeds
    are longer, or begin with the protocol ESP.
    """
    lower, higher = sorted(_octets(selector) for selector in selectors)
    seed = bytes((PROTO_SST, PortCipher.FF1_AES_128)) + lower + higher
    return keys.expanded(seed, PORT_KEY_LENGTH)


def _octets(selector: TrafficSelector) -> bytes:
    network = selector.network
    return b"".join(
        (
            bytes((network.version,)),
            network.network_address.packed,
            bytes((network.prefixlen, selector.protocol)),
            selector.port.to_bytes(2, "big"),
        )
    )
