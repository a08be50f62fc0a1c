"""What can be wrong with a record.  Each class has a ``trigger``, the name it is counted under."""

# ruff: noqa: N818  (an error here is named for the fault that it is)

from __future__ import annotations

MAX_SHOWN = 64  # characters of a stranger's text that go into a message


class RecordError(ValueError):
    """A stranger's record can't be used; the text says why, for a log line."""

    trigger = "record_unreadable"


class MalformedRsaKey(RecordError):
    """The octets are not an RSA public key in the form of RFC 3110 section 2."""

    trigger = "rsa_key_malformed"


class UnsafeRsaKey(MalformedRsaKey):
    """An RSA key that can be read, and that nobody should believe: too small, even, exponent 1."""

    trigger = "rsa_key_unsafe"


class MalformedHostKey(RecordError):
    """A KEY record for IPsec (RFC 2535 section 3.1) that can't be read."""

    trigger = "key_record_malformed"


class MalformedDelegation(RecordError):
    """A TXT record with our attribute name that can't be read (RFC 4322 section 5.2)."""

    trigger = "txt_record_malformed"


class NearMissDelegation(MalformedDelegation):
    """A TXT record that its owner surely meant for us, in a form that the RFC does not have."""

    trigger = "txt_record_near_miss"


class MalformedIpsecKey(RecordError):
    """An IPSECKEY record (RFC 4025) with an RSA key, or none, that can't be read."""

    trigger = "ipseckey_record_malformed"


class MalformedSstKey(RecordError):
    """A TXT record with the attribute name of SST keys that can't be read."""

    trigger = "sst_key_malformed"


class UnsafeSstKey(MalformedSstKey):
    """A key that can be read, and with which everybody would have the same secret."""

    trigger = "sst_key_unsafe"


class UnknownSstAlgorithm(RecordError):
    """An SST key for an algorithm that we don't know: not for us, and no fault (SST-37)."""

    trigger = "sst_algorithm_unknown"


class MalformedName(RecordError):
    """The text is not a fully qualified domain name of a host."""

    trigger = "domain_name_malformed"


def shown(text: str) -> str:
    """A stranger's text, quoted, in ASCII and short enough for a log line."""
    cut = text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "..."
    return ascii(cut)
