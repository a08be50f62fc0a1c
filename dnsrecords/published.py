"""Records that are put into the DNS, and the secret that dynamic updates are signed with.

Without IO: `updater` sends them.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, field

from dnsrecords.delegation import Delegation
from dnsrecords.errors import RecordError
from dnsrecords.ipseckey import IpsecKey
from dnsrecords.key import HostKey
from dnsrecords.name import normal_fqdn
from dnsrecords.sstkey import SstKey
from dnsrecords.zonefile import ipseckey_line, key_line, sst_key_line, txt_line

# RFC 8945 section 6, without those that it forbids (MD5) or that few servers know.
TSIG_ALGORITHMS = ("hmac-sha1", "hmac-sha224", "hmac-sha256", "hmac-sha384", "hmac-sha512")

_KEY_STATEMENT = re.compile(
    r'\s*key\s+"?(?P<name>[^\s"{;]+)"?\s*\{(?P<body>[^{}]*)\}\s*;?\s*', re.ASCII
)
_KEY_FIELD = re.compile(r'\s*(algorithm|secret)\s+"?([^\s";]+)"?\s*;', re.ASCII)
# Not within quotes or a word: every hundredth secret has a // in its base64.
_COMMENT = re.compile(r'("[^"\n]*"|[^\s{};"/#][^\s{};"]*)|/\*.*?\*/|//[^\n]*|#[^\n]*', re.DOTALL)


class MalformedTsigKey(RecordError):  # noqa: N818  (see errors.py)
    """The file of a TSIG key can't be read."""

    trigger = "tsig_key_malformed"


@dataclass(frozen=True, slots=True)
class PublishedRecord:
    """One record: ``owner`` is absolute and in lower case, ``rdata`` as on the wire.

    ``line`` is the record as a zone file has it.
    """

    owner: str
    rdtype: str
    rdata: bytes
    line: str = field(compare=False)

    @classmethod
    def of_key(cls, owner: str, key: HostKey) -> PublishedRecord:
        """A KEY record.  Raises MalformedName."""
        return cls(normal_fqdn(owner) + ".", "KEY", key.serialize(), key_line(owner, key))

    @classmethod
    def of_delegation(cls, owner: str, delegation: Delegation) -> PublishedRecord:
        """A TXT record.  Raises MalformedName."""
        return cls(
            normal_fqdn(owner) + ".", "TXT", delegation.serialize(), txt_line(owner, delegation)
        )

    @classmethod
    def of_ipseckey(cls, owner: str, record: IpsecKey) -> PublishedRecord:
        """An IPSECKEY record.  Raises MalformedName."""
        return cls(
            normal_fqdn(owner) + ".", "IPSECKEY", record.serialize(), ipseckey_line(owner, record)
        )

    @classmethod
    def of_sst_key(cls, owner: str, key: SstKey) -> PublishedRecord:
        """The TXT record of a key for port encryption.  Raises MalformedName."""
        return cls(normal_fqdn(owner) + ".", "TXT", key.serialize(), sst_key_line(owner, key))


@dataclass(frozen=True, slots=True)
class TsigKey:
    """A secret shared with a name server (RFC 8945)."""

    name: str  # without last dot
    algorithm: str
    secret: bytes = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> TsigKey:
        """The key in a file as ``tsig-keygen`` writes it and ``nsupdate -k`` reads it.

        Raises MalformedTsigKey, without quoting the secret.
        """
        statement = _KEY_STATEMENT.fullmatch(_COMMENT.sub(r"\1 ", text))
        if statement is None:
            raise MalformedTsigKey('is not of the form: key "NAME" { algorithm A; secret "S"; };')
        fields = dict(_KEY_FIELD.findall(statement["body"]))
        if _KEY_FIELD.sub("", statement["body"]).strip() or set(fields) != {"algorithm", "secret"}:
            raise MalformedTsigKey("must have an algorithm and a secret, and nothing else")
        algorithm = fields["algorithm"].lower()
        if algorithm not in TSIG_ALGORITHMS:
            raise MalformedTsigKey(f"algorithm is none of {', '.join(TSIG_ALGORITHMS)}")
        try:
            secret = base64.b64decode(fields["secret"], validate=True)
        except (binascii.Error, ValueError):
            raise MalformedTsigKey("secret is not base64") from None
        if not secret:
            raise MalformedTsigKey("secret is empty")
        return cls(normal_fqdn(statement["name"]), algorithm, secret)
