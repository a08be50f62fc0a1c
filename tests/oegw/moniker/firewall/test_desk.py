"""A host and its gateway over loopback: leases asked for, refused, ended; strangers at the desk."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from ipaddress import ip_address, ip_network
from types import SimpleNamespace
from typing import Any

import pytest

from oegw.moniker import wire
from oegw.moniker.firewall import handshake, leasedesk
from oegw.moniker.firewall.gatewaylink import AskGateway
from oegw.moniker.firewall.leasedesk import LeaseDesk
from oegw.moniker.firewall.messages import Alive, Opened, OpenPort, serialize
from oegw.moniker.firewall.sitedirectory import SiteDirectory
from oegw.moniker.firewall.stream import LeaseStream
from oegw.moniker.interface import IPAddress, Lease, LeaseRefused, Opening, Place
from oegw.moniker.names import MonikerError, ServiceName, Version
from oegw.moniker.settings import GatewayInFront, HostSettings, ServiceRule
from oegw.moniker.steps import AskHost, Question, Source
from oegw.moniker.wire import Answer, Code, Refusal
from oegw.sst.statickey import StaticKey
from oegw.trace import JsonTrace
from tests.support.moniker_gate import MemoryGate

GATEWAY, BOB_KEY, CAROL_KEY, STRANGER = (StaticKey(bytes([n]) * 32) for n in (1, 2, 3, 4))
LOOPBACK = ip_address("127.0.0.1")
BOB = HostSettings(
    "bob",
    (ip_address("10.1.0.2"), ip_address("fd00:1::2"), LOOPBACK),
    BOB_KEY.public,
    namespaces=("bob",),
    leases=3,
)
CAROL = HostSettings("carol", (ip_address("10.1.0.3"),), CAROL_KEY.public, ("carol",))
LEASE = Lease(ip_address("10.9.0.2"), BOB.addresses[0], "tcp", 4711, 60, "starwars", "bob")
NONCE = "00112233445566778899aabbccddeeff"
PATIENCE = 10.0


async def until(condition: Callable[[], Any]) -> Any:
    """Wait for what must come, with a deadline that only a broken test reaches."""
    async with asyncio.timeout(PATIENCE):
        while not (said := condition()):
            await asyncio.sleep(0.002)
    return said


class Site:
    """The gateway's desk behind a listener on loopback, and links of hosts."""

    def __init__(self, rules: tuple[ServiceRule, ...] = ()) -> None:
        self.events: list[dict[str, Any]] = []
        self.trace = JsonTrace(None, lambda: 0.0)
        self.trace.listeners.append(lambda line: self.events.append(dict(line)))
        self.gate = MemoryGate((BOB, CAROL))
        self.desk = LeaseDesk(GATEWAY, (BOB, CAROL), self.gate, trace=self.trace, rules=rules)
        self.directory = SiteDirectory((BOB, CAROL), self.gate, self.desk, trace=self.trace)
        self.host_trace = JsonTrace(None, lambda: 0.0)
        self.port = 0
        self.writers: list[asyncio.StreamWriter] = []

    async def listen(self) -> asyncio.Server:
        server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = server.sockets[0].getsockname()[1]
        return server

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        line = (await reader.readline()).decode("utf-8", "replace").rstrip("\r\n")
        await self.desk.serve(line, reader, writer)

    def count(self, name: str) -> int:
        return self.trace.counters[f"moniker.drop.{name}"]

    @asynccontextmanager
    async def link(
        self,
        key: StaticKey = BOB_KEY,
        gateway: bytes | None = GATEWAY.public,
        answering: Callable[[str, Source], Awaitable[str]] | None = None,
        find_key: Callable[[IPAddress], Awaitable[bytes | None]] | None = None,
        *,
        wait: bool = True,
    ) -> AsyncIterator[AskGateway]:
        link = AskGateway(
            GatewayInFront(LOOPBACK, gateway, self.port),
            key,
            trace=self.host_trace,
            answering=answering,
            find_key=find_key,
            is_neighbour=lambda client: str(client) == "10.1.0.77",
        )
        await link.start()
        try:
            if wait:
                await until(lambda: link.connected)
            yield link
        finally:
            await link.close()


@asynccontextmanager
async def site(*rules: ServiceRule) -> AsyncIterator[Site]:
    made = Site(rules)
    server = await made.listen()
    try:
        yield made
    finally:
        await made.desk.close()
        server.close()
        await server.wait_closed()


def played(play: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(play(), 30))  # type: ignore[arg-type]


