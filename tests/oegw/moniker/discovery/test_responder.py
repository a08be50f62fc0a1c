"""The responder over real sockets of this host, and gateways that ask each other (MK-20)."""

from __future__ import annotations

import asyncio
import base64
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import dns.message
import dns.name
import pytest

from dnsrecords.dnssd import (
    Asked,
    Code,
    Content,
    Labels,
    Place,
    Pointer,
    Record,
    Reply,
    Start,
    Text,
    ask,
)
from dnsrecords.published import TsigKey
from oegw.moniker.discovery import export as export_module
from oegw.moniker.discovery import responder as responder_module
from oegw.moniker.discovery.browsing import Neighbours, Peer, PeerUnusable, ask_all, find
from oegw.moniker.discovery.export import Export
from oegw.moniker.discovery.responder import MAX_CONNECTIONS_OF_ONE, NotListening
from oegw.moniker.interface import Entry
from oegw.moniker.names import ServiceName
from oegw.moniker.settings import ExportSettings, Found, MonikerSettings
from oegw.trace import JsonTrace
from tests.support.moniker_entries import entry

LOOPBACK = ip_address("127.0.0.1")
TYPE = ("_starwars", "_tcp", "site-b", "example")


def key_file(folder: Path, name: str = "a.b", secret: bytes = b"of both") -> Path:
    path = folder / f"{name}.key"
    text = base64.b64encode(secret * 5).decode()
    path.write_text(f'key "{name}" {{ algorithm hmac-sha256; secret "{text}"; }};\n')
    path.chmod(0o600)
    return path


class Site:
    """A daemon's export, listening somewhere."""

    def __init__(self, *entries: Entry, **export: Any) -> None:
        export = {"zone": "site-b.example", "listen": ((LOOPBACK, 0),), **export}
        self.entries = list(entries)
        self.peers = export.get("peers", ())
        self.trace = JsonTrace(None, lambda: 0.0)
        settings = MonikerSettings(export=ExportSettings(**export))
        self.export = Export(settings, lambda: self.entries, self.trace)

    @property
    def port(self) -> int:
        return self.export.places[0][1]

    @property
    def drops(self) -> Counter[str]:
        return Counter(
            {
                name.removeprefix("moniker.drop."): count
                for name, count in self.trace.counters.items()
                if name.startswith("moniker.drop.")
            }
        )


@asynccontextmanager
async def running(*sites: Site) -> AsyncIterator[None]:
    for site in sites:
        await site.export.start()
    try:
        yield
    finally:
        for site in sites:
            await site.export.close()


