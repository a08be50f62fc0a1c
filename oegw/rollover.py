"""Changing the gateway's key without a moment in which a peer can't verify it (RFC 4322 5.4).

    made -> published -> used -> over

A new key is made; its records are added beside the old ones; after the longest time that a
resolver may believe what was there before, it is used; after that time once more the old records
are withdrawn.  The state is a file beside the key, so that each step may be taken by another
process, also after a crash between any two of them.  Without IO.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import Enum
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from dnsrecords.published import PublishedRecord

VERSION = 1


class Stage(Enum):
    MADE = "made"  # the new key exists; its records may have been sent
    PUBLISHED = "published"  # all servers have them: wait until nobody remembers the lack of them
    USED = "used"  # the gateway signs with the new key: the old records stay a while


class RolloverError(Exception):
    """The state can't be read, or a step can't be taken; the message says why."""


def fingerprint(key: rsa.RSAPublicKey) -> str:
    """SHA-256 of the key in DER, as hexadecimal text."""
    octets = key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    digest = hashes.Hash(hashes.SHA256())
    digest.update(octets)
    return digest.finalize().hex()


@dataclass(frozen=True, slots=True)
class Rollover:
    """One change of key under way.

    ``old``, ``new``: fingerprints.  ``withdrawn`` and ``added``: the records of the old key and of
    the new one.  ``holding``: seconds that a resolver may remember; ``due``: when the next step may
    be taken, in seconds since 1970.
    """

    stage: Stage
    old: str
    new: str
    withdrawn: tuple[PublishedRecord, ...]
    added: tuple[PublishedRecord, ...]
    holding: int = 0
    due: float = 0.0

    def serialize(self) -> str:
        """The text of the state's file."""
        return json.dumps(
            {
                "version": VERSION,
                "stage": self.stage.value,
                "old": self.old,
                "new": self.new,
                "withdrawn": [_plain(r) for r in self.withdrawn],
                "added": [_plain(r) for r in self.added],
                "holding": self.holding,
                "due": self.due,
            },
            indent=1,
        )

    def text(self, now: float) -> str:
        """Where it stands, in words; ``now`` in seconds since 1970."""
        left = max(0, round(self.due - now))
        return {
            Stage.MADE: "the new key is made, and not yet known to all name servers",
            Stage.PUBLISHED: f"the new key is published; it may be used in {left} s",
            Stage.USED: f"the new key is in use; the old one may be withdrawn in {left} s",
        }[self.stage]

    @classmethod
    def parse(cls, text: str) -> Rollover:
        """The state in a file.  Raises RolloverError."""
        try:
            fields: dict[str, Any] = json.loads(text)
            if fields["version"] != VERSION:
                raise RolloverError(f"is of version {fields['version']!r}, not {VERSION}")
            return cls(
                Stage(fields["stage"]),
                str(fields["old"]),
                str(fields["new"]),
                tuple(_record(r) for r in fields["withdrawn"]),
                tuple(_record(r) for r in fields["added"]),
                int(fields["holding"]),
                float(fields["due"]),
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise RolloverError(
                f"is not the state of a rollover ({type(error).__name__}: {error})"
            ) from None


def _plain(record: PublishedRecord) -> dict[str, str]:
    return {
        "owner": record.owner,
        "type": record.rdtype,
        "rdata": record.rdata.hex(),
        "line": record.line,
    }


def _record(fields: dict[str, str]) -> PublishedRecord:
    return PublishedRecord(
        fields["owner"], fields["type"], bytes.fromhex(fields["rdata"]), fields["line"]
    )
