"""hosts(5), the DNS and Moniker, asked for clients of the SOCKS server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from ipaddress import ip_address
from math import inf
from pathlib import Path
from typing import Any

import pytest

from dnsrecords.resolver import Resolver
from oegw.hostsfile import HostsFile
from oegw.moniker.settings import ClientSettings, ServiceRule
from oegw.socks5.codes import ReplyCode
from oegw.socks5.terms import Refused
from oegw.socksresolver import MONIKER_KEPT, SocksResolver, is_ours
from tests.support.dns_server import DnsServer, Fail
from tests.support.moniker_daemon import RunningDaemon, bound_socket, port_of, running

BOB, BOB6 = ip_address("192.2.0.66"), ip_address("2001:db8::66")
ZONE = {
    "bob.example.": {"A": ["192.2.0.66"], "AAAA": ["2001:db8::66"]},
    "four.example.": {"A": ["192.2.0.67"]},
    "66.0.2.192.in-addr.arpa.": {"PTR": ["eve.example.", "bob.example."]},
    "67.0.2.192.in-addr.arpa.": {"PTR": ["bob.example."]},
}


@asynccontextmanager
async def resolving(
    tmp_path: Path, **options: Any
) -> AsyncIterator[tuple[SocksResolver, DnsServer]]:
    async with DnsServer(ZONE) as server:
        dns = Resolver([ip_address("127.0.0.1")], port=server.port, timeout=0.5, tries=1)
        hosts = tmp_path / "hosts"
        hosts.write_text("192.2.0.99 carol.example carol\n")
        options = {"confirm": True, "daemon": tmp_path / "none.sock", **options}
        yield SocksResolver(dns, hosts=HostsFile(hosts), **options), server
        dns.close()


def refusal(tmp_path: Path, ask: Callable[[SocksResolver], Coroutine[Any, Any, Any]]) -> Refused:
    async def scenario() -> Refused:
        async with resolving(tmp_path) as (resolver, _):
            with pytest.raises(Refused) as refused:
                await ask(resolver)
            return refused.value

    return asyncio.run(scenario())


def test_names_of_the_dns(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with resolving(tmp_path) as (resolver, _):
            found = await resolver.resolve("Bob.Example.", "tcp")
            assert set(found.addresses) == {BOB, BOB6}
            assert 0 < found.seconds < inf
            assert found.port is None
            found = await resolver.resolve("four.example", "udp")
            assert found.addresses == (ip_address("192.2.0.67"),)

    asyncio.run(scenario())


def test_what_needs_no_dns(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with resolving(tmp_path) as (resolver, server):
            for name, addresses in (
                ("192.0.2.9", ("192.0.2.9",)),
                ("2001:db8::9", ("2001:db8::9",)),
                ("CAROL", ("192.2.0.99",)),
                ("localhost", ("::1", "127.0.0.1")),
                ("a.localhost.", ("::1", "127.0.0.1")),
            ):
                found = await resolver.resolve(name, "tcp")
                assert found.addresses == tuple(map(ip_address, addresses))
            assert await resolver.name_of(ip_address("192.2.0.99")) == "carol.example"
            assert not server.queries

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("name", "code", "reason"),
    [
        ("eve.example", ReplyCode.HOST_UNREACHABLE, "no_such_name"),
        ("a b", ReplyCode.INVALID_ADDRESS, "name_unreadable"),
        ("fe80::1%lo", ReplyCode.INVALID_ADDRESS, "name_unreadable"),
        ("starwars://theforce.net:22", ReplyCode.NOT_ALLOWED, "moniker_port"),
        ("starwars.eve.example.mon", ReplyCode.HOST_UNREACHABLE, "moniker_unreachable"),
        ("starwars.127.0.0.1.mon", ReplyCode.HOST_UNREACHABLE, "moniker_unreachable"),
        ("starwars.localhost.mon", ReplyCode.HOST_UNREACHABLE, "moniker_unreachable"),
        ("starwars.a.b.mon.mon", ReplyCode.HOST_UNREACHABLE, "moniker_unreachable"),
    ],
)
def test_refusals_have_a_code_and_a_word(
    tmp_path: Path, name: str, code: ReplyCode, reason: str
) -> None:
    refused = refusal(tmp_path, lambda resolver: resolver.resolve(name, "tcp"))
    assert (refused.code, refused.reason) == (code, reason)


def test_a_dns_that_says_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with resolving(tmp_path) as (resolver, server):
            server.next("bob.example.", Fail(), Fail())
            with pytest.raises(Refused) as refused:
                await resolver.resolve("bob.example", "tcp")
            assert refused.value.code is ReplyCode.HOST_UNREACHABLE
            assert refused.value.reason == "dns_unanswered"

    asyncio.run(scenario())


def test_a_reverse_name_counts_if_it_leads_back(tmp_path: Path) -> None:
    other = ip_address("192.2.0.67")

    async def scenario() -> None:
        async with resolving(tmp_path) as (resolver, _):
            assert await resolver.name_of(BOB) == "bob.example"
            with pytest.raises(Refused) as refused:
                await resolver.name_of(other)
            assert refused.value.reason == "reverse_name_unconfirmed"
            with pytest.raises(Refused) as refused:
                await resolver.name_of(ip_address("192.2.0.68"))
            assert refused.value.reason == "no_reverse_name"
            assert refused.value.code is ReplyCode.HOST_UNREACHABLE
        async with resolving(tmp_path, confirm=False) as (resolver, _):
            assert await resolver.name_of(other) == "bob.example"

    asyncio.run(scenario())


# ---------------------------------------------------------------------------- Moniker


def by_moniker(tmp_path: Path, daemon: RunningDaemon, name: str, transport: str = "tcp") -> Any:
    """What the name comes to, with services on loopback: `is_ours` would not let them be asked."""

    async def scenario() -> Any:
        options = {"question_port": daemon.port, "daemon": daemon.settings.socket}
        async with resolving(tmp_path, ours=lambda _: False, **options) as (resolver, _):
            return await resolver.resolve(name, transport)

    return asyncio.run(scenario())


def test_a_service_by_its_name(tmp_path: Path) -> None:
    with running(tmp_path) as daemon, daemon.application() as application:
        sock = bound_socket()
        application.register("starwars", bound=sock)
        for name in ("starwars.127.0.0.1.mon", f"starwars://127.0.0.1:{daemon.port}"):
            found = by_moniker(tmp_path, daemon, name)
            assert found.addresses == (ip_address("127.0.0.1"),)
            assert found.port == port_of(sock)
            assert found.seconds == daemon.settings.lease
        with pytest.raises(Refused) as refused:
            by_moniker(tmp_path, daemon, "starwars@2.localhost.mon")
        assert refused.value.reason == "moniker_unknown"
        with pytest.raises(Refused) as refused:
            by_moniker(tmp_path, daemon, "starwars.localhost.mon", "udp")
        assert refused.value.code is ReplyCode.HOST_UNREACHABLE
        sock.close()


def test_nobody_asks_for_clients_that_have_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that asks for ever more services and leaves would have us ask without end."""
    under_way = 0

    async def silence(*_: Any, **__: Any) -> None:
        nonlocal under_way
        under_way += 1
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            under_way -= 1

    monkeypatch.setattr("oegw.socksresolver.resolve", silence)

    async def scenario() -> None:
        async with resolving(tmp_path) as (resolver, _):

            async def asked(name: str) -> None:
                with suppress(TimeoutError):
                    async with asyncio.timeout(0.02):
                        await resolver.resolve(name, "tcp")

            before = len(asyncio.all_tasks())
            await asyncio.gather(*(asked(f"s{n}.bob.example.mon") for n in range(200)))
            assert len(asyncio.all_tasks()) == before
            assert under_way == 0
            other = asyncio.create_task(resolver.resolve("s.bob.example.mon", "tcp"))
            await asked("s.bob.example.mon")
            assert under_way == 1  # somebody waits still
            other.cancel()

    asyncio.run(scenario())


