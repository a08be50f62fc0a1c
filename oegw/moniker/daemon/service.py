"""The daemon as a whole: what it is made of, its start, its end, and new rules in between."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, TypeVar

from oegw.moniker.answering import Answering
from oegw.moniker.cookies import SECRET_OCTETS, Cookies
from oegw.moniker.daemon.arrival import Tunnel
from oegw.moniker.daemon.binding import bind
from oegw.moniker.daemon.datagramdoor import DatagramDoor
from oegw.moniker.daemon.handover import HandOvers
from oegw.moniker.daemon.local import LocalDoor
from oegw.moniker.daemon.localdesk import LocalDesk
from oegw.moniker.daemon.ports import Ports
from oegw.moniker.daemon.questiondesk import QuestionDesk
from oegw.moniker.daemon.streamdoor import StreamDoor
from oegw.moniker.firewall.firewalls import Firewalls
from oegw.moniker.firewall.handshake import is_hello
from oegw.moniker.interface import IPAddress, Lease
from oegw.moniker.names import MonikerError
from oegw.moniker.registry import Limits, Registry
from oegw.moniker.settings import MonikerSettings, restart_notes
from oegw.moniker.steps import AskHost, OpenPort, Reply, Source
from oegw.sst.keys import read_private
from oegw.sst.statickey import StaticKey
from oegw.trace import Trace

if TYPE_CHECKING:
    from oegw.moniker.discovery.export import Export

# Our choices: octets of the status, which has to fit into a line of `localwire`.
SHOWN_LEASES = 6000
SHOWN_COUNTERS = 6000
SHOWN_WORDS = 1000

KEY_SECONDS = 5.0  # for the look-up of the gateway's key
LOOK = 1.0  # seconds between two looks whether services have their sockets still

_Row = TypeVar("_Row")


class Daemon:
    """Everything of one daemon, in one event loop.

    ``settings.port`` 0 is a free port, the same for TCP and UDP, which `port` tells after
    `start` (for tests).  ``settings.addresses`` empty: all of this host's, IPv4 and IPv6.
    """

    def __init__(
        self,
        settings: MonikerSettings,
        trace: Trace,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Raises KeyFileError."""
        self.settings = settings
        self.started = time.time()
        self._trace = trace
        self._clock = clock
        self._key = key = _key(settings)
        self.registry = Registry(Limits(services=settings.services))
        self._firewalls = Firewalls(
            settings, key=key, trace=trace, answering=self._answer_for_gateway,
            find_key=_key_in_dns, clock=clock,
        )  # fmt: skip
        opener = self._firewalls.opener
        self._ports = Ports(opener)
        self._answering = Answering(
            settings, self.registry, Cookies(secrets.token_bytes(SECRET_OCTETS)), key=key,
            random=secrets.token_bytes, choose=secrets.randbelow,
            leases=settings.firewall.deny or settings.gateway is not None,
        )  # fmt: skip
        self._local = LocalDesk(
            settings, self.registry, self._ports, trace, clock=clock, status=self.status
        )
        self._desk = QuestionDesk(
            self._answering, self._local.given_back, self._ports, opener,
            self._firewalls.directory, trace, clock=clock, lease=settings.lease,
        )  # fmt: skip
        self._local_door = LocalDoor(settings.socket, self._local.answer, self._local.left, trace)
        tunnel = Tunnel(settings.firewall.tunnel, clock)
        lease_desk = self._firewalls.desk
        self._streams = StreamDoor(
            self._desk, trace, HandOvers(self._local).give, is_hello=is_hello,
            take_host=None if lease_desk is None else lease_desk.serve,
            tunnel=tunnel,
        )  # fmt: skip
        self._datagrams = DatagramDoor(self._desk, trace, tunnel)
        self._export = _export(settings, self.registry, trace)
        self._undo = AsyncExitStack()
        self.port = 0

    async def start(self) -> None:
        """Raises OSError, AddressTaken, MonikerError; then nothing is left behind."""
        async with AsyncExitStack() as undo:
            bound = bind(self.settings.addresses, self.settings.port)
            undo.callback(bound.close)
            await self._firewalls.start()
            undo.push_async_callback(self._firewalls.close)
            undo.push_async_callback(self._ports.close)
            await self._local_door.start()  # before questions: who registers is not missed
            undo.push_async_callback(self._local_door.close)
            if self._export is not None:
                await self._export.start()
                undo.push_async_callback(self._export.close)
            self._streams.open(bound.streams)
            undo.push_async_callback(self._streams.close)
            self._datagrams.open(bound.datagrams)
            undo.push_async_callback(self._datagrams.close)
            looking = asyncio.create_task(self._look_for_given_back())
            undo.callback(looking.cancel)
            self.port = bound.port
            self._undo = undo.pop_all()
        self._trace.event("moniker", "started", pid=os.getpid(), port=self.port)

    async def _look_for_given_back(self) -> None:
        while True:
            await asyncio.sleep(LOOK)
            self._local.look_for_given_back()

    async def close(self) -> None:
        """End all, the doors first.  Never raises."""
        self._trace.event("moniker", "stopping")
        await self._undo.aclose()

    async def reload(self, settings: MonikerSettings) -> list[str]:
        """Take new rules, grants, hosts and limits; notes say what takes effect at a restart.

        Raises KeyFileError, MonikerError; then everything is as it was.
        """
        key = _key(settings)
        notes = await self._firewalls.reload(settings, key)
        self._answering.reload(settings, key)
        self._key = key
        self._local.settings = settings
        self._desk.lease = settings.lease
        notes += restart_notes(self.settings, settings)
        self._trace.event("moniker", "reloaded", rules=len(settings.rules), notes=notes)
        return notes

    def status(self) -> Mapping[str, Any]:
        """The object that the request ``status`` is answered with; it fits into one line."""
        own = self._firewalls.own
        leases = [] if own is None else own.leases()
        desk = self._firewalls.desk
        counters = Counter({f"question.{k}": v for k, v in self._desk.counters.items()})
        counters.update(getattr(self._trace, "counters", {}))
        counters.update({f"firewall.{k}": v for k, v in (own.packets if own else {}).items()})
        rows = _fitting([_lease_row(each) for each in leases], SHOWN_LEASES)
        return {
            "pid": os.getpid(),
            "started": self.started,
            "port": self.port,
            "addresses": _fitting([str(each) for each in self.settings.addresses], SHOWN_WORDS)
            or ["all addresses"],
            "socket": str(self.settings.socket),
            "services": len(self.registry),
            "applications": len(self._local_door),
            "connections": len(self._streams),
            "waiting_datagrams": len(self._datagrams),
            "key": None if self._key is None else self._key.key_id.hex(),
            "firewall": "default deny" if self.settings.firewall.deny else "none",
            "gateway": self._gateway_in_words(),
            "hosts": [] if desk is None else _fitting(desk.connected(), SHOWN_WORDS),
            "leases": rows,
            "more_leases": len(leases) - len(rows),
            "export": self._export and self._export.snapshot(),
            "counters": dict(_fitting(sorted(counters.items()), SHOWN_COUNTERS)),
        }

    def _gateway_in_words(self) -> str | None:
        gateway, link = self.settings.gateway, self._firewalls.link
        if gateway is None or link is None:
            return None
        there = "connected" if link.connected else "there is no connection"
        return f"asks {gateway.address} for ports: {there}"

    async def _answer_for_gateway(self, line: str, source: Source) -> str:
        """Our answer to a question that the gateway in front passes on (MK-14)."""
        step = self._desk.asked(line.encode(), source, busy=False)
        if isinstance(step, OpenPort | AskHost):
            step = await self._desk.reply(step)
        return step.octets.decode().rstrip("\r\n") if isinstance(step, Reply) else ""


