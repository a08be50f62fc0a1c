"""What a gateway's operator puts into the DNS."""

from __future__ import annotations

from collections.abc import Sequence

from cryptography.hazmat.primitives.asymmetric import rsa

from dnsrecords.delegation import Delegation
from dnsrecords.ipseckey import IpsecKey
from dnsrecords.key import HostKey
from dnsrecords.published import PublishedRecord
from dnsrecords.reverse import reverse_name
from dnsrecords.sstkey import NAME_PREFIX, QUESTIONS, SstKey
from oegw.sst.interface import ALGORITHMS
from policy.flow import IPAddress


def records_of(
    key: rsa.RSAPublicKey,
    gateways: Sequence[IPAddress],
    fqdn: str | None,
    clients: Sequence[IPAddress],
    precedence: int,
    *,
    ipseckey: bool = False,
) -> list[PublishedRecord]:
    """KEY records of the gateway, and a TXT record at the reverse name of each client.

    The KEY stands at the reverse name of each address of ``gateways`` and at
    ``fqdn`` (draft sections 6.1 and 6.3).  A client's TXT names the gateway's
    addresses of the client's own family, or all if there is none (section 6.2),
    and its ``fqdn``.  With ``ipseckey`` there is a record of RFC 4025 beside each: of the same
    gateways for a client, and without a gateway for the gateway's own key.

    Raises RecordError for what the DNS or a peer would not take.
    """
    owners = [reverse_name(address) for address in gateways]
    if fqdn is not None:
        owners.append(fqdn)
    records = [PublishedRecord.of_key(owner, HostKey(key)) for owner in owners]
    if ipseckey:
        itself = IpsecKey.of(precedence, None, None, key)
        records += [PublishedRecord.of_ipseckey(owner, itself) for owner in owners]
    for client in clients:
        near = [address for address in gateways if address.version == client.version]
        named = [Delegation(precedence, address=a, key=key) for a in near or gateways]
        if fqdn is not None:
            named.append(Delegation(precedence, fqdn=fqdn, key=key))
        owner = reverse_name(client)
        records += [PublishedRecord.of_delegation(owner, delegation) for delegation in named]
        if ipseckey:
            same = [IpsecKey.of(precedence, each.address, each.fqdn, key) for each in named]
            records += [PublishedRecord.of_ipseckey(owner, each) for each in same]
    return records


def question_records_of(
    public_key: bytes, addresses: Sequence[IPAddress], names: Sequence[str], precedence: int
) -> list[PublishedRecord]:
    """TXT records of a host's key with which questions for its services are encrypted (MK-16).

    They stand at the reverse names of its addresses, each of which names itself, and with all of
    them at ``_sst.`` and each of its names.  Nobody encrypts ports with them.

    Raises RecordError for what the DNS or a client would not take.
    """
    owners: dict[str, list[IPAddress]] = {reverse_name(each): [each] for each in addresses}
    owners |= {NAME_PREFIX + name: list(addresses) for name in names}
    return [
        PublishedRecord.of_sst_key(owner, SstKey(precedence, address, QUESTIONS, public_key))
        for owner, named in owners.items()
        for address in named
    ]


def sst_records_of(
    public_key: bytes,
    algorithms: Sequence[str],
    gateways: Sequence[IPAddress],
    fqdn: str | None,
    clients: Sequence[IPAddress],
    precedence: int,
) -> list[PublishedRecord]:
    """TXT records of a key for port encryption, one for each algorithm (by its name, ALGORITHMS).

    They stand at the reverse name of each of the gateway's addresses, which names itself, and of
    each client, which names the gateway's addresses of its own family, or all if there is none; and
    at ``_sst.`` and ``fqdn``, with all of the gateway's addresses.

    Raises RecordError for what the DNS or a peer would not take.
    """
    owners: dict[str, list[IPAddress]] = {reverse_name(each): [each] for each in gateways}
    for client in clients:
        near = [address for address in gateways if address.version == client.version]
        owners.setdefault(reverse_name(client), near or list(gateways))
    if fqdn is not None:
        owners[NAME_PREFIX + fqdn] = list(gateways)
    return [
        PublishedRecord.of_sst_key(owner, SstKey(precedence, gateway, number, public_key))
        for owner, named in owners.items()
        for gateway in named
        for number in (ALGORITHMS[name] for name in algorithms)
    ]