def test_who_asks_for_the_same_service_shares_the_answer(tmp_path: Path) -> None:
    now = 1000.0
    with running(tmp_path) as daemon, daemon.application() as application:
        sock = bound_socket()
        application.register("starwars", bound=sock)

        def answered() -> int:
            counters: dict[str, int] = application.ask("status")["status"]["counters"]
            return counters["question.moniker_answered"]

        async def scenario() -> None:
            nonlocal now
            async with resolving(
                tmp_path, ours=lambda _: False, question_port=daemon.port,
                daemon=daemon.settings.socket, clock=lambda: now,
            ) as (resolver, _):  # fmt: skip
                name = "starwars.127.0.0.1.mon"
                found = await asyncio.gather(*(resolver.resolve(name, "tcp") for _ in range(20)))
                assert {each.port for each in found} == {port_of(sock)}
                await resolver.resolve("starwars://127.0.0.1/x", "tcp")
                assert answered() == 1
                now += MONIKER_KEPT
                await resolver.resolve(name, "tcp")
                assert answered() == 2
                for _ in range(2):
                    with pytest.raises(Refused):
                        await resolver.resolve("stargate.127.0.0.1.mon", "tcp")

        asyncio.run(scenario())
        sock.close()


def test_a_service_that_this_hosts_policy_forbids(tmp_path: Path) -> None:
    rule = ServiceRule(False, "telnet")
    with (
        running(tmp_path, client=ClientSettings((rule,))) as daemon,
        pytest.raises(Refused) as refused,
    ):
        by_moniker(tmp_path, daemon, "telnet.127.0.0.1.mon")
    assert (refused.value.code, refused.value.reason) == (ReplyCode.NOT_ALLOWED, "moniker_denied")


@pytest.mark.parametrize(
    ("text", "ours"),
    [
        ("127.0.0.1", True), ("::1", True), ("::ffff:127.0.0.1", True), ("0.0.0.0", True),
        ("169.254.1.1", True), ("fe80::1", True), ("224.0.0.1", True), ("ff02::1", True),
        ("192.0.2.1", False), ("2001:db8::1", False),
    ],
)  # fmt: skip
def test_which_addresses_are_ours(text: str, ours: bool) -> None:
    assert is_ours(ip_address(text)) is ours