async def refused(opener: AskGateway, lease: Lease) -> str:
    with pytest.raises(LeaseRefused) as caught:
        await opener.open(lease)
    return caught.value.code


def test_a_host_asks_and_the_gateway_opens() -> None:
    async def play() -> None:
        async with site() as here, here.link() as link:
            assert here.desk.connected() == ["bob"]
            assert await link.open(LEASE) == Opening(4711, 60)
            assert here.gate.leases == [LEASE]
            await link.end(Place("tcp", 4711))
            await until(lambda: not here.gate.leases)

    played(play)


def test_nobody_opens_or_ends_another_hosts_ports() -> None:
    async def play() -> None:
        async with site() as here, here.link() as bob, here.link(CAROL_KEY) as carol:
            await bob.open(LEASE)
            assert await refused(carol, LEASE) == "denied"
            await carol.end(Place("tcp", 4711, "4", LEASE.host))
            await carol.end(Place("tcp", 4711))
            carols = replace(LEASE, host=CAROL.addresses[0])
            await carol.open(carols)
            assert here.gate.leases == [LEASE, carols]
            assert here.count("lease_of_another_host") == 2

    played(play)


def test_requests_are_limited_per_host() -> None:
    async def play() -> None:
        async with site() as here, here.link() as bob, here.link(CAROL_KEY) as carol:
            opened = [bob.open(replace(LEASE, port=5000 + n)) for n in range(8)]
            results = await asyncio.gather(*opened, return_exceptions=True)
            codes = [each.code for each in results if isinstance(each, LeaseRefused)]
            assert codes == ["busy"] * 5
            await carol.open(replace(LEASE, host=CAROL.addresses[0]))
            assert here.count("lease_asked_busy") == 5

    played(play)


def test_the_gateways_policy_by_service_name() -> None:
    """MK-18: what the gateway does not allow, the host can't have opened."""
    rules = (
        ServiceRule(False, "starwars", "bob", (ip_network("10.9.0.0/24"),)),
        ServiceRule(True, "http", encrypted=True),
    )

    async def play() -> None:
        async with site(*rules) as here, here.link() as bob:
            assert await refused(bob, LEASE) == "denied"
            await bob.open(replace(LEASE, client=ip_address("10.8.0.1")))
            http = replace(LEASE, service="http", port=80)
            assert await refused(bob, http) == "clear"
            await bob.open(replace(http, encrypted=True))
            assert len(here.gate.leases) == 2
            dropped = [e for e in here.events if e.get("trigger") == "lease_asked_denied"]
            assert [(e["asking"], e["service"]) for e in dropped] == [("bob", "bob::starwars")]

    played(play)


def test_a_connection_that_breaks_is_made_again_and_leases_live_on() -> None:
    async def play() -> None:
        async with site() as here, here.link() as link:
            await link.open(LEASE)
            here.writers[0].transport.abort()
            await until(lambda: not link.connected)
            await until(lambda: link.connected)
            assert here.gate.leases == [LEASE]
            await link.open(replace(LEASE, port=4712))

    played(play)


def test_what_ended_meanwhile_is_told_when_there_is_a_connection_again() -> None:
    async def play() -> None:
        async with site() as here, here.link() as link:
            await link.open(LEASE)
            here.writers[0].transport.abort()
            await until(lambda: not link.connected)
            await link.end(Place("tcp", 4711))
            await until(lambda: not here.gate.leases)

    played(play)


def test_a_lease_that_is_asked_for_while_there_is_no_connection_waits_for_it() -> None:
    async def play() -> None:
        async with site() as here, here.link() as link:
            here.writers[0].transport.abort()
            await until(lambda: not link.connected)
            assert await link.open(LEASE) == Opening(4711, 60)

    played(play)


def test_who_waits_for_a_connection_waits_for_one_that_works() -> None:
    """The first ends in its handshake: it had the lease opened later, and its client refused."""

    async def play() -> None:
        async with site() as here:
            serve, begun = here.desk.serve, asyncio.Event()

            async def sometimes(line: str, reader: Any, writer: Any) -> None:
                if not begun.is_set():
                    await asyncio.sleep(0.1)
                    begun.set()
                    writer.close()
                else:
                    await serve(line, reader, writer)

            here.desk.serve = sometimes  # type: ignore[method-assign]
            async with here.link(wait=False) as link:
                assert await link.open(LEASE) == Opening(4711, 60)
                assert begun.is_set()

    played(play)


