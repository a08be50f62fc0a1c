"""The DNS forwarder between a host and a server on the loopback address, and before BIND."""

from __future__ import annotations

import asyncio
import gc
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import dns.asyncquery
import dns.edns
import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.rdatatype
import pytest

from dnsrecords.outcome import NothingFound
from dnsrecords.resolver import Resolver
from oegw.sst import forwarder as module
from oegw.sst import relay as relay_module
from oegw.sst.directory import KeyDirectory, KnownKeys, Source
from oegw.sst.dnsquery import DnsQuery
from oegw.sst.forwarder import Forwarder, clients_of
from oegw.sst.interface import SstError
from oegw.sst.relay import Relay
from oegw.trace import JsonTrace
from tests.support.dns_server import (
    LOOPBACK,
    Delay,
    DnsServer,
    Drop,
    Fail,
    Garble,
    Truncate,
    cut_in_half,
    not_a_response,
    wrong_id,
    wrong_question,
)
from tests.support.named import Named, free_port
from tests.support.sst_keys import sst_key

HOST = ip_address(LOOPBACK)
BOB, BOB6 = ip_address("192.2.0.66"), ip_address("2001:db8:2::66")
NAME, AT_NAME = "bob.example.", "_sst.bob.example."
KEY, KEY6 = sst_key(BOB), sst_key(BOB6, 2)
CAROL, BEHIND = ip_address("192.2.0.68"), sst_key(ip_address("192.1.1.5"), 5)
BOTH = [KEY.presentation(), KEY6.presentation()]
RECORDS: dict[str, dict[str, list[str]]] = {
    NAME: {"A": [str(BOB), "192.2.0.67"], "AAAA": [str(BOB6)], "TXT": ['"hello"']},
    AT_NAME: {"TXT": BOTH},
    "www.example.": {"CNAME": [NAME]},
    "carol.example.": {"A": ["192.2.0.68"]},
    "_sst.carol.example.": {"TXT": [BEHIND.presentation()]},
    "68.0.2.192.in-addr.arpa.": {"PTR": ["carol.example."]},
    "mallet.example.": {"A": ["192.2.0.68"]},
    "_sst.mallet.example.": {"TXT": [sst_key(ip_address("192.9.9.9"), 66).presentation()]},
    "plain.example.": {"A": ["192.2.0.70"]},
    "many.example.": {"TXT": [f'"{number:0250}"' for number in range(20)]},
}


@dataclass
class Stage:
    """A forwarder in front of a server."""

    server: DnsServer
    forwarder: Forwarder
    directory: KeyDirectory
    trace: JsonTrace
    port: int

    async def ask(
        self, name: str, rdtype: str = "A", *, tcp: bool = False, **options: Any
    ) -> dns.message.Message:
        query = dns.message.make_query(name, rdtype, **options)
        if tcp:
            return await dns.asyncquery.tcp(query, LOOPBACK, 10, port=self.port)
        return await dns.asyncquery.udp(query, LOOPBACK, 10, port=self.port)

    def asked_for(self, name: str) -> list[tuple[str, str]]:
        """Transport and type of each question that the server had about a name."""
        return [
            (transport, dns.rdatatype.to_text(query.question[0].rdtype))
            for transport, query in self.server.queries
            if str(query.question[0].name) == name
        ]

    def known(self, address: Any, now: float | None = None) -> KnownKeys | None:
        """What is known by name, as if the reverse zone had nothing."""
        now = time.monotonic() if now is None else now
        self.directory.learn(address, NothingFound(60.0, "none"), now)
        found = self.directory.find(address, now)
        return found if isinstance(found, KnownKeys) else None


@asynccontextmanager
async def stage(
    *, wanted: bool = True, servers: Any = (HOST,), clients: Any = (), **options: Any
) -> AsyncIterator[Stage]:
    async with DnsServer(RECORDS, **options) as server:
        port, trace, directory = free_port(), JsonTrace(None, time.time), KeyDirectory()
        resolver = Resolver([HOST], port=server.port, timeout=0.2, deadline=1.0)
        forwarder = Forwarder(
            (HOST, port),
            servers,
            clients,
            resolver,
            directory,
            trace,
            wanted=lambda: wanted,
            clock=time.monotonic,
            port=server.port,
        )
        await forwarder.start()
        try:
            yield Stage(server, forwarder, directory, trace, port)
        finally:
            await forwarder.close()
            resolver.close()


