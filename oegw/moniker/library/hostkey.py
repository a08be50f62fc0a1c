"""The key of a host to which questions are encrypted, from the DNS (MK-16).

It is the one for port encryption (X-SST-Key), or one in such a record that is for questions only:
at the reverse name of the address, then at ``_sst.`` and the host's name.  Only a record whose
gateway is the asked address itself counts: a gateway in front of a host can't read what is meant
for the host.  Imported when it is needed: the DNS and what
checks a key take a while.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import ip_address

from dnsrecords.errors import MalformedName
from dnsrecords.outcome import Malformed, NothingFound, SstKeysFound
from dnsrecords.resolver import Resolver, system_resolvers
from dnsrecords.sstlookup import SstKeyLookup, sst_name
from oegw.moniker.interface import IPAddress
from oegw.moniker.library.errors import NotEncrypted

# Our choices.
MAX_KEYS = 256  # that are remembered, or their absence
LONGEST = 3600.0  # seconds for which one is
SHORTEST = 5.0  # also where the DNS says none, as a zone without SOA does
LONGEST_ABSENT = 300.0
UNANSWERED = 30.0


@dataclass(frozen=True, slots=True)
class _Known:
    key: bytes | None
    until: float


class HostKeys:
    """``servers``: name servers; none: those of resolv.conf, read each time."""

    def __init__(self, servers: Sequence[IPAddress] = (), port: int = 53) -> None:
        self._servers = tuple(servers)
        self._port = port
        self._known: dict[tuple[str, IPAddress], _Known] = {}

    def find(self, host: str, address: IPAddress, seconds: float) -> bytes | None:
        """The public key, or None.  Raises NotEncrypted for a record that can't be read."""
        if (known := self._remembered(host, address)) is not None:
            return known.key
        # In a thread of its own: the caller's may have a loop, running or set aside for later.
        with ThreadPoolExecutor(1) as other:
            return other.submit(asyncio.run, self.look_up(host, address, seconds)).result()

    async def look_up(self, host: str, address: IPAddress, seconds: float) -> bytes | None:
        """The same, for asyncio."""
        if (known := self._remembered(host, address)) is not None:
            return known.key
        key: bytes | None = None
        lifetime = UNANSWERED
        resolver = Resolver(self._servers or system_resolvers(), port=self._port)
        try:
            async with asyncio.timeout(seconds):
                key, lifetime = await _looked_up(resolver, host, address)
        except TimeoutError:
            pass
        finally:
            resolver.close()
        while len(self._known) >= MAX_KEYS:
            self._known.pop(next(iter(tuple(self._known))), None)
        self._known[host, address] = _Known(key, time.monotonic() + max(lifetime, SHORTEST))
        return key

    def forget(self) -> None:
        self._known.clear()

    def _remembered(self, host: str, address: IPAddress) -> _Known | None:
        known = self._known.get((host, address))
        return known if known is not None and time.monotonic() < known.until else None


async def _looked_up(
    resolver: Resolver, host: str, address: IPAddress
) -> tuple[bytes | None, float]:
    """The key and for how long it is one.  The owner of an address decides about it, so its
    reverse zone comes first."""
    lifetime = LONGEST_ABSENT
    for owner in (address, *_name_of(host)):
        outcome = await resolver.run(SstKeyLookup(owner, questions=True), ours=True)
        match outcome:
            case SstKeysFound(keys, ttl):
                for each in keys:  # the preferred ones come first
                    if each.gateway == address:
                        return each.public_key, min(ttl, LONGEST)
                lifetime = min(lifetime, ttl)
            case NothingFound(ttl, _):
                lifetime = min(lifetime, ttl)
            case Malformed(detail, _):
                raise NotEncrypted(f"{host} ({address}): its key can't be read: {detail}")
            case _:
                lifetime = UNANSWERED
    return None, lifetime


def _name_of(host: str) -> tuple[str, ...]:
    """The host's name, if it is one of the DNS and no address."""
    try:
        ip_address(host.partition("%")[0])
    except ValueError:
        try:
            sst_name(host)
        except MalformedName:
            return ()
        return (host,)
    return ()