def test_a_host_that_stays_away_loses_its_leases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leasedesk, "GONE_SECONDS", 0.05)

    async def play() -> None:
        async with site() as here, here.link() as link, here.link(CAROL_KEY) as carol:
            carols = replace(LEASE, host=CAROL.addresses[0])
            await carol.open(carols)
            await link.open(LEASE)
            await link.close()
            await until(lambda: here.gate.leases == [carols])
            assert here.desk.connected() == ["carol"]

    played(play)


def test_a_host_that_says_nothing_any_more_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its cable is out: no FIN comes, and the 10 seconds are those without a sign of life."""
    monkeypatch.setattr("oegw.moniker.firewall.gatewaylink.ALIVE_SECONDS", 1000.0)
    receive = leasedesk.LeaseStream.receive

    async def impatient(stream: leasedesk.LeaseStream, seconds: float = 0.2) -> Any:
        return await receive(stream, seconds)

    monkeypatch.setattr(leasedesk.LeaseStream, "receive", impatient)

    async def play() -> None:
        async with site() as here, here.link() as link:
            await link.open(LEASE)
            await until(lambda: not here.gate.leases)

    played(play)


def test_without_a_gateway_there_is_a_typed_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oegw.moniker.firewall.gatewaylink.OPEN_SECONDS", 0.1)

    async def play() -> None:
        here = Site()
        server = await here.listen()
        server.close()
        await server.wait_closed()
        async with here.link(wait=False) as link:
            assert await refused(link, LEASE) == "gateway"
            assert here.host_trace.counters["moniker.drop.lease_gateway_refused"] >= 1

    played(play)


def test_neighbours_are_answered_without_the_gateway() -> None:
    async def play() -> None:
        here = Site()
        server = await here.listen()
        server.close()
        await server.wait_closed()
        async with here.link(wait=False) as link:
            neighbour = replace(LEASE, client=ip_address("::ffff:10.1.0.77"))
            assert await link.open(neighbour) == Opening(4711, 60)

    played(play)


def test_a_stranger_in_the_gateways_place_is_noticed() -> None:
    async def play() -> None:
        async with site() as here, here.link(gateway=STRANGER.public, wait=False) as link:
            await until(lambda: here.count("lease_not_authentic"))
            assert not link.connected
            assert here.desk.connected() == []

    played(play)


def test_the_gateways_key_from_the_dns() -> None:
    asked: list[IPAddress] = []

    async def find_key(address: IPAddress) -> bytes | None:
        asked.append(address)
        if len(asked) == 1:
            raise MonikerError("the record can't be read")
        return GATEWAY.public if len(asked) > 2 else None

    async def play() -> None:
        async with site() as here, here.link(gateway=None, find_key=find_key):
            assert asked == [LOOPBACK] * 3
            assert here.host_trace.counters["moniker.drop.lease_gateway_without_key"] == 2

    played(play)


def test_a_host_that_nobody_knows_is_told_so() -> None:
    async def play() -> None:
        async with site() as here:
            reader, writer = await asyncio.open_connection("127.0.0.1", here.port)
            writer.write(handshake.hello(STRANGER, STRANGER).encode() + b"\r\n")
            said = wire.parse((await reader.readline()).decode().rstrip())
            assert isinstance(said, Refusal)
            assert said.code is Code.KEY
            assert await reader.read() == b""
            writer.close()
            assert here.count("lease_key_unknown") == 1

    played(play)


def test_who_only_has_the_public_keys_gets_nothing_opened() -> None:
    """Hello of Bob's, repeated by a stranger who saw it: he can't seal what must follow."""

    async def play() -> None:
        async with site() as here, here.link() as link:
            reader, writer = await asyncio.open_connection("127.0.0.1", here.port)
            writer.write(handshake.hello(BOB_KEY, STRANGER).encode() + b"\r\n")
            await reader.readline()
            writer.write((40).to_bytes(2, "big") + bytes(40))
            assert await reader.read() == b""
            writer.close()
            assert here.count("lease_not_authentic") == 1
            assert link.connected  # Bob's own connection has not been pushed out
            assert await link.open(LEASE) == Opening(4711, 60)

    played(play)


async def host_by_hand(
    port: int, key: StaticKey = BOB_KEY, gateway: str = "127.0.0.1"
) -> LeaseStream:
    """A host's connection that does as it likes."""
    reader, writer = await asyncio.open_connection(gateway, port)
    ephemeral = StaticKey(bytes([9]) * 32)
    writer.write(handshake.hello(key, ephemeral).encode() + b"\r\n")
    e_g = handshake.read_welcome((await reader.readline()).decode().rstrip("\r\n"))
    keys = handshake.keys_of_host(key, ephemeral, GATEWAY.public, e_g)
    stream = LeaseStream(reader, writer, receiving=keys.to_host, sending=keys.to_gateway)
    stream.send(Alive())
    await stream.receive()
    return stream