def played(play: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(20):
            await play()

    asyncio.run(bounded())


async def by_udp(site: Site, octets: bytes) -> bytes:
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.connect(("127.0.0.1", site.port))
        await loop.sock_sendall(sock, octets)
        async with asyncio.timeout(5):
            return await loop.sock_recv(sock, 65535)


async def by_tcp(site: Site, *questions: Asked) -> list[Reply]:
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    replies = []
    for question in questions:
        writer.write(len(question.octets).to_bytes(2, "big") + question.octets)
        length = int.from_bytes(await reader.readexactly(2), "big")
        replies.append(question.read(await reader.readexactly(length)))
    writer.close()
    await writer.wait_closed()
    return replies


def test_a_question_by_udp_gets_no_longer_answer_and_tcp_tells_all() -> None:
    """MK-27; several questions over one connection (RFC 7766)."""
    site = Site(entry(port=28403))

    async def play() -> None:
        async with running(site):
            asked = ask(TYPE, "SRV", 7)
            short = await by_udp(site, asked.octets)
            assert len(short) <= len(asked.octets)
            assert short[2] & 0x02, "TC: ask by TCP"
            place, browsed = await by_tcp(site, asked, ask(TYPE, "PTR", 8))
            content = place.answers[0].content
            assert isinstance(content, Place)
            assert content.port == 28403
            assert isinstance(browsed.answers[0].content, Pointer)

    played(play)


def test_a_question_of_strangers_costs_little_however_much_there_is() -> None:
    """By UDP nothing is written that has no room; by TCP each answer once."""
    site = Site(*(entry(text=("x=" + "y" * 200,)) for _ in range(256)), public=True)

    async def play() -> None:
        async with running(site):
            responder = site.export._responder
            assert responder is not None
            octets = ask(TYPE, "PTR", 7).octets
            source = ip_address("198.51.100.7")

            async def seconds(by_udp: bool) -> float:
                start = time.process_time()
                assert await responder.answer(octets, source, by_udp=by_udp)
                return time.process_time() - start

            first = await seconds(by_udp=False)
            assert min([await seconds(by_udp=False) for _ in range(9)]) < first / 4
            assert min([await seconds(by_udp=True) for _ in range(9)]) < first / 4

    played(play)


def test_a_service_that_ends_is_gone_within_a_second() -> None:
    """MK-22, in the DNS."""
    site = Site(entry(), entry("chess"))

    async def play() -> None:
        async with running(site):
            assert (await by_tcp(site, ask(TYPE, "PTR", 7)))[0].code is Code.NOERROR
            del site.entries[0]
            async with asyncio.timeout(3):
                while (await by_tcp(site, ask(TYPE, "PTR", 7)))[0].code is not Code.NXDOMAIN:
                    await asyncio.sleep(0.1)

    played(play)


def test_what_changes_has_a_later_serial(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_module, "LOOK_SECONDS", 0.0)
    site = Site(entry(), entry("chess"))
    first = site.export.zone()
    assert site.export.zone() is first, "nothing has changed"
    del site.entries[0]
    start, later = first.records()[0].content, site.export.zone().records()[0].content
    assert isinstance(start, Start)
    assert isinstance(later, Start)
    assert later.serial > start.serial


def test_so_many_services_are_told_and_no_more() -> None:
    site = Site(*(entry(port=1025 + n) for n in range(export_module.MAX_EXPORTED + 9)))
    assert site.export.snapshot()["services"] == export_module.MAX_EXPORTED
    assert site.drops["discovery_too_many"] == 1


def test_only_what_is_exported_is_told() -> None:
    site = Site(entry(exported=False), entry("x" * 63), entry("chess"))

    async def play() -> None:
        async with running(site):
            types = await by_tcp(site, ask(("_services", "_dns-sd", "_udp", *TYPE[2:]), "PTR", 7))
            assert [r.content.target[0] for r in types[0].answers] == ["_chess"]  # type: ignore[union-attr]
        assert site.drops["discovery_name_long"] == 1

    played(play)


def test_a_peer_finds_services_by_name_and_version_and_content(tmp_path: Path) -> None:
    key = key_file(tmp_path)
    peers = (Found("site-a.example", LOOPBACK, key),)
    site = Site(
        entry(port=50001, text=("episode=4",)),
        entry(version="2", port=50002, namespace="reynolds"),
        entry("chess", transport="udp", port=50003),
        peers=peers,
        host="bob.lab.example",
    )

    async def play() -> None:
        async with running(site):
            peer = Peer(Found("site-b.example", LOOPBACK, key, site.port))
            found = await find(peer, ServiceName.parse("starwars"))
            assert {each.uri() for each in found} == {
                "starwars@1://bob.lab.example",
                "reynolds::starwars@2://bob.lab.example",
            }
            assert [each.port for each in found if each.says(["episode=4"])] == [50001]
            ours = await find(peer, ServiceName.parse("reynolds::starwars@>=2"))
            assert [each.port for each in ours] == [50002]
            assert await find(peer, ServiceName.parse("starwars@3")) == []
            assert [e.port for e in await find(peer, ServiceName.parse("chess"), "udp")] == [50003]
            assert await find(peer, ServiceName.parse("chess"), "tcp") == []

    played(play)


def test_strangers_wrong_keys_and_wrong_places_get_nothing(tmp_path: Path) -> None:
    """A signed question that was overheard is of no use elsewhere: the address counts as well."""
    key = key_file(tmp_path)
    far = (Found("site-a.example", ip_address("192.0.2.1"), key),)
    site = Site(entry(), peers=far)

    async def play() -> None:
        async with running(site):
            peer = Peer(Found("site-b.example", LOOPBACK, key, site.port))
            with pytest.raises(PeerUnusable, match="REFUSED: it has another zone"):
                await find(peer, ServiceName.parse("starwars"))
            elsewhere = tmp_path / "elsewhere"
            elsewhere.mkdir()
            wrong = key_file(elsewhere, "a.b", b"another")
            peer = Peer(Found("site-b.example", LOOPBACK, wrong, site.port))
            with pytest.raises(PeerUnusable, match="NOTAUTH: it has another key"):
                await find(peer, ServiceName.parse("starwars"))
        assert site.drops["discovery_key_misplaced"] == 2, "of the two types"
        assert site.drops["dnssd_question_unproven"] == 2

    played(play)


def test_who_is_not_of_this_host_is_refused_unless_it_is_public() -> None:
    async def play() -> None:
        for public, code in ((False, Code.REFUSED), (True, Code.NOERROR)):
            site = Site(entry(), public=public)
            async with running(site):
                asked = ask(TYPE, "PTR", 7)
                responder = site.export._responder
                assert responder is not None
                stranger = ip_address("198.51.100.7")
                reply = await responder.answer(asked.octets, stranger, by_udp=False)
                assert reply is not None
                assert asked.read(reply).code is code
            assert site.drops["discovery_stranger"] == (not public)

    played(play)


def test_a_gateway_asks_its_hosts_inside_and_they_ask_the_gateways_outside(tmp_path: Path) -> None:
    """alice -> SG-A -> SG-B -> bob, by one question of hers: nobody asks in a circle."""
    outer, of_alice, of_bob = (key_file(tmp_path, name) for name in ("ab", "alice", "bob"))

    async def play() -> None:
        bob = Site(entry(port=50001, text=("episode=4",)), zone="bob.example", host="bob.example",
                   peers=(Found("site-b.example", LOOPBACK, of_bob),))  # fmt: skip
        await bob.export.start()
        sg_b = Site(entry("chess", port=50002), zone="site-b.example", host="sg-b.example", peers=(
            Found("site-a.example", LOOPBACK, outer),
            Found("bob.example", LOOPBACK, of_bob, bob.port, inside=True),
        ))  # fmt: skip
        await sg_b.export.start()
        sg_a = Site(entry("starwars", "3", port=50003), zone="site-a.example", host="sg-a.example",
            peers=(
                Found("site-b.example", LOOPBACK, outer, sg_b.port),
                Found("alice.example", LOOPBACK, of_alice, inside=True),
            ),
        )  # fmt: skip
        await sg_a.export.start()
        try:
            at_b = Peer(Found("site-b.example", LOOPBACK, outer, sg_b.port))
            found = await find(at_b, ServiceName.parse("starwars"))
            assert [(each.uri(), each.port) for each in found] == [
                ("starwars@1://bob.example", 50001)
            ]
            assert found[0].says(["episode=4"])
            at_a = Peer(Found("site-a.example", LOOPBACK, of_alice, sg_a.port))
            both, problems = await ask_all([at_a], ServiceName.parse("starwars"))
            assert [each.uri() for each in both] == [
                "starwars@3://sg-a.example",
                "starwars@1://bob.example",
            ]
            assert problems == []
            services = ("_services", "_dns-sd", "_udp", "site-b", "example")
            types = await at_b.asked(services, "PTR", recursion=True)
            assert {r.content.target for r in types.answers} == {  # type: ignore[union-attr]
                ("_starwars", "_tcp", "site-b", "example"),
                ("_chess", "_tcp", "site-b", "example"),
            }
            alone = await at_b.asked(services, "PTR", recursion=False)
            assert len(alone.answers) == 1
        finally:
            for site in (sg_a, sg_b, bob):
                await site.export.close()

    played(play)


def test_a_gateway_outside_does_not_make_us_ask_another(tmp_path: Path) -> None:
    """Else three that agreed with each other would ask in a circle."""
    key = key_file(tmp_path)

    class Third(Peer):
        async def asked(self, *_: object, **__: object) -> Reply:
            pytest.fail("was asked")

    async def play() -> None:
        asker = Peer(Found("site-a.example", LOOPBACK, key))
        third = Third(Found("site-c.example", ip_address("192.0.2.1"), key))
        neighbours = Neighbours([asker, third], pytest.fail)
        assert await neighbours.asked(asker, TYPE[2:], TYPE, "PTR") is None

    played(play)


def test_a_neighbour_that_is_gone_costs_only_its_own_services(tmp_path: Path) -> None:
    outer, of_bob = key_file(tmp_path, "ab"), key_file(tmp_path, "bob")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        gone = closed.getsockname()[1]
        site = Site(entry(), peers=(
            Found("site-a.example", LOOPBACK, outer),
            Found("bob.example", LOOPBACK, of_bob, gone, inside=True),
        ))  # fmt: skip

        async def play() -> None:
            async with running(site):
                peers = [
                    Peer(Found("site-b.example", LOOPBACK, outer, port))
                    for port in (site.port, gone)
                ]
                found, problems = await ask_all(peers, ServiceName.parse("starwars"))
                assert len(found) == 1
                assert len(problems) == 1
                assert "127.0.0.1" in problems[0]
            assert site.drops["peer_unusable"] == 2, "of the two types"

        played(play)


def test_a_host_that_is_silent_costs_only_its_own_services(tmp_path: Path) -> None:
    """alice -> SG-A -> SG-B -> bob, which is switched off: each step waits less than the last."""
    outer, of_alice, of_bob = (key_file(tmp_path, name) for name in ("ab", "alice", "bob"))

    async def play() -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            sg_b = Site(entry(port=50002), host="sg-b.example", peers=(
                Found("site-a.example", LOOPBACK, outer),
                Found("bob.example", LOOPBACK, of_bob, silent.getsockname()[1], inside=True),
            ))  # fmt: skip
            async with running(sg_b):
                sg_a = Site(entry("starwars", "3"), zone="site-a.example", host="sg-a.example",
                    peers=(
                        Found("site-b.example", LOOPBACK, outer, sg_b.port),
                        Found("alice.example", LOOPBACK, of_alice, inside=True),
                    ),
                )  # fmt: skip
                async with running(sg_a):
                    at_a = Peer(Found("site-a.example", LOOPBACK, of_alice, sg_a.port))
                    found, problems = await ask_all([at_a], ServiceName.parse("starwars"))
        assert problems == []
        assert [each.host for each in found] == ["sg-a.example", "sg-b.example"]

    played(play)


def test_keys_of_one_name_are_told_apart_by_the_gateways_address(tmp_path: Path) -> None:
    """`tsig-keygen` calls each of them tsig-key."""
    near, far = tmp_path / "near", tmp_path / "far"
    near.mkdir()
    far.mkdir()
    ours, theirs = key_file(near, "tsig-key"), key_file(far, "tsig-key", b"another")
    for peers in (
        (Found("site-a.example", LOOPBACK, ours), Found("c", ip_address("192.0.2.1"), theirs)),
        (Found("c", ip_address("192.0.2.1"), theirs), Found("site-a.example", LOOPBACK, ours)),
    ):
        site = Site(entry(), peers=peers)

        async def play(site: Site = site) -> None:
            async with running(site):
                peer = Peer(Found("site-b.example", LOOPBACK, ours, site.port))
                assert len(await find(peer, ServiceName.parse("starwars"))) == 1

        played(play)


def test_a_peer_can_ask_for_a_name_that_nobody_could_have(tmp_path: Path) -> None:
    """Octets that are no UTF-8 become longer in our hands than a label may be."""
    key = key_file(tmp_path)
    site = Site(entry(), peers=(
        Found("site-a.example", LOOPBACK, key),
        Found("bob.example", ip_address("127.0.0.2"), key, inside=True),
    ))  # fmt: skip

    async def play() -> None:
        async with running(site):
            octets = bytearray(ask(("x" * 40, *TYPE[1:]), "PTR", 7, recursion=True).octets)
            octets[13:53] = b"\xff" * 40
            query = dns.message.from_wire(bytes(octets))
            query.use_tsig({dns.name.from_text("a.b"): Peer(site.peers[0]).key.secret})
            responder = site.export._responder
            assert responder is not None
            reply = await responder.answer(query.to_wire(), LOOPBACK, by_udp=False)
            assert reply is not None
            assert reply[3] & 0xF == Code.NXDOMAIN
        assert site.drops["peer_unusable"] == 1

    played(play)


def test_the_zone_of_a_host_may_be_below_its_gateways(tmp_path: Path) -> None:
    """bob.site-b.example below site-b.example, as who has just one domain calls it."""
    outer, of_bob = key_file(tmp_path, "ab"), key_file(tmp_path, "bob")

    async def play() -> None:
        bob = Site(entry(port=50001), zone="bob.site-b.example", host="bob.site-b.example",
                   peers=(Found("site-b.example", LOOPBACK, of_bob),))  # fmt: skip
        async with running(bob):
            sg_b = Site(peers=(
                Found("site-a.example", LOOPBACK, outer),
                Found("bob.site-b.example", LOOPBACK, of_bob, bob.port, inside=True),
            ))  # fmt: skip
            async with running(sg_b):
                at_b = Peer(Found("site-b.example", LOOPBACK, outer, sg_b.port))
                (found,) = await find(at_b, ServiceName.parse("starwars"))
                assert (found.uri(), found.port) == ("starwars@1://bob.site-b.example", 50001)
                assert found.addresses == (LOOPBACK,)
                place = await at_b.asked(
                    ("starwars 1 on bob", "_starwars", "_tcp", "bob", *TYPE[2:]),
                    "SRV", recursion=True,
                )  # fmt: skip
                assert len(place.answers) == 1

    played(play)


def test_a_neighbour_speaks_for_its_own_names_only(tmp_path: Path) -> None:
    ours, theirs = ("site-b", "example"), ("bob", "example")
    kind = ("_starwars", "_tcp")
    false = Place(0, 0, 666, ("mallory", "example"))

    class Mallory(Peer):
        async def asked(
            self, name: Labels, rdtype: str, *, recursion: bool, seconds: float = 0.0
        ) -> Reply:
            assert (name, rdtype, recursion) == ((*kind, *theirs), "PTR", False)
            return Reply(
                Code.NOERROR,
                (
                    Record(name, 10, Pointer(("true", *kind, *theirs))),
                    Record(name, 10, Pointer(("false", *kind, *ours))),
                    Record(("www", "example"), 10, false),
                ),
                (),
                (
                    Record(("true", *kind, *theirs), 10, Place(0, 0, 7, theirs)),
                    Record(("False", *kind, "Site-B", "example"), 10, false),
                    Record((*kind, *theirs), 10, Pointer(("false", *kind, *ours))),
                ),
            )

    async def play() -> None:
        key = key_file(tmp_path)
        mallory = Mallory(Found("bob.example", LOOPBACK, key, inside=True))
        asker = Peer(Found("site-a.example", LOOPBACK, key))
        neighbours = Neighbours([asker, mallory], lambda text: None)
        reply = await neighbours.asked(asker, ours, (*kind, *ours), "PTR")
        assert reply is not None
        assert [record.content for record in reply.answers] == [Pointer(("true", *kind, *theirs))]
        assert [record.owner[0] for record in reply.additional] == ["true"]

    played(play)


def test_what_does_not_come_along_is_asked_for(tmp_path: Path) -> None:
    zone, kind = ("bob", "example"), ("_starwars", "_tcp")
    asked: list[tuple[str, str]] = []

    class Terse(Peer):
        async def asked(
            self, name: Labels, rdtype: str, *, recursion: bool, seconds: float = 0.0
        ) -> Reply:
            asked.append((name[0], rdtype))
            contents: dict[tuple[str, str], list[Content]] = {
                ("_starwars", "PTR"): [Pointer((word, *kind, *zone)) for word in ("one", "gone")],
                ("one", "SRV"): [Place(0, 0, 7, zone)],
                ("one", "TXT"): [Text((b"version=3",))],
            }
            records = [Record(name, 10, each) for each in contents.get((name[0], rdtype), [])]
            return Reply(Code.NOERROR, tuple(records))

    async def play() -> None:
        terse = Terse(Found("bob.example", LOOPBACK, key_file(tmp_path)))
        (found,) = await find(terse, ServiceName.parse("starwars"), "tcp")
        assert found.uri() == "starwars@3://bob.example"
        assert set(asked[1:]) == {(w, t) for w in ("one", "gone") for t in ("SRV", "TXT")}

    played(play)


def test_who_asks_too_much_is_not_answered_and_others_are() -> None:
    site = Site(entry(), public=True)

    async def play() -> None:
        async with running(site):
            responder = site.export._responder
            assert responder is not None
            octets = ask(TYPE, "PTR", 7).octets
            for by_udp in (True, False):
                loud = [
                    await responder.answer(octets, ip_address("198.51.100.7"), by_udp=by_udp)
                    for _ in range(1000)
                ]
                assert loud[0] is not None
                assert loud[-1] is None
                other = ip_address("198.51.100.8")
                assert await responder.answer(octets, other, by_udp=by_udp) is not None
        assert site.drops["discovery_rate"] > 1000

    played(play)


def test_neighbours_are_asked_for_so_many_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others are told what we have ourselves."""
    monkeypatch.setattr(responder_module, "MAX_UNDER_WAY", 2)
    outer, of_bob = key_file(tmp_path, "ab"), key_file(tmp_path, "bob")

    async def play() -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            site = Site(entry(), peers=(
                Found("site-a.example", LOOPBACK, outer),
                Found("bob.example", LOOPBACK, of_bob, silent.getsockname()[1], inside=True),
            ))  # fmt: skip
            async with running(site):
                peer = Peer(Found("site-b.example", LOOPBACK, outer, site.port))
                asked = [peer.asked(TYPE, "PTR", recursion=True) for _ in range(5)]
                assert all(len(reply.answers) == 1 for reply in await asyncio.gather(*asked))
            assert site.drops["discovery_busy"] == 3

    played(play)


def test_who_is_silent_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(responder_module, "IDLE_SECONDS", 0.1)
    site = Site(entry())

    async def play() -> None:
        async with running(site):
            reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
            writer.write(b"\x00")
            async with asyncio.timeout(5):
                assert await reader.read() == b""
            writer.close()

    played(play)


def test_one_source_pushes_out_its_own_connections_only() -> None:
    site = Site(entry())

    async def play() -> None:
        async with running(site):
            crowd = [
                await asyncio.open_connection("127.0.0.1", site.port)
                for _ in range(MAX_CONNECTIONS_OF_ONE + 4)
            ]
            async with asyncio.timeout(5):
                while site.drops["discovery_connections"] < 4:
                    await asyncio.sleep(0.01)
            assert site.export.snapshot()["connections"] == MAX_CONNECTIONS_OF_ONE
            for _, writer in crowd:
                writer.close()

    played(play)


def test_slow_and_malformed_connections_leave_room_for_others() -> None:
    site = Site(entry())

    async def play() -> None:
        async with running(site):
            slow = [
                await asyncio.open_connection("127.0.0.1", site.port)
                for _ in range(MAX_CONNECTIONS_OF_ONE - 1)
            ]
            for number, (_, writer) in enumerate(slow):
                writer.write(b"\xff\xff" if number % 2 else b"\x00")
            assert (await by_tcp(site, ask(TYPE, "PTR", 7)))[0].code is Code.NOERROR
            await by_udp(site, b"\x00\x07\x00\x00" + b"\x00\x02" + bytes(30))
            for reader, writer in slow:
                writer.close()
                del reader
        assert site.drops["dnssd_question_malformed"] >= 1

    played(play)


def test_an_address_that_is_taken_is_told_with_its_key() -> None:
    async def play() -> None:
        first = Site(entry())
        async with running(first):
            second = Site(entry(), listen=((LOOPBACK, first.port),))
            with pytest.raises(NotListening, match=r"moniker\.export\.listen: 127\.0\.0\.1"):
                await second.export.start()
            await second.export.close()

    played(play)


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    key = key_file(tmp_path)
    key.chmod(0o644)
    with pytest.raises(PeerUnusable, match="0644"):
        Peer(Found("site-b.example", LOOPBACK, key))
    empty = tmp_path / "empty"
    empty.write_text("")
    empty.chmod(0o600)
    with pytest.raises(PeerUnusable, match="empty: is not of the form"):
        Peer(Found("site-b.example", LOOPBACK, empty))


def test_the_key_is_in_no_repr(tmp_path: Path) -> None:
    key = Peer(Found("site-b.example", LOOPBACK, key_file(tmp_path))).key
    assert isinstance(key, TsigKey)
    assert "of both" not in repr(key)