def drops(trace: JsonTrace) -> dict[str, int]:
    return {
        name.removeprefix("sst.drop."): count
        for name, count in trace.counters.items()
        if ".drop." in name
    }


# ------------------------------------------------------------ questions and answers


@pytest.mark.parametrize("tcp", [False, True])
def test_answers_go_through_unchanged(tcp: bool) -> None:
    async def run() -> None:
        async with stage() as s:
            for name, rdtype in (
                ("plain.example.", "A"),
                (NAME, "TXT"),
                ("www.example.", "AAAA"),
                ("x.", "A"),
            ):
                query = dns.message.make_query(name, rdtype, want_dnssec=True)
                kind = dns.asyncquery.tcp if tcp else dns.asyncquery.udp
                direct = await kind(query, LOOPBACK, 5, port=s.server.port)
                through = await kind(query, LOOPBACK, 5, port=s.port)
                assert through.to_wire() == direct.to_wire()
            assert s.forwarder.snapshot()["questions"] == 4
            assert s.forwarder.snapshot()["under_way"] == 0
            assert not drops(s.trace)

    asyncio.run(run())


def test_edns_and_flags_of_the_host_reach_the_server() -> None:
    async def run() -> None:
        async with stage(wanted=False) as s:
            option = dns.edns.ECSOption("192.0.2.0", 24)
            flags = dns.flags.RD | dns.flags.CD | dns.flags.AD
            await s.ask(
                NAME, use_edns=0, payload=4000, options=[option], flags=flags, want_dnssec=True
            )
            await s.ask(NAME, use_edns=False, flags=0)
            (_, first), (_, second) = s.server.queries
            assert (first.edns, first.payload, first.options) == (0, 4000, (option,))
            assert first.flags == flags
            assert first.ednsflags & dns.flags.DO
            assert (second.edns, second.flags) == (-1, 0)

    asyncio.run(run())


def test_each_question_has_an_id_of_its_own() -> None:
    async def run() -> None:
        async with stage(wanted=False) as s:
            for _ in range(8):
                assert (await s.ask(NAME, id=7)).id == 7
            ids = {query.id for _, query in s.server.queries}
            assert len(ids) > 4, "an ID that the host chose is one that a forger may know"

    asyncio.run(run())


def test_truncated_answers_are_asked_for_again_by_tcp() -> None:
    async def run() -> None:
        async with stage() as s:
            s.server.next("many.example.", Truncate())
            query = dns.message.make_query("many.example.", "TXT")
            answer, by_tcp = await dns.asyncquery.udp_with_fallback(query, LOOPBACK, 5, port=s.port)
            assert by_tcp
            assert len(answer.answer[0]) == 20
            assert s.asked_for("many.example.") == [("udp", "TXT"), ("tcp", "TXT")]

    asyncio.run(run())


def test_several_questions_on_one_connection() -> None:
    async def run() -> None:
        async with stage() as s:
            reader, writer = await asyncio.open_connection(LOOPBACK, s.port)
            queries = [dns.message.make_query(name, "A") for name in (NAME, "plain.example.")]
            for query in queries:
                octets = query.to_wire()
                writer.write(len(octets).to_bytes(2, "big") + octets)
            for query in queries:
                length = int.from_bytes(await reader.readexactly(2), "big")
                answer = dns.message.from_wire(await reader.readexactly(length))
                assert query.is_response(answer)
            assert s.forwarder.snapshot()["connections"] == 1
            writer.close()

    asyncio.run(run())


# ------------------------------------------------------------------ keys by name


def test_sst31_keys_are_known_before_the_host_has_the_address() -> None:
    async def run() -> None:
        async with stage() as s:
            s.server.next(AT_NAME, Delay(0.15))
            await s.ask(NAME)
            known = s.known(BOB)
            assert known is not None
            assert (known.keys, known.source, known.name) == ((KEY,), Source.NAME, "bob.example")
            assert s.known(ip_address("192.2.0.67")) is None, "no record names it"
            assert s.trace.counters["sst.keys_found_by_name"] == 1

    asyncio.run(run())


