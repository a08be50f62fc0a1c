"""How far an answer of the DNS can be trusted (RFC 4033 section 5)."""

from __future__ import annotations

from enum import Enum


class Trust(Enum):
    SECURE = "secure"  # validated by DNSSEC on a trusted path
    INSECURE = "insecure"  # not signed, or not validated
    INDETERMINATE = "indeterminate"  # the resolver can't tell whether it should be signed
    BOGUS = "bogus"  # signed, and the signature does not hold
