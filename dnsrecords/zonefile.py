"""Lines for a zone file: what the owner of an address or a gateway publishes.

The numbers of a KEY record are written in decimal.  The draft writes the flags
as 0x4200, and so does RFC 4322; of the programs tried, BIND 9.18 loads that
form, but NSD 4.6 ("integer value is expected") and dnspython ("Invalid flags")
do not.  16896 is the same number, and all three load it.
"""

from __future__ import annotations

from dnsrecords import rsakey
from dnsrecords.delegation import Delegation
from dnsrecords.ipseckey import IpsecKey
from dnsrecords.key import ALGORITHM_RSA, PROTOCOL_IPSEC, HostKey
from dnsrecords.name import normal_fqdn
from dnsrecords.sstkey import SstKey


def txt_line(owner: str, delegation: Delegation) -> str:
    """The TXT record of ``delegation`` at ``owner``, without a line end."""
    return f"{_absolute(owner)} IN TXT {delegation.presentation()}"


def key_line(owner: str, key: HostKey) -> str:
    """The KEY record of ``key`` at ``owner``, without a line end."""
    digits = rsakey.format_base64(key.key)
    return f"{_absolute(owner)} IN KEY {key.flags} {PROTOCOL_IPSEC} {ALGORITHM_RSA} {digits}"


def ipseckey_line(owner: str, record: IpsecKey) -> str:
    """The IPSECKEY record at ``owner``, without a line end."""
    return f"{_absolute(owner)} IN IPSECKEY {record.presentation()}"


def sst_key_line(owner: str, key: SstKey) -> str:
    """The TXT record of an SST key at ``owner``, without a line end."""
    return f"{_absolute(owner)} IN TXT {key.presentation()}"


def _absolute(owner: str) -> str:
    """``owner`` with its last dot.

    Raises MalformedName: without the check, a line end in a name would be a
    second record.
    """
    return normal_fqdn(owner) + "."