def test_sst32_by_name_for_either_family_and_transport() -> None:
    async def run() -> None:
        async with stage() as s:
            await s.ask(NAME.upper(), "AAAA", tcp=True)
            known = s.known(BOB6)
            assert known is not None
            assert known.keys == (KEY6,)
            assert s.known(BOB) is None

    asyncio.run(run())


def test_sst32_of_an_alias_the_name_asked_for_comes_first_then_its_target() -> None:
    async def run() -> None:
        async with stage() as s:
            await s.ask("www.example.")
            known = s.known(BOB)
            assert known is not None
            assert known.name == "bob.example"
            assert s.asked_for("_sst.www.example.") == [("udp", "TXT")]
            s.server.records[dns.name.from_text("_sst.web.example.")] = {
                "TXT": [sst_key(BOB, 9).presentation()]
            }
            s.server.records[dns.name.from_text("web.example.")] = {"CNAME": [NAME]}
            s.directory.forget()
            await s.ask("web.example.")
            known = s.known(BOB)
            assert known is not None
            assert known.name == "web.example"

    asyncio.run(run())


def test_sst32_for_a_host_behind_a_gateway_the_reverse_zone_must_confirm_the_name() -> None:
    async def run() -> None:
        async with stage() as s:
            await s.ask("mallet.example.")
            assert s.known(CAROL) is None
            assert drops(s.trace) == {"keys_by_name_not_confirmed": 1}
            await s.ask("carol.example.")
            known = s.known(CAROL)
            assert known is not None
            assert (known.keys, known.name, known.confirmed) == ((BEHIND,), "carol.example", True)
            await s.ask("mallet.example.")
            assert s.known(CAROL) == known

    asyncio.run(run())


def test_keys_are_asked_for_only_where_they_are_wanted() -> None:
    async def run() -> None:
        async with stage(wanted=False) as s:
            await s.ask(NAME)
            assert not s.asked_for(AT_NAME)
        async with stage() as s:
            await s.ask(NAME, "TXT")
            await s.ask(AT_NAME, "A")
            await s.ask(".", "A")
            for odd in ("a b.example.", "*.example.", "x" * 63 + ".example.", "a." * 126):
                await s.ask(odd.replace(" ", "\\032"), "A")
            assert s.asked_for("_sst." + "x" * 63 + ".example.") == [("udp", "TXT")]
            assert len(s.server.queries) == 8
            assert "dnsrecords" not in s.trace.counters
            del s.server.queries[3:]
            names = {str(query.question[0].name) for _, query in s.server.queries}
            assert names == {NAME, AT_NAME, "."}
            assert s.asked_for(AT_NAME) == [("udp", "A")]

    asyncio.run(run())


def test_sst36_a_name_whose_keys_are_silent_delays_its_answer_for_a_moment_only() -> None:
    async def run() -> None:
        async with stage() as s:
            s.server.next(AT_NAME, *[Drop()] * 9)
            began = time.monotonic()
            answer = await s.ask(NAME)
            assert len(answer.answer[0]) == 2
            assert time.monotonic() - began >= module.KEYS_SECONDS
            assert s.forwarder._tasks, "the answer came while the keys are still asked for"
            assert s.known(BOB) is None

    asyncio.run(run())


def test_sst36_a_name_whose_keys_were_silent_is_left_alone_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAX_SILENT", 2)

    async def run() -> None:
        async with stage() as s:
            s.server.next(AT_NAME, *[Drop()] * 3)
            await s.ask(NAME)
            deadline = time.monotonic() + 5
            while not s.forwarder._silent and time.monotonic() < deadline:
                await asyncio.sleep(0.02)
            asked = len(s.asked_for(AT_NAME))
            await s.ask(NAME)
            assert len(s.asked_for(AT_NAME)) == asked
            s.forwarder._silent[NAME.rstrip(".")] = time.monotonic()  # the while is over
            await s.ask(NAME)
            assert s.known(BOB) is not None
            for number in range(3):
                s.server.next(f"_sst.plain{number}.example.", *[Drop()] * 9)
                s.server.records[dns.name.from_text(f"plain{number}.example.")] = {
                    "A": ["192.2.0.9"]
                }
                await s.ask(f"plain{number}.example.")
            while len(s.forwarder._tasks) and time.monotonic() < deadline:
                await asyncio.sleep(0.02)
            assert list(s.forwarder._silent) == ["plain1.example", "plain2.example"]

    asyncio.run(run())


