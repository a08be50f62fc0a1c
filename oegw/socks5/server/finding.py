"""From what a client names to addresses, and which of them it may use."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from oegw.socks5.addressids import Entry
from oegw.socks5.codes import ReplyCode
from oegw.socks5.eyeballs import ordered
from oegw.socks5.interface import TCP, Demand, Refused, Resolved, Scope
from oegw.socks5.rules import Asked
from oegw.socks5.server.common import Common
from oegw.socks5.server.failures import refusal
from oegw.socks5.wire import Address, AddressId, IPAddress, plain


@dataclass(frozen=True, slots=True)
class Client:
    """Who asks.  ``here``: our address of its TCP connection.  ``encrypted``: its listener or its
    user demands that of its flows."""

    address: IPAddress
    here: IPAddress
    scope: Scope
    user: str = ""
    encrypted: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """``destination``: an address, or a name as it was asked for.  ``addresses``: where that leads,
    in the order in which they are tried; at least one.  ``port``: where the name says it itself.
    ``resolved``: of a name, for ``transport``.  ``entry``: of the ID that was used."""

    destination: IPAddress | str
    addresses: tuple[IPAddress, ...]
    port: int | None = None
    resolved: Resolved | None = None
    entry: Entry | None = None
    transport: str = TCP

    @property
    def name(self) -> str | None:
        return self.destination if isinstance(self.destination, str) else None


def destination_of(address: IPAddress | str) -> IPAddress | str:
    """Addresses have one form: rules for IPv4 hold for IPv4 in IPv6, and in a name's clothes."""
    if isinstance(address, str):
        try:
            return plain(ip_address(address.strip("[]")))
        except ValueError:
            return address
    return plain(address)


async def find(
    common: Common, client: Client, address: Address, command: str, transport: str = TCP
) -> Found:
    """Raises Refused."""
    entry = None
    if isinstance(address, AddressId):
        entry = common.ids.look_up(client.scope, address, common.now())
        destination = entry.destination
    else:
        destination = destination_of(address)
    return await lead(common, client, destination, command, transport, entry)


async def lead(
    common: Common,
    client: Client,
    destination: IPAddress | str,
    command: str,
    transport: str,
    entry: Entry | None,
) -> Found:
    """Where ``destination`` leads; ``entry``: of the ID that stands for it.  Raises Refused.

    Nobody is asked for a client that may do nothing with the answer: a question tells something,
    too.
    """
    if not isinstance(destination, str):
        return Found(destination, (destination,), entry=entry)
    resolved = entry.resolved(common.now(), transport) if entry is not None else None
    if resolved is None:
        judge_unknown(common, client, command)
        try:
            async with common.asking(client.address):
                resolved = await common.resolver.resolve(destination, transport)
        except OSError as error:
            raise refusal(error, ReplyCode.FAILURE) from error
        if entry is not None:
            entry.learn(resolved, common.now(), transport)
    addresses = ordered(map(plain, resolved.addresses), common.settings.prefer)
    if not addresses:
        raise Refused(ReplyCode.HOST_UNREACHABLE, "no_address")
    return Found(destination, addresses, resolved.port, resolved, entry, transport)


@dataclass(frozen=True, slots=True)
class Way:
    """An address that the client may use, and what a flow to it must fulfil."""

    address: IPAddress
    demand: Demand


def judge(
    common: Common, client: Client, found: Found, command: str, port: int | None
) -> list[Way]:
    """Which of the addresses the client may use (SK-23); at least one.  Raises Refused."""
    ways, reason = [], "none"
    for address in found.addresses:
        asked = Asked(
            command, client.address, client.user, address, port, found.name, client.encrypted
        )
        try:
            verdict = common.rules.decide(asked)
        except OSError as error:  # whose address it is can't be asked: no descriptor is left
            raise refusal(error) from error
        if verdict.allowed:
            ways.append(Way(address, verdict.demand))
        else:
            reason = verdict.reason
    if not ways:
        raise Refused(ReplyCode.NOT_ALLOWED, "rule", reason)
    return ways


async def admitted(
    common: Common, ways: Sequence[Way], port: int, transport: str, most: int
) -> list[Way]:
    """The first ``most`` of ``ways`` that the dialler lets us go; at least one.  Raises Refused."""
    found, refusals = [], []
    for way in ways:
        try:
            await common.dialler.allow(way.address, port, transport, way.demand)
        except Refused as refused:
            refusals.append(refused)
        except OSError as error:
            refusals.append(refusal(error))
        else:
            found.append(way)
            if len(found) == most:
                break
    if not found:
        raise refusals[0]
    return found


def judge_unknown(common: Common, client: Client, command: str) -> Demand:
    """The same where the peer is not known yet.  Raises Refused."""
    asked = Asked(command, client.address, client.user, encrypted=client.encrypted)
    verdict = common.rules.decide(asked)
    if not verdict.allowed:
        raise Refused(ReplyCode.NOT_ALLOWED, "rule", verdict.reason)
    return verdict.demand


def versions_of(addresses: Iterable[IPAddress]) -> list[int]:
    return list(dict.fromkeys(address.version for address in addresses))
