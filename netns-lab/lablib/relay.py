"""A program that stands between those who ask the DNS and a server, and is not always honest.

``python3 relay.py ADDRESS SERVER MODE-FILE`` runs on a host, started by the lab, and passes
datagrams on; what it does with them is read from the file each time:

    plain          nothing
    slow SECONDS   each response is that late
    dead           nothing comes back
    strip          signatures are taken away: the question loses DO, the response AD
    lie            the response has another ID, so that it is to no question at all
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import cast

DO = 0x80  # in the first octet of an OPT record's flags
AD = 0x20  # in the fourth octet of a message
TYPE_OPT = 41
PATIENCE = 10.0


def without_do(query: bytes) -> bytes:
    """The query, asking for no signatures: an OPT record is right behind the one question."""
    at = 12
    while at < len(query) and query[at]:
        at += 1 + query[at]
    opt = at + 5
    if query[opt : opt + 3] != bytes([0, 0, TYPE_OPT]):
        return query
    flags = opt + 7
    return query[:flags] + bytes([query[flags] & ~DO]) + query[flags + 1 :]


class Upstream(asyncio.DatagramProtocol):
    """One query to the server."""

    def __init__(self) -> None:
        self.response: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def datagram_received(self, data: bytes, addr: object) -> None:
        if not self.response.done():
            self.response.set_result(data)


class Relay(asyncio.DatagramProtocol):
    """The side that is asked."""

    def __init__(self, server: str, modes: Path) -> None:
        self._server = server
        self._modes = modes
        self._tasks: set[asyncio.Task[None]] = set()
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: object) -> None:
        task = asyncio.get_running_loop().create_task(self._pass_on(data, addr))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _pass_on(self, query: bytes, asker: object) -> None:
        mode, *rest = self._modes.read_text().split()
        if mode == "dead":
            return
        if mode == "strip":
            query = without_do(query)
        loop = asyncio.get_running_loop()
        transport, upstream = await loop.create_datagram_endpoint(
            Upstream, remote_addr=(self._server, 53)
        )
        try:
            transport.sendto(query)
            response = bytearray(await asyncio.wait_for(upstream.response, PATIENCE))
        except TimeoutError:
            return
        finally:
            transport.close()
        if mode == "slow":
            await asyncio.sleep(float(rest[0]))
        elif mode == "strip":
            response[3] &= ~AD
        elif mode == "lie":
            response[0] ^= 0xFF
        assert self._transport is not None
        self._transport.sendto(bytes(response), asker)


async def main(address: str, server: str, modes: str) -> None:
    loop = asyncio.get_running_loop()
    await loop.create_datagram_endpoint(
        lambda: Relay(server, Path(modes)), local_addr=(address, 53)
    )
    print("relaying", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:4]))