def test_keys_that_come_late_are_taken_all_the_same() -> None:
    async def run() -> None:
        async with stage() as s:
            s.server.next(AT_NAME, *[Delay(module.KEYS_SECONDS + 0.3)] * 9)
            await s.ask(NAME)
            assert s.known(BOB) is None
            deadline = time.monotonic() + 5
            while s.known(BOB) is None and time.monotonic() < deadline:
                await asyncio.sleep(0.02)
            assert s.known(BOB) is not None

    asyncio.run(run())


def test_a_name_without_an_address_teaches_nothing() -> None:
    async def run() -> None:
        async with stage() as s:
            assert (await s.ask("nowhere.example.")).rcode() == dns.rcode.NXDOMAIN
            s.server.next(NAME, Fail(dns.rcode.REFUSED))
            assert (await s.ask(NAME)).rcode() == dns.rcode.REFUSED
            assert s.known(BOB) is None
            assert s.forwarder.snapshot()["names_with_keys"] == 0

    asyncio.run(run())


# --------------------------------------------------------------- servers that fail


def test_sst36_servfail_when_no_server_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DEADLINE", 0.4)

    async def run() -> None:
        async with stage() as s:
            s.server.next(NAME, *[Drop()] * 4)
            answer = await s.ask(NAME, use_edns=0, payload=1400)
            assert answer.rcode() == dns.rcode.SERVFAIL
            assert answer.edns == 0
            assert not answer.answer
            assert drops(s.trace) == {"forwarder_unanswered": 1}
            s.server.next(NAME, *[Drop()] * 4)
            assert (await s.ask(NAME, tcp=True, use_edns=False)).edns == -1
            assert s.forwarder.snapshot()["failures"] == 2

    asyncio.run(run())


def test_sst36_servfail_at_once_where_nobody_listens() -> None:
    async def run() -> None:
        async with stage() as s:
            await s.server.__aexit__(None, None, None)
            began = time.monotonic()
            assert (await s.ask(NAME)).rcode() == dns.rcode.SERVFAIL
            assert (await s.ask(NAME, tcp=True)).rcode() == dns.rcode.SERVFAIL
            assert time.monotonic() - began < module.DEADLINE

    asyncio.run(run())


def test_a_datagram_that_is_lost_is_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oegw.sst.relay.TRY_SECONDS", 0.1)

    async def run() -> None:
        async with stage(wanted=False) as s:
            s.server.next(NAME, Drop())
            assert (await s.ask(NAME)).rcode() == dns.rcode.NOERROR
            assert len(s.asked_for(NAME)) == 2

    asyncio.run(run())


def test_a_dead_server_beside_one_that_answers_ends_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An error that nobody looks at would reach the daemon's handler, which stops everything."""
    monkeypatch.setattr(relay_module, "TRY_SECONDS", 0.01)
    query = DnsQuery.parse(dns.message.make_query(NAME, "A").to_wire())
    dead = [ip_address(f"127.0.0.{last}") for last in range(2, 10)]

    async def check() -> None:
        unseen: list[Any] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, found: unseen.append(found))
        now = asyncio.Event()

        async def attempt(relay: Relay, query: DnsQuery, transport: str, server: Any) -> Any:
            await now.wait()
            if server != HOST:
                raise ConnectionRefusedError
            return server, query.octets

        monkeypatch.setattr(Relay, "_try", attempt)
        relay = Relay([HOST, *dead], port=53, mark=None, deadline=5.0, refused=lambda server: None)
        loop.call_later(0.3, now.set)
        assert await relay.ask(query, "tcp") == query.octets
        await asyncio.sleep(0.01)
        gc.collect()
        assert unseen == []

    asyncio.run(check())


