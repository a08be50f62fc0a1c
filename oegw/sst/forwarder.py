"""A DNS forwarder, so that the gateway sees the names that hosts ask for (SST-31, SST-32).

Hosts name it as their resolver; it passes their questions on to the gateway's resolvers and the
answers back, unchanged.  Beside a question for addresses it asks for the SST keys of the name, and
gives the answer only when the directory knows them, or after a moment: so the first packet to that
address has its ports encrypted.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from ipaddress import ip_address
from typing import Any, cast

from dnsrecords.errors import RecordError
from dnsrecords.outcome import NamesFound, SstKeyOutcome, SstKeysFound, Unanswered
from dnsrecords.pointer import PointerLookup
from dnsrecords.resolver import Resolver
from dnsrecords.sstkey import NAME_PREFIX
from dnsrecords.sstlookup import SstKeyLookup, sst_name
from oegw.sst.directory import KeyDirectory
from oegw.sst.dnsquery import NOERROR, DnsQuery, UnanswerableQuery, code_of, refusal
from oegw.sst.interface import IPAddress, IPNetwork, SstError
from oegw.sst.relay import Relay
from oegw.trace import Trace

# Our choices.
MAX_QUESTIONS = 256  # under way
MAX_QUESTIONS_OF_ONE = 64  # of one host: it must not take all
MAX_CONNECTIONS = 64
MAX_CONNECTIONS_OF_ONE = 16
IDLE_SECONDS = 10.0  # of a connection (RFC 7766 section 6.2.3: a few seconds)
DEADLINE = 4.5  # seconds; most hosts ask again after five
MAX_POINTERS = 8  # addresses of one name that the reverse zone is asked about
KEYS_SECONDS = 0.5  # that an answer waits for the name's keys
SILENT_SECONDS = 60.0  # that a name is left alone after nobody answered about its keys
MAX_SILENT = 1024  # such names

Send = Callable[[bytes], None]


def clients_of(
    listen: IPAddress, attached: Sequence[IPNetwork], outer: Sequence[IPAddress]
) -> tuple[IPNetwork, ...]:
    """Whose hosts may ask: the attached networks, but that of an outer address only if ``listen``
    is in it, which nobody writes by mistake."""
    return tuple(
        network
        for network in attached
        if _holds(network, listen) or not any(_holds(network, each) for each in outer)
    )


def _holds(network: IPNetwork, address: IPAddress) -> bool:
    return network.version == address.version and address in network


class Forwarder:
    """``listen``: address and port.  ``servers``: the gateway's resolvers, asked with ``mark`` set.

    ``clients``: networks inside whose hosts may ask, beside this box itself; others get no answer.
    ``resolver`` looks keys up, if ``wanted()``; ``directory`` is told of them.  ``clock``: that of
    ``directory``.  ``may_ask``: whether the reverse name of an address may be asked for.
    """

    def __init__(
        self,
        listen: tuple[IPAddress, int],
        servers: Sequence[IPAddress],
        clients: Sequence[IPNetwork],
        resolver: Resolver,
        directory: KeyDirectory,
        trace: Trace,
        *,
        wanted: Callable[[], bool],
        clock: Callable[[], float],
        may_ask: Callable[[IPAddress], bool] = lambda address: True,
        mark: int | None = None,
        port: int = 53,
    ) -> None:
        self._listen = listen
        self._servers = tuple(servers)
        self._clients = tuple(clients)
        self._resolver = resolver
        self._directory = directory
        self._trace = trace
        self._wanted = wanted
        self._clock = clock
        self._may_ask = may_ask
        self._port = port
        self._relay = Relay(
            servers,
            port=port,
            mark=mark,
            deadline=DEADLINE,
            refused=lambda server: trace.drop(
                "sst", "forwarder_response_mismatched", server=str(server)
            ),
        )
        self._datagrams: asyncio.DatagramTransport | None = None
        self._streams: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._asked: set[tuple[Any, bytes]] = set()  # what is under way by UDP
        self._silent: dict[str, float] = {}  # names, and until when; the oldest first
        self._questions: Counter[IPAddress] = Counter()
        self._connections: Counter[IPAddress] = Counter()
        self._counters: Counter[str] = Counter()

    async def start(self) -> None:
        """Listen by UDP and TCP.  Raises SstError: the address is taken, or not ours."""
        address, port = self._listen
        where = f"sst.forwarder: {address} port {port}"
        if address in self._servers and port == self._port:
            raise SstError(f"{where}: is one of our own resolvers: questions would go in a circle")
        loop = asyncio.get_running_loop()
        try:
            self._streams = await asyncio.start_server(self._serve_stream, str(address), port)
            self._datagrams, _ = await loop.create_datagram_endpoint(
                lambda: _Datagrams(self._datagram_received), local_addr=(str(address), port)
            )
        except OSError as error:
            await self.close()
            raise SstError(f"{where}: {error.strerror or error}") from error

    async def close(self) -> None:
        """Stop listening; questions under way are given up."""
        if self._datagrams is not None:
            self._datagrams.close()
        if self._streams is not None:
            self._streams.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def snapshot(self) -> dict[str, Any]:
        """For ``oegw status``."""
        address, port = self._listen
        return {
            "address": str(address),
            "port": port,
            "under_way": self._questions.total(),
            "connections": self._connections.total(),
            **{name: self._counters[name] for name in ("questions", "answers", "failures")},
            "names_with_keys": self._counters["names_with_keys"],
        }

    # Hosts.

    def _datagram_received(self, octets: bytes, sender: Any) -> None:
        client = self._admitted(sender)
        if client is None:
            return
        transport = self._datagrams
        place = (sender, octets)
        if place in self._asked or not self._takes_room(client):
            return  # asked again because we take long: once is enough

        def send(answer: bytes) -> None:
            if transport is not None:
                transport.sendto(answer, sender)

        def done(task: asyncio.Task[None]) -> None:
            self._asked.discard(place)
            _one_less(self._questions, client)

        self._asked.add(place)
        self._spawn(self._serve(octets, "udp", client, send)).add_done_callback(done)

    async def _serve_stream(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        client = self._admitted(writer.get_extra_info("peername"))
        task = cast("asyncio.Task[None]", asyncio.current_task())
        if client is None:
            writer.transport.abort()
            return
        if (
            self._connections.total() >= MAX_CONNECTIONS
            or self._connections[client] >= MAX_CONNECTIONS_OF_ONE
        ):
            self._trace.drop("sst", "forwarder_busy", client=str(client), transport="tcp")
            writer.transport.abort()
            return
        self._connections[client] += 1
        self._tasks.add(task)
        try:
            while True:
                async with asyncio.timeout(IDLE_SECONDS):
                    length = int.from_bytes(await reader.readexactly(2), "big")
                    octets = await reader.readexactly(length)
                if not self._takes_room(client):
                    return
                answers: list[bytes] = []
                try:
                    await self._serve(octets, "tcp", client, answers.append)
                finally:
                    _one_less(self._questions, client)
                for answer in answers:
                    writer.write(len(answer).to_bytes(2, "big") + answer)
                async with asyncio.timeout(IDLE_SECONDS):
                    await writer.drain()
        except (TimeoutError, EOFError, OSError):
            writer.transport.abort()  # the host's affair; what it does not take is not kept
        finally:
            _one_less(self._connections, client)
            self._tasks.discard(task)
            writer.close()

    def _admitted(self, sender: Any) -> IPAddress | None:
        """The host that asks, if it may: nobody outside can use us against others."""
        try:
            client = ip_address(str(sender[0]).partition("%")[0])
        except (TypeError, IndexError, ValueError):
            return None
        if client.is_loopback or any(_holds(network, client) for network in self._clients):
            return client
        self._trace.drop("sst", "forwarder_stranger", client=str(client))
        return None

    def _takes_room(self, client: IPAddress) -> bool:
        """Count a question of ``client``; False if there are too many."""
        if (
            self._questions.total() < MAX_QUESTIONS
            and self._questions[client] < MAX_QUESTIONS_OF_ONE
        ):
            self._questions[client] += 1
            return True
        self._trace.drop("sst", "forwarder_busy", client=str(client))
        return False

    def _spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # Questions.

    async def _serve(self, octets: bytes, transport: str, client: IPAddress, send: Send) -> None:
        try:
            query = DnsQuery.parse(octets)
        except UnanswerableQuery as error:
            self._trace.drop(
                "sst", "forwarder_query_refused", client=str(client), detail=str(error)
            )
            if error.code is not None:
                send(refusal(octets, error.code))
            return
        self._counters["questions"] += 1
        send(await self._answer(query, transport))

    async def _answer(self, query: DnsQuery, transport: str) -> bytes:
        host = query.host
        keys: asyncio.Task[SstKeyOutcome] | None = None
        if host is not None and self._looks_for(host):
            keys = asyncio.create_task(self._resolver.run(SstKeyLookup(host)))
        try:
            response = await self._relay.ask(query, transport)
            if response is None:
                self._counters["failures"] += 1
                self._trace.drop(
                    "sst", "forwarder_unanswered", name=b".".join(query.name).decode("latin-1")
                )
                return query.failure()
            self._counters["answers"] += 1
            if keys is not None and host is not None and code_of(response) == NOERROR:
                addresses, alias = query.addresses_in(response)
                if addresses:
                    teaching = self._spawn(self._teach(host, alias, addresses, keys))
                    keys = None
                    await asyncio.wait([teaching], timeout=KEYS_SECONDS)
            return response
        finally:
            if keys is not None:
                keys.cancel()

    def _looks_for(self, host: str) -> bool:
        """Whether to ask for the keys of a name."""
        if host.startswith(NAME_PREFIX) or not self._wanted():
            return False
        try:
            sst_name(host)
        except RecordError:
            return False  # no name that keys could stand at
        return self._silent.get(host, 0.0) <= self._clock()

    async def _teach(
        self,
        host: str,
        alias: str | None,
        addresses: Sequence[IPAddress],
        keys: asyncio.Task[SstKeyOutcome],
    ) -> None:
        """Tell the directory of the keys at the name asked for, or at what it is an alias of."""
        try:
            outcome = await keys
        finally:
            keys.cancel()
        if isinstance(outcome, Unanswered):
            self._silent.pop(host, None)
            self._silent[host] = self._clock() + SILENT_SECONDS
            if len(self._silent) > MAX_SILENT:
                del self._silent[next(iter(self._silent))]
        if not await self._learn(host, addresses, outcome) and alias not in (None, host):
            outcome = await self._resolver.run(SstKeyLookup(alias or host))
            await self._learn(alias or host, addresses, outcome)

    async def _learn(
        self, name: str, addresses: Sequence[IPAddress], outcome: SstKeyOutcome
    ) -> bool:
        """Whether the name has a key for one of the addresses."""
        reverse: dict[IPAddress, NamesFound] = {}
        if isinstance(outcome, SstKeysFound):
            asked = addresses[:MAX_POINTERS]
            answers = await asyncio.gather(
                *(self._resolver.run(PointerLookup(each, self._may_ask)) for each in asked)
            )
            for address, found in zip(asked, answers, strict=True):
                if isinstance(found, NamesFound):
                    reverse[address] = found
        taught = self._directory.learn_by_name(name, addresses, outcome, self._clock(), reverse)
        if taught:
            self._counters["names_with_keys"] += 1
            self._trace.event("sst", "keys_found_by_name", name=name, addresses=taught)
        elif isinstance(outcome, SstKeysFound):
            self._trace.drop("sst", "keys_by_name_not_confirmed", name=name)
        return bool(taught)


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, received: Callable[[bytes, Any], None]) -> None:
        self._received = received

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self._received(data, addr)


def _one_less(counter: Counter[IPAddress], client: IPAddress) -> None:
    counter[client] -= 1
    if not counter[client]:
        del counter[client]
