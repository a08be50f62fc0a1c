"""The names that clients of the SOCKS server ask for: hosts(5), the DNS, Moniker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address
from math import inf
from pathlib import Path

from dnsrecords.outcome import (
    Malformed,
    NameOutcome,
    NamesFound,
    PeerFound,
    PeerOutcome,
    Unanswered,
)
from dnsrecords.peer import PeerLookup
from dnsrecords.pointer import PointerLookup
from dnsrecords.resolver import Resolver
from oegw.hostsfile import HostsFile
from oegw.moniker.library.errors import (
    HostUnreachable,
    NotEncrypted,
    ServiceDenied,
    ServiceUnknown,
    TooSlow,
)
from oegw.moniker.library.finding import Place
from oegw.moniker.library.loop import resolve
from oegw.moniker.names import InvalidName, MonikerError
from oegw.moniker.uri import MonikerUri
from oegw.moniker.wire import DEFAULT_PORT
from oegw.socks5.codes import ReplyCode
from oegw.socks5.server.routes import is_own
from oegw.socks5.terms import Refused, Resolved
from oegw.socksnames import HostName, UnreadableName, is_localhost, wanted
from policy.flow import IPAddress

# Our choices.
HOSTS_SECONDS = 10.0  # that an entry of hosts(5) holds: the file may change
MONIKER_SECONDS = 10.0  # for all of a question
MONIKER_AT_ONCE = 64  # questions: each has a socket
# A far daemon answers each address so often only, and ours is that of all clients; but a service
# that has been started again has another port.
MONIKER_KEPT = 5.0  # seconds, at most
MONIKER_ANSWERS = 1024  # that are kept

_LOOPBACK = (IPv6Address("::1"), IPv4Address("127.0.0.1"))

_CODES: tuple[tuple[type[MonikerError], ReplyCode, str], ...] = (
    (ServiceDenied, ReplyCode.NOT_ALLOWED, "moniker_denied"),
    (NotEncrypted, ReplyCode.NOT_ALLOWED, "moniker_not_encrypted"),
    (ServiceUnknown, ReplyCode.HOST_UNREACHABLE, "moniker_unknown"),
    (HostUnreachable, ReplyCode.HOST_UNREACHABLE, "moniker_unreachable"),
    (TooSlow, ReplyCode.HOST_UNREACHABLE, "moniker_too_slow"),
    (InvalidName, ReplyCode.INVALID_ADDRESS, "name_unreadable"),
    (MonikerError, ReplyCode.FAILURE, "moniker_failed"),
)


@dataclass(slots=True)
class _Question:
    """To a Moniker daemon.  ``waiting``: how many want the answer."""

    task: asyncio.Task[Resolved]
    waiting: int = 0


class SocksResolver:
    """A `oegw.socks5.interface.Resolver`.

    ``confirm``: a reverse name counts only if it leads back to the address.  ``daemon``: the socket
    of this host's Moniker daemon, which knows what may be asked for.  ``ours``: addresses that are
    not asked for services.
    """

    def __init__(
        self,
        dns: Resolver,
        *,
        confirm: bool,
        daemon: Path,
        hosts: HostsFile | None = None,
        question_port: int = DEFAULT_PORT,
        ours: Callable[[IPAddress], bool] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._dns = dns
        self._confirm = confirm
        self._daemon = daemon
        self._hosts = hosts or HostsFile()
        self._question_port = question_port
        self._ours = ours or is_ours
        self._clock = clock
        self._moniker = asyncio.Semaphore(MONIKER_AT_ONCE)
        self._kept: dict[tuple[MonikerUri, str], tuple[float, Resolved]] = {}  # until when
        self._asking: dict[tuple[MonikerUri, str], _Question] = {}

    async def resolve(self, name: str, transport: str) -> Resolved:
        try:
            what = wanted(name)
        except UnreadableName as error:
            text = f"{name!r}: {error}"
            raise Refused(ReplyCode.INVALID_ADDRESS, "name_unreadable", text) from None
        match what:
            case HostName(host):
                addresses, seconds = await self._addresses_of(host)
                return Resolved(addresses, seconds)
            case MonikerUri():
                return await self._by_moniker(what, transport)
            case address:
                return Resolved((address,), inf)

    async def name_of(self, address: IPAddress) -> str:
        if (name := self._hosts.name_of(address)) is not None:
            return name
        outcome: NameOutcome = await self._dns.run(PointerLookup(address))
        if not isinstance(outcome, NamesFound):
            raise _missing(outcome, f"the name of {address}", "no_reverse_name")
        if not self._confirm:
            return outcome.names[0]
        for name in outcome.names:
            with suppress(Refused):
                if address in (await self._addresses_of(name))[0]:
                    return name
        text = f"no name of {address} leads back to it"
        raise Refused(ReplyCode.HOST_UNREACHABLE, "reverse_name_unconfirmed", text)

    async def _addresses_of(self, name: str) -> tuple[tuple[IPAddress, ...], float]:
        """And for how many seconds.  Raises Refused."""
        if found := self._hosts.addresses_of(name):
            return found, HOSTS_SECONDS
        if is_localhost(name):
            return _LOOPBACK, inf
        outcome: PeerOutcome = await self._dns.run(PeerLookup(name, None))
        if not isinstance(outcome, PeerFound):
            raise _missing(outcome, name, "no_such_name")
        return outcome.addresses, outcome.ttl

    async def _by_moniker(self, uri: MonikerUri, transport: str) -> Resolved:
        if uri.port not in (None, self._question_port):
            # Else whoever may use us could have us say something to any port of any host.
            text = f"{uri}: only the usual port of Moniker is asked"
            raise Refused(ReplyCode.NOT_ALLOWED, "moniker_port", text)
        key = replace(uri, rest=""), transport
        until, found = self._kept.get(key, (0.0, None))
        if found is not None and self._clock() < until:
            return found
        question = self._asking.get(key)
        if question is None:  # who asks the same meanwhile waits for the same answer
            question = _Question(asyncio.create_task(self._ask(uri, transport)))
            self._asking[key] = question
            question.task.add_done_callback(lambda done: self._answered(key, done))
        question.waiting += 1
        try:
            return await asyncio.shield(question.task)
        finally:
            question.waiting -= 1
            if not question.waiting and not question.task.done():  # all who wanted it have gone
                question.task.cancel()
                del self._asking[key]

    def _answered(self, key: tuple[MonikerUri, str], task: asyncio.Task[Resolved]) -> None:
        if (question := self._asking.get(key)) is None or question.task is not task:
            return  # nobody wanted it any more
        del self._asking[key]
        self._kept.pop(key, None)
        if task.cancelled() or task.exception() is not None:
            return
        found = task.result()
        self._kept[key] = self._clock() + min(MONIKER_KEPT, found.seconds), found
        while len(self._kept) > MONIKER_ANSWERS:
            del self._kept[next(iter(self._kept))]

    async def _ask(self, uri: MonikerUri, transport: str) -> Resolved:
        try:
            async with self._moniker:
                found = await resolve(
                    uri.host, uri.name, transport=transport, timeout=MONIKER_SECONDS,
                    question_port=self._question_port, daemon=self._daemon, places=self._places,
                )  # fmt: skip
        except MonikerError as error:
            code, reason = next((c, r) for kind, c, r in _CODES if isinstance(error, kind))
            raise Refused(code, reason, str(error)) from None
        if found.port is None:
            text = f"{uri}: its host speaks TCPMUX only"
            raise Refused(ReplyCode.HOST_UNREACHABLE, "moniker_tcpmux", text)
        return Resolved((found.address,), float(found.ttl), found.port)

    async def _places(self, host: str) -> list[Place]:
        """Of the daemon that is asked: none of this box, for which we would be one of its own.

        Raises HostUnreachable.
        """
        try:
            match wanted(host):
                case HostName(name):
                    addresses, _ = await self._addresses_of(name)
                case MonikerUri():
                    raise HostUnreachable(f"{host}: a service has no services")
                case address:
                    addresses = (address,)
        except (UnreadableName, Refused) as error:
            raise HostUnreachable(f"{host}: {error}") from None
        places = [Place(each) for each in addresses if not self._ours(each)]
        if not places:
            raise HostUnreachable(f"{host}: is this host, or none")
        return places


def is_ours(address: IPAddress) -> bool:
    """Whether it is an address of this box, or of no single host."""
    if (
        address.is_loopback or address.is_link_local or address.is_multicast
        or address.is_unspecified
    ):  # fmt: skip
        return True
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    if mapped is not None:
        return is_ours(mapped)
    try:
        return is_own(address)
    except OSError:  # no descriptor: nobody is asked then
        return True


def _missing(outcome: PeerOutcome | NameOutcome, what: str, reason: str) -> Refused:
    match outcome:
        case Unanswered():
            reason = "dns_unanswered"
        case Malformed():  # or bogus, by DNSSEC
            reason = "dns_unusable"
    detail = getattr(outcome, "detail", "")
    return Refused(ReplyCode.HOST_UNREACHABLE, reason, f"{what}: {detail}")