def test_another_server_may_know_better() -> None:
    other = ip_address("127.0.0.2")

    async def run() -> None:
        async with stage(wanted=False, servers=(other, HOST)) as s:
            async with DnsServer(RECORDS, host=str(other), port=s.server.port) as second:
                second.next(NAME, Fail())
                assert (await s.ask(NAME)).rcode() == dns.rcode.NOERROR
                assert len(second.queries) == len(s.server.queries) == 1
                # From now on the one that knew is asked first.
                assert (await s.ask(NAME)).rcode() == dns.rcode.NOERROR
                assert len(second.queries) == 1
                # What all refuse is passed on as they said it.
                second.next(NAME, Fail())
                s.server.next(NAME, Fail(dns.rcode.REFUSED, 18))
                assert (await s.ask(NAME)).rcode() == dns.rcode.SERVFAIL
            # One that is gone costs nothing.
            assert (await s.ask(NAME)).rcode() == dns.rcode.NOERROR

    asyncio.run(run())


@pytest.mark.parametrize("make", [wrong_id, not_a_response, wrong_question, cut_in_half])
def test_forgeries_do_not_end_the_wait(make: Any) -> None:
    async def run() -> None:
        async with stage(wanted=False) as s:
            s.server.next(NAME, Garble(make))
            answer = await s.ask(NAME)
            assert len(answer.answer[0]) == 2
            assert drops(s.trace) == {"forwarder_response_mismatched": 1}

    asyncio.run(run())


def test_the_own_mark_is_on_every_socket_to_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[tuple[int, int]] = []  # sockets that were connected to the server
    places: list[int] = []

    class Spy(socket.socket):
        def close(self) -> None:
            if self.fileno() >= 0 and self.getpeername()[1] in places:
                mark = self.getsockopt(socket.SOL_SOCKET, socket.SO_MARK)
                opened.append((self.type, mark))
            super().close()

    async def run() -> None:
        async with DnsServer(RECORDS) as server:
            places.append(server.port)
            relay = Relay([HOST], port=server.port, mark=0x4F45, deadline=2.0, refused=print)
            query = DnsQuery.parse(dns.message.make_query(NAME, "A").to_wire())
            with monkeypatch.context() as patched:
                patched.setattr(relay_module.socket, "socket", Spy)
                assert await relay.ask(query, "udp") is not None
                assert await relay.ask(query, "tcp") is not None

    asyncio.run(run())
    assert opened == [(socket.SOCK_DGRAM, 0x4F45), (socket.SOCK_STREAM, 0x4F45)]


def test_a_mark_that_is_not_allowed_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    class NoMark(socket.socket):
        def setsockopt(self, *_: Any) -> None:
            raise PermissionError(1, "Operation not permitted")

    async def run() -> None:
        relay = Relay([HOST], port=53, mark=1, deadline=2.0, refused=print)
        query = DnsQuery.parse(dns.message.make_query(NAME, "A").to_wire())
        with monkeypatch.context() as patched:
            patched.setattr(relay_module.socket, "socket", NoMark)
            assert await relay.ask(query, "udp") is None

    asyncio.run(run())


# -------------------------------------------------------------------- who may ask


def test_strangers_get_no_answer() -> None:
    clients = (ip_network("192.1.0.0/24"), ip_network("2001:db8:1::/64"))

    async def run() -> None:
        async with stage(clients=clients) as s:
            admitted = s.forwarder._admitted
            for inside in (
                "192.1.0.65",
                "2001:db8:1::65",
                "127.0.0.1",
                "::1",
                "2001:db8:1::1%eth0",
            ):
                assert admitted((inside, 53)) is not None
            for outside in ("192.1.1.70", "2001:db8:2::1", "0.0.0.0", "fe80::1%eth0", ""):
                assert admitted((outside, 53)) is None
            assert admitted(None) is None
            octets = dns.message.make_query(NAME, "A").to_wire()
            s.forwarder._datagram_received(octets, ("192.1.1.70", 5353))
            await asyncio.sleep(0)
            assert not s.server.queries
            assert drops(s.trace)["forwarder_stranger"] == 5

    asyncio.run(run())


