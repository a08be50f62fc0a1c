"""The table in the kernel: commands of many callers in few transactions, on a thread of its own.

A transaction takes the kernel and libnftables about a millisecond, whatever is in it; a gateway
that answers hundreds of questions a second writes what came meanwhile in one.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from oegw.intercept.interface import InterceptError
from oegw.intercept.nft import Nft
from oegw.moniker.firewall.book import Guard, Hole
from oegw.moniker.firewall.ruleset import TABLE, FirewallError

# Our choices.
MAX_WAITING = 4096
MAX_AT_ONCE = 256  # commands of so many callers in one transaction

_NUMBERS = {"tcp": 6, "udp": 17, "dccp": 33, "sctp": 132, "udplite": 136}


@dataclass(frozen=True, slots=True)
class Found:
    """What a table of ours from before has: holes with name and seconds left; guarded ports."""

    leases: tuple[tuple[Hole, str, float], ...] = ()
    guarded: tuple[Guard, ...] = ()


class Table:
    """The one that writes it.  The network namespace is that of the thread that calls `open`."""

    def __init__(self) -> None:
        self._thread: ThreadPoolExecutor | None = None
        self._nft: Nft | None = None
        self._waiting: list[tuple[str, asyncio.Future[None]]] = []
        self._writer: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Raises FirewallError if there is no libnftables."""
        self._thread = ThreadPoolExecutor(1, "moniker-nft")
        try:
            self._nft = await self._on_thread(Nft)
        except InterceptError as error:
            self._thread.shutdown(wait=False)
            self._thread = None
            raise FirewallError(str(error)) from None

    async def close(self) -> None:
        """What was asked for is still written."""
        if self._writer is not None:
            await self._writer
        if self._thread is not None and self._nft is not None:
            await self._on_thread(self._nft.close)
            self._thread.shutdown(wait=False)
        self._thread = self._nft = None

    async def is_there(self) -> bool:
        """Whether the kernel has a table of our name."""
        try:
            return bool(json.loads(await self._json(f"list counters table inet {TABLE}")))
        except (FirewallError, ValueError):
            return False

    async def run(self, command: str, *, dry: bool = False) -> str:
        """One transaction now.  Raises FirewallError."""
        nft = self._nft
        if nft is None:
            raise FirewallError("the firewall is closed")
        try:
            return str(await self._on_thread(lambda: nft.run(command, dry=dry)))
        except InterceptError as error:
            raise FirewallError(str(error)) from None

    async def write(self, command: str) -> None:
        """Commands, perhaps with those of others in one transaction.

        Raises FirewallError, if these don't work.
        """
        if len(self._waiting) >= MAX_WAITING:
            raise FirewallError("too many changes are waiting for the kernel")
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((command, done))
        if self._writer is None:
            self._writer = asyncio.create_task(self._write())
        await done

    async def found(self) -> Found:
        """What is there of a process before us; nothing if that can't be read."""
        leases: list[tuple[Hole, str, float]] = []
        for version in (4, 6):
            for element in await self._elements(f"lease{version}"):
                if (lease := _lease(element)) is not None:
                    leases.append(lease)
        guarded: list[Guard] = []
        for version in (4, 6):
            for name in (f"own{version}", f"own_at{version}"):
                for element in await self._elements(name):
                    if (guard := _guarded(version, element)) is not None:
                        guarded.append(guard)
        return Found(tuple(leases), tuple(guarded))

    async def counters(self) -> dict[str, int]:
        """Packets by counter.  Raises FirewallError."""
        listing = json.loads(await self._json(f"list counters table inet {TABLE}"))
        return {
            entry["counter"]["name"]: entry["counter"]["packets"]
            for entry in listing["nftables"]
            if "counter" in entry
        }

    async def _elements(self, name: str) -> Sequence[Any]:
        try:
            listing = json.loads(await self._json(f"list set inet {TABLE} {name}"))
        except (FirewallError, ValueError):
            return ()
        found: list[Any] = []
        for entry in listing.get("nftables", ()):
            found += entry.get("set", {}).get("elem", ())
        return found

    async def _json(self, command: str) -> str:
        nft = self._nft
        if nft is None:
            raise FirewallError("the firewall is closed")
        try:
            return str(await self._on_thread(lambda: nft.listing(command)))
        except InterceptError as error:
            raise FirewallError(str(error)) from None

    async def _write(self) -> None:
        """Until nothing waits: all that came while the last transaction was on its way."""
        while self._waiting:
            batch, self._waiting = self._waiting[:MAX_AT_ONCE], self._waiting[MAX_AT_ONCE:]
            try:
                await self.run("".join(command for command, _ in batch))
            except FirewallError as error:
                if len(batch) == 1:
                    _answer(batch[0][1], error)
                    continue
                for command, done in batch:  # one that doesn't work harms no other
                    try:
                        await self.run(command)
                    except FirewallError as its:
                        _answer(done, its)
                    else:
                        _answer(done, None)
            else:
                for _, done in batch:
                    _answer(done, None)
        self._writer = None

    async def _on_thread(self, work: Any) -> Any:
        assert self._thread is not None
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def _answer(done: asyncio.Future[None], error: FirewallError | None) -> None:
    if done.done():  # who waited was cancelled
        return
    if error is None:
        done.set_result(None)
    else:
        done.set_exception(error)


def _lease(element: Any) -> tuple[Hole, str, float] | None:
    try:
        inner = element["elem"]
        client, host, protocol, port = inner["val"]["concat"]
        hole = Hole(ip_address(client), ip_address(host), _protocol(protocol), int(port))
        return hole, str(inner.get("comment", "")), float(inner["expires"])
    except (KeyError, TypeError, ValueError):
        return None


def _guarded(version: int, element: Any) -> Guard | None:
    try:
        inner = element["elem"]["val"] if "elem" in element else element
        *address, protocol, port = inner["concat"]
        at = ip_address(address[0]) if address else None
        return Guard(version, _protocol(protocol), int(port), at)
    except (KeyError, TypeError, ValueError):
        return None


def _protocol(shown: Any) -> int:
    """As nft shows it: by name where it has one."""
    return _NUMBERS[shown] if shown in _NUMBERS else int(shown)