def test_a_host_that_says_too_much_is_read_more_slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Renewals as well, which cost no credit; and a second connection is no way around it."""
    monkeypatch.setattr(leasedesk, "MESSAGES_A_SECOND", 50.0)
    monkeypatch.setattr(leasedesk, "MESSAGES_AT_ONCE", 100.0)

    async def play() -> None:
        async with site() as here, here.link(CAROL_KEY) as carol:
            answers = 0
            for _ in range(2):
                stream = await host_by_hand(here.port)
                for tag in range(400):
                    stream.send(OpenPort(tag, LEASE))
                with suppress(TimeoutError):
                    async with asyncio.timeout(1):
                        while True:
                            answers += isinstance(await stream.receive(), Opened)
                stream.abort()
            assert 100 <= answers < 300
            await carol.open(replace(LEASE, host=CAROL.addresses[0]))

    played(play)


def test_a_host_that_does_not_read_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LeaseStream.receive, "__defaults__", (0.5,))
    monkeypatch.setattr(leasedesk, "MESSAGES_AT_ONCE", 1e9)

    async def play() -> None:
        async with site() as here:
            stream = await host_by_hand(here.port)
            stream._reader._transport.pause_reading()  # type: ignore[attr-defined]
            transport = here.writers[0].transport
            while transport.get_write_buffer_size() < 10_000:
                for _ in range(200):
                    stream._writer.write(stream._sealing.seal(serialize(Alive())))
                await stream._writer.drain()
                await asyncio.sleep(0)
            await until(lambda: not here.desk.connected())
            await asyncio.sleep(0)
            assert transport.get_write_buffer_size() == 0
            stream.abort()

    played(play)


def test_hosts_of_one_network_do_not_keep_off_one_another() -> None:
    """Nor does a stranger there keep off a host: of strangers a /64 is one source, of hosts not."""
    bob, carol, other = (ip_address(f"fd00:1::{n}") for n in (2, 3, 4))
    hosts = (replace(BOB, addresses=(bob,)), replace(CAROL, addresses=(carol,)))
    desk = LeaseDesk(GATEWAY, hosts, MemoryGate(hosts), trace=JsonTrace(None, lambda: 0.0))

    async def play() -> None:
        for source in (other, carol):
            for _ in range(leasedesk.STRANGERS_OF_A_SOURCE):
                assert desk._stranger(_from(source)) is not None
            assert desk._stranger(_from(source)) is None
        assert desk._stranger(_from(bob)) is not None

    played(play)


def _from(source: IPAddress) -> Any:
    return SimpleNamespace(
        get_extra_info=lambda name: (str(source), 1),
        transport=SimpleNamespace(abort=lambda: None),
    )


def test_who_says_nothing_after_the_hello_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leasedesk, "HANDSHAKE_SECONDS", 0.05)

    async def play() -> None:
        async with site() as here:
            reader, writer = await asyncio.open_connection("127.0.0.1", here.port)
            writer.write(handshake.hello(BOB_KEY, STRANGER).encode() + b"\r\n")
            await reader.readline()
            assert await reader.read() == b""
            writer.close()
            assert here.desk.connected() == []

    played(play)


def test_a_host_that_changed_at_a_reload_has_to_connect_again() -> None:
    async def play() -> None:
        async with site() as here, here.link() as link:
            here.desk.reload((CAROL,))
            await until(lambda: not link.connected)
            await until(lambda: here.count("lease_key_unknown"))
            here.desk.reload((BOB, CAROL))
            await until(lambda: link.connected)

    played(play)


def test_new_keys_count_from_the_next_connection_on() -> None:
    fresh, hosts = StaticKey(bytes([9]) * 32), StaticKey(bytes([8]) * 32)

    async def find_key(_: IPAddress) -> bytes | None:
        return fresh.public if here_now else GATEWAY.public

    here_now: list[int] = []

    async def play() -> None:
        async with site() as here, here.link(gateway=None, find_key=find_key) as link:
            here.desk.reload((replace(BOB, key=hosts.public), CAROL), (), fresh)
            here_now.append(1)
            await until(lambda: not link.connected)  # its host has another key now
            link.take_key(hosts)
            assert await link.open(LEASE) == Opening(4711, 60)

    played(play)


def test_who_wants_a_lease_does_not_wait_for_the_longest_pause(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("oegw.moniker.firewall.gatewaylink.LONGEST_PAUSE", 1000.0)

    async def play() -> None:
        here = Site()
        server = await here.listen()
        server.close()
        await server.wait_closed()
        async with here.link(wait=False) as link:
            failures = here.host_trace.counters
            await until(lambda: failures["moniker.drop.lease_gateway_refused"] >= 2)
            again = await here.listen()
            assert await link.open(LEASE) == Opening(4711, 60)
            await here.desk.close()
            again.close()
            await again.wait_closed()

    played(play)


# ------------------------------------------------------------------- site directory


def ask(
    host: IPAddress = BOB.addresses[0], port: int = 1, client: str = "10.9.0.2", **source: Any
) -> AskHost:
    came = Source(ip_address(client), ip_address("10.2.0.1"), **source)
    name = ServiceName.parse("bob::starwars")
    return AskHost(Question(came, NONCE, name, None, 256), name, None, host, port)


def answer(nonce: str = NONCE, families: str = "46") -> Answer:
    return Answer(nonce, 4711, "tcp", Version.parse("1"), families, 30)


def test_a_question_goes_over_the_hosts_own_connection() -> None:
    """MK-14: so the host knows who asks, and whether it was encrypted."""
    heard: list[tuple[str, Source]] = []

    async def answering(line: str, source: Source) -> str:
        heard.append((line, source))
        return wire.text(answer())

    async def play() -> None:
        async with site() as here, here.link(answering=answering):
            said, opening = await here.directory.ask(ask(protected=True), 60)
            assert said == answer()
            assert opening == Opening(20001, 30)
            lease, asked = here.gate.forwarded[20001]
            assert lease == replace(LEASE, seconds=30, encrypted=True)
            assert str(asked) == "10.2.0.1"
        ((line, source),) = heard
        assert line == f"MON/1 Q {NONCE} * bob starwars *"
        assert source == Source(LEASE.client, LEASE.host, protected=True)

    played(play)


def test_a_host_without_a_connection_is_asked_in_clear() -> None:
    async def play() -> None:
        async with site() as here:
            heard = []

            async def daemon(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                heard.append(await reader.readline())
                writer.write(wire.text(answer()).encode() + b"\r\n")
                writer.close()

            server = await asyncio.start_server(daemon, "127.0.0.1", 0)
            port = server.sockets[0].getsockname()[1]
            said, opening = await here.directory.ask(ask(LOOPBACK, port), 60)
            assert (said, opening) == (answer(), Opening(20001, 30))
            assert heard == [f"MON/1 Q {NONCE} * bob starwars *\r\n".encode()]
            server.close()
            await server.wait_closed()

    played(play)


@pytest.mark.parametrize(
    "said",
    [
        wire.text(answer(nonce="f" * 32)),
        wire.text(answer(families="6")),
        "MON/1 Q 0123456789abcdef * - x *",
        "+ whatever",
        "",
    ],
)
def test_an_answer_that_is_none_opens_nothing(said: str) -> None:
    async def answering(line: str, source: Source) -> str:
        return said

    async def play() -> None:
        async with site() as here, here.link(answering=answering):
            with pytest.raises(LeaseRefused) as caught:
                await here.directory.ask(ask(), 60)
            assert caught.value.code == "gateway"
            assert not here.gate.leases

    played(play)


def test_a_refusal_of_the_host_is_passed_on() -> None:
    async def answering(line: str, source: Source) -> str:
        return wire.text(Refusal(NONCE, Code.VERSION, "only 3"))

    async def play() -> None:
        async with site() as here, here.link(answering=answering):
            said, opening = await here.directory.ask(ask(), 60)
            assert said == Refusal(NONCE, Code.VERSION, "only 3")
            assert opening is None

    played(play)


def test_a_host_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leasedesk, "ASK_SECONDS", 0.05)

    async def answering(line: str, source: Source) -> str:
        await asyncio.sleep(60)
        return ""

    async def play() -> None:
        with socket.socket() as bound:  # and nobody listens there
            bound.bind(("127.0.0.1", 0))
            async with site() as here, here.link(answering=answering):
                with pytest.raises(LeaseRefused) as caught:
                    await here.directory.ask(ask(LOOPBACK, bound.getsockname()[1]), 60)
                assert caught.value.code == "gateway"
                assert here.count("host_silent") == 1

    played(play)