def test_clients_are_the_hosts_inside() -> None:
    inner, inner6 = ip_network("192.1.0.0/24"), ip_network("2001:db8:1::/64")
    outer, outer6 = ip_network("192.1.1.0/24"), ip_network("2001:db8:1:1::/64")
    attached = (inner, outer, inner6, outer6)
    addresses = (ip_address("192.1.1.4"), ip_address("2001:db8:1:1::4"))
    assert clients_of(ip_address("192.1.0.1"), attached, addresses) == (inner, inner6)
    assert clients_of(HOST, attached, addresses) == (inner, inner6)
    one_armed = clients_of(ip_address("192.1.1.4"), attached, addresses)
    assert one_armed == (inner, outer, inner6)


def test_it_listens_on_the_address_given_only() -> None:
    async def run() -> None:
        async with stage() as s:
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.2", s.port)

    asyncio.run(run())


def test_questions_that_are_none() -> None:
    def header(flags: int, questions: int = 1) -> bytes:
        return b"\x12\x34" + flags.to_bytes(2, "big") + questions.to_bytes(2, "big") + bytes(6)

    question = b"\x03bob\x07example\x00\x00\x01\x00\x01"
    axfr = dns.message.make_query(NAME, "AXFR").to_wire()
    cases = [
        (b"", None),
        (b"\x12\x34", None),
        (header(0x8000) + question, None),  # a response: answering it might go on for ever
        (header(0x2800) + question, dns.rcode.NOTIMP),  # an update
        (header(0, 0), dns.rcode.FORMERR),
        (header(0, 2) + question * 2, dns.rcode.FORMERR),
        (header(0) + question[:-2], dns.rcode.FORMERR),
        (header(0) + b"\xc0\x0c\x00\x01\x00\x01", dns.rcode.FORMERR),  # a name that is itself
        (header(0) + question + b"more", dns.rcode.FORMERR),
        (axfr, dns.rcode.REFUSED),
    ]

    async def run() -> None:
        async with stage() as s:
            loop = asyncio.get_running_loop()
            for octets, code in cases:
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                    sock.setblocking(False)
                    await loop.sock_connect(sock, (LOOPBACK, s.port))
                    await loop.sock_sendall(sock, octets)
                    try:
                        async with asyncio.timeout(0.1 if code is None else 5):
                            answer = await loop.sock_recv(sock, 65535)
                    except TimeoutError:
                        assert code is None, octets
                        continue
                    assert answer[:2] == octets[:2]
                    assert answer[2] & 0x80
                    assert answer[3] & 0x0F == code, octets
            assert not s.server.queries
            assert drops(s.trace) == {"forwarder_query_refused": len(cases)}
            assert s.forwarder.snapshot()["under_way"] == 0

    asyncio.run(run())


# -------------------------------------------------------------------------- bounds


def test_one_host_can_not_take_all_the_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_QUESTIONS_OF_ONE", 5)

    async def run() -> None:
        async with stage(wanted=False) as s:
            s.server.next(NAME, *[Delay(0.3)] * 20)
            queries = [dns.message.make_query(NAME, "A") for _ in range(20)]
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.connect((LOOPBACK, s.port))
                for query in queries:
                    sock.send(query.to_wire())
                deadline = time.monotonic() + 5
                while drops(s.trace).get("forwarder_busy", 0) < 15 and time.monotonic() < deadline:
                    await asyncio.sleep(0.01)
                assert drops(s.trace) == {"forwarder_busy": 15}
                assert s.forwarder.snapshot()["under_way"] == 5
                while s.forwarder.snapshot()["under_way"] and time.monotonic() < deadline:
                    await asyncio.sleep(0.01)
                assert len(s.server.queries) == 5
            assert (await s.ask("plain.example.")).rcode() == dns.rcode.NOERROR

    asyncio.run(run())


def test_sockets_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_module, "MAX_SOCKETS", 2)

    async def run() -> None:
        async with stage(wanted=False) as s:
            s.server.next(NAME, *[Delay(0.2)] * 9)
            answers = await asyncio.gather(*(s.ask(NAME) for _ in range(4)))
            codes = sorted(answer.rcode() for answer in answers)
            assert codes == [dns.rcode.NOERROR] * 2 + [dns.rcode.SERVFAIL] * 2
            assert (await s.ask("plain.example.")).rcode() == dns.rcode.NOERROR

    asyncio.run(run())


