"""What the extended errors of a validating resolver say about an answer (RFC 8914).

They refine what AD flag and response code say.  Only those of a server on a trusted path are read.
"""

from __future__ import annotations

from collections.abc import Collection
from enum import IntEnum


class ExtendedError(IntEnum):
    """IANA's "Extended DNS Error Codes"; those up to 24 are of RFC 8914 section 4."""

    UNSUPPORTED_DNSKEY_ALGORITHM = 1
    UNSUPPORTED_DS_DIGEST_TYPE = 2
    STALE_ANSWER = 3
    FORGED_ANSWER = 4
    DNSSEC_INDETERMINATE = 5
    DNSSEC_BOGUS = 6
    SIGNATURE_EXPIRED = 7
    SIGNATURE_NOT_YET_VALID = 8
    DNSKEY_MISSING = 9
    RRSIGS_MISSING = 10
    NO_ZONE_KEY_BIT_SET = 11
    NSEC_MISSING = 12
    CACHED_ERROR = 13
    NOT_READY = 14
    BLOCKED = 15
    CENSORED = 16
    FILTERED = 17
    PROHIBITED = 18
    STALE_NXDOMAIN_ANSWER = 19
    NOT_AUTHORITATIVE = 20
    NOT_SUPPORTED = 21
    NO_REACHABLE_AUTHORITY = 22
    NETWORK_ERROR = 23
    INVALID_DATA = 24
    SIGNATURE_EXPIRED_BEFORE_VALID = 25
    TOO_EARLY = 26
    UNSUPPORTED_NSEC3_ITERATIONS = 27


E = ExtendedError

# The resolver has what it needs and finds it wrong: bogus on its word.
FOUND_WRONG = frozenset(
    {
        E.DNSSEC_BOGUS,
        E.SIGNATURE_EXPIRED,
        E.SIGNATURE_NOT_YET_VALID,
        E.NO_ZONE_KEY_BIT_SET,
        E.SIGNATURE_EXPIRED_BEFORE_VALID,
    }
)
# It misses a part of the proof.  Somebody may have stripped it, or a server of the zone may just
# not answer: bogus only if the zone does answer a question without validation.
FOUND_MISSING = frozenset({E.DNSKEY_MISSING, E.RRSIGS_MISSING, E.NSEC_MISSING})
# It does not know, or does not want to tell: a failed look-up.
FAILED = frozenset(
    {
        E.FORGED_ANSWER,
        E.NOT_READY,
        E.BLOCKED,
        E.CENSORED,
        E.FILTERED,
        E.PROHIBITED,
        E.NOT_AUTHORITATIVE,
        E.NOT_SUPPORTED,
        E.NO_REACHABLE_AUTHORITY,
        E.NETWORK_ERROR,
        E.INVALID_DATA,
        E.TOO_EARLY,
    }
)
# Codes beside an answer that say: this is not what the zone says.
NOT_THE_ZONES_WORD = frozenset({E.FORGED_ANSWER, E.BLOCKED, E.CENSORED, E.FILTERED, E.PROHIBITED})


def named(codes: Collection[int]) -> str:
    """The codes as text for a log line: ``signature expired (7)``; empty without any."""
    return ", ".join(_name(code) for code in sorted(set(codes)))


def _name(code: int) -> str:
    try:
        words = ExtendedError(code).name.lower().replace("_", " ")
    except ValueError:
        return f"extended error {code}"
    for acronym in ("dnssec", "dnskey", "rrsigs", "nsec3", "nsec", "nxdomain", "ds "):
        words = words.replace(acronym, acronym.upper())
    return f"{words} ({code})"
