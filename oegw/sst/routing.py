"""The final destination of an IPv6 packet with a Routing header (RFC 8200 sections 4.4 and 8.1).

It is the one address that is the same all along the path, so the tweak has it, as the
pseudo-header of checksums has.
"""

from __future__ import annotations

from oegw.sst.permutation import NotEligible

# Specification values: IANA's routing types whose form says where the packet ends.
_SOURCE_ROUTE = 0  # RFC 2460, deprecated by RFC 5095
_MOBILE = 2  # RFC 6275 section 6.4
_RPL = 3  # RFC 6554
_SEGMENTS = 4  # RFC 8754

_ADDRESS = 16
_ADDRESSES = 8  # the octet where they begin


def final_destination(header: bytes, destination: bytes) -> bytes:
    """Where the packet is to end that has this Routing header, and now goes to ``destination``.

    ``header``: all octets that its length says, 8 at least.  Raises NotEligible, if the type is not
    known or the header makes no sense.
    """
    kind, left = header[2], header[3]
    if left == 0:
        return destination  # whatever the type (RFC 8200 section 4.4): this is the last stretch
    found = None
    if kind == _SOURCE_ROUTE:
        found = _last_of(header, left)
    elif kind == _MOBILE and left == 1 and len(header) == _ADDRESSES + _ADDRESS:
        found = header[_ADDRESSES:]
    elif kind == _RPL:
        found = _last_compressed(header, left, destination)
    elif kind == _SEGMENTS:
        found = _first_segment(header, left)
    if found is None:
        raise NotEligible("sst_routing_header")
    return found


def _last_of(header: bytes, left: int) -> bytes | None:
    count, odd = divmod(len(header) - _ADDRESSES, _ADDRESS)
    if odd or left > count:
        return None
    return header[-_ADDRESS:]


def _last_compressed(header: bytes, left: int, destination: bytes) -> bytes | None:
    """RFC 6554 section 3: addresses lack the octets that they share with the destination."""
    each = _ADDRESS - (header[4] >> 4)
    last = _ADDRESS - (header[4] & 15)
    end = len(header) - (header[5] >> 4)
    before, odd = divmod(end - last - _ADDRESSES, each)
    if odd or left > before + 1:  # of a last one that has no room, before is negative
        return None
    return destination[: _ADDRESS - last] + header[end - last : end]


def _first_segment(header: bytes, left: int) -> bytes | None:
    """RFC 8754 section 2: the list is in reverse, and may lack the first hop (section 4.1.1)."""
    last_entry = header[4]
    if _ADDRESSES + (last_entry + 1) * _ADDRESS > len(header) or left > last_entry + 1:
        return None
    return header[_ADDRESSES : _ADDRESSES + _ADDRESS]