def test_a_question_repeated_while_it_is_under_way_is_one() -> None:
    async def run() -> None:
        async with stage(wanted=False) as s:
            s.server.next(NAME, Delay(0.2))
            octets = dns.message.make_query(NAME, "A").to_wire()
            loop = asyncio.get_running_loop()
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.setblocking(False)
                await loop.sock_connect(sock, (LOOPBACK, s.port))
                for _ in range(3):
                    await loop.sock_sendall(sock, octets)
                await loop.sock_recv(sock, 65535)
                assert len(s.server.queries) == 1
                await loop.sock_sendall(sock, octets)  # and later it is another one
                await loop.sock_recv(sock, 65535)
                assert len(s.server.queries) == 2

    asyncio.run(run())


def test_connections_are_bounded_and_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_CONNECTIONS_OF_ONE", 3)
    monkeypatch.setattr(module, "IDLE_SECONDS", 0.3)

    async def run() -> None:
        async with stage() as s:
            opened = [await asyncio.open_connection(LOOPBACK, s.port) for _ in range(5)]
            ends = await asyncio.gather(
                *(reader.read() for reader, _ in opened), return_exceptions=True
            )
            assert all(end == b"" or isinstance(end, ConnectionError) for end in ends)
            assert drops(s.trace) == {"forwarder_busy": 2}
            assert s.forwarder.snapshot()["connections"] == 0
            for _, writer in opened:
                writer.close()

    asyncio.run(run())


def test_closed_is_closed() -> None:
    async def run() -> None:
        async with stage() as s:
            s.server.next(NAME, Delay(5))
            asking = asyncio.create_task(s.ask(NAME, tcp=True))
            while not s.asked_for(NAME):
                await asyncio.sleep(0.01)
            await s.forwarder.close()
            with pytest.raises((EOFError, OSError)):
                await asking
            assert s.forwarder.snapshot()["under_way"] == 0
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection(LOOPBACK, s.port)

    asyncio.run(run())


def test_an_address_that_can_not_be_listened_on_is_named() -> None:
    def made(where: Any, port: int, server_port: int = 53) -> Forwarder:
        return Forwarder(
            (ip_address(where), port),
            [HOST],
            (),
            Resolver([HOST]),
            KeyDirectory(),
            JsonTrace(None, time.time),
            wanted=lambda: True,
            clock=time.monotonic,
            port=server_port,
        )

    async def run() -> None:
        async with stage() as s:
            with pytest.raises(SstError, match=rf"sst.forwarder: 127.0.0.1 port {s.port}: "):
                await made(LOOPBACK, s.port).start()
        with pytest.raises(SstError, match=r"sst.forwarder: 192.0.2.1 port 5300: "):
            await made("192.0.2.1", 5300).start()
        with pytest.raises(SstError, match="one of our own resolvers"):
            await made(LOOPBACK, 53).start()

    asyncio.run(run())


# --------------------------------------------------------------------- a real server


def test_sst32_before_a_real_server(tmp_path: Path) -> None:
    records = {
        "example.": [
            "ns.example. A 127.0.0.1",
            f"{NAME} A {BOB}",
            f"{AT_NAME} TXT {KEY.presentation()}",
        ]
    }

    async def run(server: Named) -> None:
        port, trace, directory = free_port(), JsonTrace(None, time.time), KeyDirectory()
        forwarder = Forwarder(
            (HOST, port),
            [HOST],
            (),
            Resolver([HOST], port=server.port),
            directory,
            trace,
            wanted=lambda: True,
            clock=time.monotonic,
            port=server.port,
        )
        await forwarder.start()
        try:
            for kind in (dns.asyncquery.udp, dns.asyncquery.tcp):
                query = dns.message.make_query(NAME, "A", want_dnssec=True)
                direct = await kind(query, LOOPBACK, 5, port=server.port)
                through = await kind(query, LOOPBACK, 5, port=port)
                assert through.answer == direct.answer
                assert (through.flags, through.edns) == (direct.flags, direct.edns)
                directory.learn(BOB, NothingFound(60.0, "none"), time.monotonic())
                known = directory.find(BOB, time.monotonic())
                assert isinstance(known, KnownKeys)
                assert known.keys == (KEY,)
                directory.forget()
        finally:
            await forwarder.close()

    with Named(tmp_path, ["example."], records) as server:
        asyncio.run(run(server))
