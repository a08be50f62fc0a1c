"""CONNECT: the attempts that `eyeballs.Race` asks for, until one succeeds (RFC 8305 section 5)."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence

from oegw.socks5.eyeballs import Race
from oegw.socks5.interface import TCP, Refused
from oegw.socks5.server.common import Common
from oegw.socks5.server.failures import code_by_icmp, listen_to_icmp, refusal
from oegw.socks5.server.finding import Way
from oegw.socks5.server.waiting import connected


async def connect(common: Common, ways: Sequence[Way], port: int) -> socket.socket:
    """A socket that is connected to one of ``ways``.  Raises Refused."""
    if len(ways) == 1:
        return await _attempt(common, ways[0], port)
    return await _Attempts(common, ways, port).first()


class _Attempts:
    def __init__(self, common: Common, ways: Sequence[Way], port: int) -> None:
        self._common = common
        self._port = port
        self._ways = {way.address: way for way in ways}
        self._race = Race(self._ways)
        self._running: dict[asyncio.Task[socket.socket], Way] = {}
        self._refusals: list[Refused] = []

    async def first(self) -> socket.socket:
        try:
            while not self._race.lost():
                self._begin()
                won = await self._one_ends()
                if won is not None:
                    return won
            code = self._race.code()
            raise next(
                (each for each in self._refusals if each.code == code), Refused(code, "unreachable")
            )
        finally:
            await self._end_others()

    def _begin(self) -> None:
        while (address := self._race.begin(self._common.now())) is not None:
            way = self._ways[address]
            task = asyncio.ensure_future(_attempt(self._common, way, self._port))
            self._running[task] = way

    async def _one_ends(self) -> socket.socket | None:
        """One has succeeded, or some have failed, or it is time for the next."""
        wake_at = self._race.wake_at()
        pause = None if wake_at is None else max(0.0, wake_at - self._common.now())
        if not self._running:
            await asyncio.sleep(pause or 0)
            return None
        done, _ = await asyncio.wait(
            self._running, timeout=pause, return_when=asyncio.FIRST_COMPLETED
        )
        for task in done:
            if task.exception() is None:
                del self._running[task]
                return task.result()
        for task in done:
            way = self._running.pop(task)
            try:
                task.result()
            except Refused as refused:
                self._refusals.append(refused)
                self._race.failed(way.address, refused.code)
        return None

    async def _end_others(self) -> None:
        for task in self._running:
            task.cancel()
        ended = await asyncio.gather(*self._running, return_exceptions=True)
        for each in ended:
            if isinstance(each, socket.socket):  # it came second
                each.close()


async def _attempt(common: Common, way: Way, port: int) -> socket.socket:
    """Raises Refused."""
    try:
        await common.dialler.allow(way.address, port, TCP, way.demand)
        sock = common.outgoing.stream(way.address, way.demand)
    except OSError as error:
        raise refusal(error) from error
    try:
        listen_to_icmp(sock, True)
        await connected(sock, str(way.address), port)
        listen_to_icmp(sock, False)
    except OSError as error:
        code = code_by_icmp(sock)
        sock.close()
        raise refusal(error, code) from error
    except BaseException:
        sock.close()
        raise
    return sock
