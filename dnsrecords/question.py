"""Questions and answers, as the lookups see them: no sockets, no dnspython types."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from dnsrecords.trust import Trust


class Status(Enum):
    ANSWERED = "answered"  # NOERROR with at least one record of the type asked for
    NO_DATA = "no_data"  # the name exists, no such record
    NO_NAME = "no_name"  # NXDOMAIN
    UNANSWERED = "unanswered"  # time-out, SERVFAIL, REFUSED: nobody knows


@dataclass(frozen=True, slots=True)
class Question:
    """``name`` is absolute with trailing dot, lower case.

    ``rdtype`` is "TXT", "KEY", "IPSECKEY", "A", "AAAA" or "PTR".
    """

    name: str
    rdtype: str


@dataclass(frozen=True, slots=True)
class Answer:
    """``records`` are raw RDATA (for TXT: length-prefixed strings; for PTR: a name in full,
    in lower case), CNAMEs already followed.

    ``ttl`` in seconds: of the records, or the SOA MINIMUM bound of a negative answer
    (RFC 2308), or 0 if unanswered.
    """

    question: Question
    status: Status
    records: tuple[bytes, ...] = ()
    ttl: float = 0.0
    trust: Trust = Trust.INSECURE
    detail: str = ""