def _export(settings: MonikerSettings, registry: Registry, trace: Trace) -> Export | None:
    """What tells services by DNS-SD; None where nothing is to be told."""
    if not (settings.export.listen or settings.export.multicast):
        return None
    from oegw.moniker.discovery.export import Export  # the DNS takes a while, and room, to import

    return Export(settings, registry.entries, trace) if Export.wanted(settings) else None


def _fitting(rows: list[_Row], octets: int) -> list[_Row]:
    """The first of ``rows``, as many as ``octets`` of JSON have room for."""
    for number, row in enumerate(rows):
        octets -= len(json.dumps(row)) + 2
        if octets < 0:
            return rows[:number]
    return rows


def _lease_row(lease: Lease) -> dict[str, Any]:
    return {
        "client": str(lease.client),
        "host": str(lease.host),
        "transport": lease.transport,
        "port": lease.port,
        "service": lease.service,
        "namespace": lease.namespace,
        "seconds": lease.seconds,
    }


async def _key_in_dns(address: IPAddress) -> bytes | None:
    """The public key of the gateway in front, where the configuration does not say it; None if
    there is none to use."""
    from oegw.moniker.library.hostkey import HostKeys  # the DNS takes a while to import

    try:
        return await HostKeys().look_up(str(address), address, KEY_SECONDS)
    except (MonikerError, OSError):
        return None


def _key(settings: MonikerSettings) -> StaticKey | None:
    """Raises KeyFileError."""
    return None if settings.private_key is None else read_private(settings.private_key)
