"""Questions to the gateway's resolvers for somebody else: as they are, by UDP or TCP.

Each has a socket, hence a source port, and an ID of its own (RFC 5452 section 9).
"""

from __future__ import annotations

import asyncio
import errno
import secrets
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from dnsrecords.exchange import marked_socket, receive_exactly
from oegw.sst.dnsquery import UNHELPFUL, DnsQuery, code_of
from oegw.sst.interface import IPAddress

# Our choices.
TRY_SECONDS = 1.5  # until the next server is asked as well
ROUNDS = 2  # by UDP: a datagram may be lost
MAX_DATAGRAM = 65535
MAX_SOCKETS = 300  # in all: processes may have 1024 files, and we have others

Answer = tuple[IPAddress, bytes]


class Relay:
    """``servers`` are asked one after the other, that which answered last first, with ``mark`` set
    on the sockets.  ``refused`` hears of datagrams that are no response to what was asked."""

    def __init__(
        self,
        servers: Sequence[IPAddress],
        *,
        port: int,
        mark: int | None,
        deadline: float,
        refused: Callable[[IPAddress], None],
    ) -> None:
        self._servers = list(dict.fromkeys(servers))
        self._port = port
        self._mark = mark
        self._deadline = deadline
        self._refused = refused
        self._sockets = 0

    async def ask(self, query: DnsQuery, transport: str) -> bytes | None:
        """The response, with the ID of ``query``; None if no server gave one in time.

        A server that does not want to answer is not the last word: another may.
        """
        unhelpful: bytes | None = None
        tries: set[asyncio.Task[Answer | None]] = set()
        waiting = self._servers * (ROUNDS if transport == "udp" else 1)
        try:
            async with asyncio.timeout(self._deadline):
                while waiting or tries:
                    if waiting:
                        attempt = self._try_quietly(query, transport, waiting.pop(0))
                        tries.add(asyncio.create_task(attempt))
                    limit = TRY_SECONDS if waiting else None
                    done, tries = await asyncio.wait(
                        tries, timeout=limit, return_when=asyncio.FIRST_COMPLETED
                    )
                    for each in done:
                        if (answer := each.result()) is None:
                            continue  # nobody there; the next one
                        server, response = answer
                        response = query.octets[:2] + response[2:]
                        if code_of(response) not in UNHELPFUL:
                            self._prefer(server)
                            return response
                        unhelpful = response
                        waiting = [other for other in waiting if other != server]
        except TimeoutError:
            pass
        finally:
            for each in tries:
                each.cancel()
        return unhelpful

    def _prefer(self, server: IPAddress) -> None:
        if self._servers[0] != server:
            self._servers.remove(server)
            self._servers.insert(0, server)

    async def _try_quietly(
        self, query: DnsQuery, transport: str, server: IPAddress
    ) -> Answer | None:
        """None where nobody is.  It does not raise: of tries that end at the same time one is
        looked at, and an error that nobody has seen stops the daemon."""
        try:
            return await self._try(query, transport, server)
        except (OSError, EOFError):
            return None

    async def _try(self, query: DnsQuery, transport: str, server: IPAddress) -> Answer:
        """Raises OSError and EOFError."""
        query_id = secrets.token_bytes(2)
        octets = query.with_id(query_id)
        loop = asyncio.get_running_loop()
        kind = socket.SOCK_DGRAM if transport == "udp" else socket.SOCK_STREAM
        with self._counted(), marked_socket(server, kind, self._mark) as sock:
            # Connected: the kernel keeps other senders' datagrams away.
            await loop.sock_connect(sock, (str(server), self._port))
            if transport == "tcp":
                await loop.sock_sendall(sock, len(octets).to_bytes(2, "big") + octets)
            else:
                await loop.sock_sendall(sock, octets)
            while True:
                if transport == "tcp":
                    length = int.from_bytes(await receive_exactly(sock, 2), "big")
                    response = await receive_exactly(sock, length)
                else:
                    response = await loop.sock_recv(sock, MAX_DATAGRAM)
                if query.answered_by(response, query_id):
                    return server, response
                self._refused(server)  # a forger must not end the wait for the true response

    @contextmanager
    def _counted(self) -> Iterator[None]:
        """Raises OSError if there are enough."""
        if self._sockets >= MAX_SOCKETS:
            raise OSError(errno.EMFILE, "enough questions are under way")
        self._sockets += 1
        try:
            yield
        finally:
            self._sockets -= 1
