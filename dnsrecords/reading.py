"""What answers come to: delegations of an address, keys of an identity, or a failure.

``notes`` collects what should be counted but does not change the result: pairs of a trigger's name
and a detail.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import rsa

from dnsrecords.delegation import Delegation
from dnsrecords.errors import RecordError
from dnsrecords.ipseckey import IpsecKey
from dnsrecords.key import HostKey
from dnsrecords.name import normal_fqdn
from dnsrecords.outcome import (
    IPAddress,
    KeyOutcome,
    KeysFound,
    Malformed,
    NothingFound,
    Unanswered,
)
from dnsrecords.question import Answer, Status
from dnsrecords.reverse import reverse_name
from dnsrecords.trust import Trust, weakest

MAX_KEYS = 16  # our choice, of one gateway or one identity

# Which records name a gateway, and which then its key.
RECORD_KINDS = ("TXT", "IPSECKEY")
KEY_RECORD_OF = {"TXT": "KEY", "IPSECKEY": "IPSECKEY"}

Notes = list[tuple[str, str]]
Failure = Malformed | Unanswered | NothingFound


@dataclass(frozen=True, slots=True)
class Found:
    """One delegation, of whichever kind of record.  ``named``: ``fqdn`` has the addresses."""

    precedence: int
    address: IPAddress | None
    fqdn: str | None
    key: rsa.RSAPublicKey | None
    named: bool
    rdata: bytes


def owner_of(identity: IPAddress | str) -> str:
    """Where an identity has its key records: an address at its reverse name, a name at itself."""
    return normal_fqdn(identity) + "." if isinstance(identity, str) else reverse_name(identity)


def answer_failure(answer: Answer) -> Failure | None:
    """What an answer without usable records comes to; None if it has records."""
    what = f"{answer.question.name} {answer.question.rdtype}"
    detail = f"{what}: {answer.detail or answer.status.value}"
    if answer.trust is Trust.BOGUS:
        why = f" ({answer.detail})" if answer.detail else ""
        return Malformed(f"{what}: DNSSEC calls the answer bogus{why}", answer.ttl)
    if answer.status is Status.UNANSWERED:
        return Unanswered(detail)
    if answer.status is not Status.ANSWERED or not answer.records:
        return NothingFound(answer.ttl, detail)
    return None


def read_delegations(answer: Answer, client: IPAddress, notes: Notes) -> list[Found] | Failure:
    """The delegations that ``client`` has in one answer; one that can't be read spoils them all.

    RFC 4322 section 3.2.4: deny, even if other records can be read.
    """
    if (failure := answer_failure(answer)) is not None:
        return failure
    read = _of_txt if answer.question.rdtype == "TXT" else _of_ipseckey
    found: list[Found] = []
    for rdata in answer.records:
        try:
            each = read(rdata, client, answer, notes)
        except RecordError as error:
            notes.append((error.trigger, str(error)))
            return malformed(answer, error)
        if each is not None:
            found.append(each)
    if found:
        return found
    what = f"{answer.question.name} {answer.question.rdtype}"
    return NothingFound(answer.ttl, f"{what}: no record is a delegation")


def _of_txt(rdata: bytes, client: IPAddress, answer: Answer, notes: Notes) -> Found | None:
    delegation = Delegation.parse(rdata)
    if delegation is None:
        return None
    if delegation.joined_with_blanks:
        notes.append(("txt_joined_with_blanks", answer.question.name))
    elif rdata[0] + 1 < len(rdata):
        notes.append(("txt_joined_without_blanks", answer.question.name))
    return Found(
        delegation.precedence, delegation.address, delegation.fqdn, delegation.key, False, rdata
    )


def _of_ipseckey(rdata: bytes, client: IPAddress, answer: Answer, notes: Notes) -> Found | None:
    record = IpsecKey.parse(rdata)
    if record is None:
        notes.append(("ipseckey_foreign", answer.question.name))
        return None
    key = record.public_key()
    address = client if record.address is None and record.fqdn is None else record.address
    return Found(record.precedence, address, record.fqdn, key, record.fqdn is not None, rdata)


def read_keys(answer: Answer, identity: IPAddress | str, notes: Notes) -> KeyOutcome:
    """The keys that ``identity`` has in one answer.

    A record that can't be read does not spoil the good ones beside it: any KEY
    record may verify a signature (RFC 4322 section 5.1), and an old key, too
    small by now, may well be left beside its successor.
    """
    if (failure := answer_failure(answer)) is not None:
        return failure
    keys: list[rsa.RSAPublicKey] = []
    broken: RecordError | None = None
    for rdata in sorted(answer.records):
        try:
            if answer.question.rdtype == "IPSECKEY":
                key = _own_ipseckey(rdata, identity)
            else:
                key = None if (host := HostKey.parse(rdata)) is None else host.key
        except RecordError as error:
            notes.append((error.trigger, f"{answer.question.name}: {error}"))
            broken = error
            continue
        if key is not None and not add_key(keys, key):
            detail = f"{answer.question.name}: more than {MAX_KEYS} keys"
            notes.append(("records_over_limit", detail))
            break
    if keys:
        return KeysFound(tuple(keys), answer.ttl, answer.trust)
    if broken is not None:
        return malformed(answer, broken)
    what = f"{answer.question.name} {answer.question.rdtype}"
    return NothingFound(answer.ttl, f"{what}: no record is for IPsec")


def _own_ipseckey(rdata: bytes, identity: IPAddress | str) -> rsa.RSAPublicKey | None:
    """The key of a record whose gateway is the owner itself; other gateways' keys are theirs."""
    record = IpsecKey.parse(rdata)
    if record is None or not (
        (record.address is None and record.fqdn is None)
        or (record.address is not None and record.address == identity)
        or (isinstance(identity, str) and record.fqdn == normal_fqdn(identity))
    ):
        return None
    return record.public_key()


def add_key(keys: list[rsa.RSAPublicKey], key: rsa.RSAPublicKey) -> bool:
    """Put a key beside the others, once; False if there is no room."""
    if key in keys:
        return True
    if len(keys) >= MAX_KEYS:
        return False
    keys.append(key)
    return True


def joined_keys(outcomes: Sequence[KeyOutcome]) -> KeyOutcome:
    """What the KEY and the IPSECKEY records of one identity come to together.

    A key of either kind is a key, whatever else is there; only a bogus answer spoils all, which is
    for those to see who have the answers.
    """
    found = [each for each in outcomes if isinstance(each, KeysFound)]
    if not found:
        return worst([each for each in outcomes if not isinstance(each, KeysFound)])
    keys: list[rsa.RSAPublicKey] = []
    for each in found:
        for key in each.keys:
            add_key(keys, key)
    return KeysFound(
        tuple(keys), min(each.ttl for each in found), weakest(*(each.trust for each in found))
    )


def malformed(answer: Answer, error: RecordError) -> Malformed:
    """Records of ours that can't be read: they are kept for as long as they hold."""
    return Malformed(f"{answer.question.name} {answer.question.rdtype}: {error}", answer.ttl)


def worst(failures: Iterable[Failure]) -> Failure:
    """What look-ups that all failed come to: deny if in doubt, retry before giving up."""
    failures = list(failures)
    for kind in (Malformed, Unanswered):
        for each in failures:
            if isinstance(each, kind):
                return each
    nothing = [each for each in failures if isinstance(each, NothingFound)]
    return min(nothing, key=lambda each: each.ttl)
