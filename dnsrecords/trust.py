"""How far an answer of the DNS can be trusted (RFC 4033 section 5)."""

from __future__ import annotations

from enum import Enum


class Trust(Enum):
    SECURE = "secure"  # validated by DNSSEC on a trusted path
    INSECURE = "insecure"  # not signed, or not validated
    INDETERMINATE = "indeterminate"  # the resolver can't tell whether it should be signed
    BOGUS = "bogus"  # signed, and the signature does not hold


_FROM_WEAK_TO_STRONG = (Trust.BOGUS, Trust.INDETERMINATE, Trust.INSECURE, Trust.SECURE)


def weakest(*links: Trust) -> Trust:
    """What a chain holds; a chain of nothing is SECURE.

    Nobody vouches for an insecure or an indeterminate record.  The latter is the weaker one: there,
    not even that there are no signatures was shown.
    """
    return min(links, key=_FROM_WEAK_TO_STRONG.index, default=Trust.SECURE)
