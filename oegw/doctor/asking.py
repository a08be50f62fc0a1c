"""Asks: the name servers about ourselves, and the gateway that runs about itself."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Coroutine
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

from dnsrecords.budget import Budget
from dnsrecords.lookup import GatewayLookup, KeyLookup
from dnsrecords.outcome import GatewayOutcome, KeyOutcome
from dnsrecords.question import Question, Status
from dnsrecords.reading import KEY_RECORD_OF, owner_of
from dnsrecords.resolver import Resolver
from dnsrecords.trust import Trust
from ike.events import Identity
from oegw.control import NoDaemonError, NotPermittedError, request
from oegw.doctor.box import Daemon, Process
from oegw.doctor.fact import Unexamined
from oegw.doctor.names import Names, Server
from oegw.environment import UnsuitableBox
from oegw.intercept.interface import Marks
from oegw.nat import unserved
from oegw.resolvers import in_use, trusted
from oegw.settings import Settings
from policy.flow import IPAddress

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

# Our choices.
_SECONDS = 1.0  # for the first try
_TRIES = 2
_DEADLINE = 3.0  # for all of one question
_ANSWER = 5.0  # of a gateway
SIGNED = "."  # the root is signed (RFC 9718): who validates says so of it
MOST_NEIGHBOURS = 16  # hosts of our links that are asked about


def names(
    settings: Settings, addresses: tuple[IPAddress, ...], neighbours: Collection[IPAddress]
) -> Names:
    """What the DNS says.  Raises Unexamined where it is not known who is asked."""
    try:
        servers = in_use(settings.dns)
    except UnsuitableBox as error:
        raise Unexamined(str(error)) from None
    return asyncio.run(_ask(settings, servers, addresses, neighbours))


async def _ask(
    settings: Settings,
    servers: tuple[IPAddress, ...],
    addresses: tuple[IPAddress, ...],
    neighbours: Collection[IPAddress],
) -> Names:
    dns = settings.dns
    trusts = trusted(servers, dns)

    def resolver(*these: IPAddress) -> Resolver:
        # As the gateway asks: its rules let what has its mark pass.
        mark = Marks(settings.intercept.mark_mask).own if os.geteuid() == 0 else None
        return Resolver(
            these, trusted=[each for each in these if each in trusts], timeout=_SECONDS,
            tries=_TRIES, deadline=_DEADLINE, mark=mark, budget=Budget(per_second=1000),
        )  # fmt: skip

    def may_ask(address: IPAddress) -> bool:
        return not unserved(ip_network(address), dns.local_reverse)

    records = tuple(kind.upper() for kind in dns.records)
    ourselves: list[Identity] = []
    if settings.gateway.identity is None:
        ourselves += [address for address in addresses if may_ask(address)]
    ourselves += [
        name for name in (settings.gateway.identity, settings.gateway.fqdn) if isinstance(name, str)
    ]
    published = frozenset(filter(may_ask, settings.publish.clients))
    others = [a for a in neighbours if may_ask(a) and a not in published][:MOST_NEIGHBOURS]

    async def server(address: IPAddress) -> Server:
        asking = resolver(address)
        try:
            owner = owner_of(ourselves[0] if ourselves else addresses[0])
            own = Question(owner, KEY_RECORD_OF[records[0]])
            answers = [await asking.ask(own, ours=True)]
            if address in trusts and answers[0].trust is not Trust.SECURE:
                answers.append(await asking.ask(Question(SIGNED, "TXT"), ours=True))
        finally:
            asking.close()
        bogus = any(each.trust is Trust.BOGUS for each in answers)
        return Server(
            address,
            bogus or any(each.status is not Status.UNANSWERED for each in answers),
            address in trusts,
            bogus or answers[-1].trust is Trust.SECURE if address in trusts else None,
            answers[0].detail,
        )

    asking = resolver(*servers)
    try:
        keys: list[Coroutine[Any, Any, KeyOutcome]] = [
            asking.run(KeyLookup(name, records), ours=True) for name in ourselves
        ]
        clients: list[Coroutine[Any, Any, GatewayOutcome]] = [
            asking.run(
                GatewayLookup(
                    client, random.SystemRandom().shuffle, with_keys=True,
                    may_ask=may_ask, records=records,
                ),
                ours=True,
            )
            for client in (*published, *others)
        ]  # fmt: skip
        seen, found, delegations = await asyncio.gather(
            asyncio.gather(*map(server, servers)),
            asyncio.gather(*keys),
            asyncio.gather(*clients),
        )
    finally:
        asking.close()
    return Names(
        tuple(seen),
        tuple(zip(ourselves, found, strict=True)),
        tuple(zip((*published, *others), delegations, strict=True)),
        published,
    )


def daemon(socket: Path, processes: dict[int, Process]) -> Daemon:
    """The gateway of this configuration, if one runs.  Raises Unexamined."""
    status: dict[str, object] = {}
    try:
        for line in request(socket, {"command": "status"}, _ANSWER):
            status |= line
    except NotPermittedError as error:
        raise Unexamined(str(error)) from None
    except NoDaemonError as error:
        status, reason = {}, str(error)
        if "no oegw is running" in reason:
            return Daemon(None, reason)
    else:
        reason = str(status.get("error", ""))
    said = status.get("pid")
    running = {n: each for n, each in processes.items() if each.ours and "run" in each.words}
    first = [each for each in running.values() if each.parent not in running]
    number = said if isinstance(said, int) else first[0].number if len(first) == 1 else 0
    unit = processes[number].unit if number in processes else ""
    if reason:
        complains = "error" in status
        return Daemon(None, reason, not complains, complains, unit, number)
    return Daemon(status, unit=unit, number=number)
