"""The key of a host, from the DNS (MK-16)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

import pytest

from oegw.moniker.library import hostkey
from oegw.moniker.library.errors import NotEncrypted
from oegw.moniker.library.hostkey import HostKeys
from tests.support.dns_server import LOOPBACK, DnsServer, Drop, Fail, Records
from tests.support.sst_keys import public_key, sst_key

HOST = ip_address("192.0.2.23")
REVERSE = "23.2.0.192.in-addr.arpa."
NAMED = "_sst.theforce.net."
GATEWAY = ip_address("192.0.2.1")


def txt(*keys: Any) -> dict[str, list[str]]:
    return {"TXT": [each.presentation() for each in keys]}


def names_asked(server: DnsServer) -> list[str]:
    return [query.question[0].name.to_text() for _, query in server.queries]


def asked(
    records: Records, host: str = "theforce.net", spoil: Callable[[DnsServer], None] | None = None
) -> tuple[bytes | None, list[str]]:
    """The key that is found, and the names that were asked for."""

    async def run() -> tuple[bytes | None, list[str]]:
        async with DnsServer(records) as server:
            if spoil is not None:
                spoil(server)
            keys = HostKeys((ip_address(LOOPBACK),), server.port)
            found = await keys.look_up(host, HOST, 5.0)
            assert await keys.look_up(host, HOST, 5.0) == found  # remembered
            return found, names_asked(server)

    return asyncio.run(run())


def test_the_owner_of_the_address_is_asked_first() -> None:
    records = {REVERSE: txt(sst_key(HOST, 1)), NAMED: txt(sst_key(HOST, 2))}
    assert asked(records) == (public_key(1), [REVERSE])


def test_and_then_the_name() -> None:
    assert asked({NAMED: txt(sst_key(HOST, 2))}) == (public_key(2), [REVERSE, NAMED])


def test_an_address_has_no_name_to_ask_for() -> None:
    for host in ("192.0.2.23", "2001:db8::1", "fe80::1%lo", "a..b", "x" * 300):
        assert asked({}, host) == (None, [REVERSE])


def test_a_key_of_the_gateway_in_front_is_none_of_the_host() -> None:
    records = {REVERSE: txt(sst_key(GATEWAY, 1)), NAMED: txt(sst_key(GATEWAY, 1))}
    assert asked(records)[0] is None
    records = {REVERSE: txt(sst_key(GATEWAY, 1, precedence=1), sst_key(HOST, 3, precedence=2))}
    assert asked(records)[0] == public_key(3)


def test_a_record_that_can_not_be_read_ends_it() -> None:
    with pytest.raises(NotEncrypted, match=r"theforce\.net \(192\.0\.2\.23\): its key can't"):
        asked({REVERSE: {"TXT": ['"X-SST-Key(10)=192.0.2.23 1 !!"']}})


@pytest.mark.parametrize("spoiled", [Fail(), Drop()])
def test_a_dns_that_says_nothing_has_no_key(spoiled: Any) -> None:
    async def run() -> bytes | None:
        async with DnsServer({REVERSE: txt(sst_key(HOST, 1))}) as server:
            server.next(REVERSE, *[spoiled] * 20)
            keys = HostKeys((ip_address(LOOPBACK),), server.port)
            return await keys.look_up("192.0.2.23", HOST, 0.3)

    assert asyncio.run(run()) is None


def test_it_is_remembered_for_a_while_and_not_beyond(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> list[str]:
        async with DnsServer({}) as server:
            keys = HostKeys((ip_address(LOOPBACK),), server.port)
            for _ in range(2):
                await keys.look_up("192.0.2.23", HOST, 5.0)
            now = time.monotonic()
            monkeypatch.setattr(hostkey.time, "monotonic", lambda: now + 3601)
            await keys.look_up("192.0.2.23", HOST, 5.0)
            monkeypatch.setattr(hostkey, "MAX_KEYS", 1)
            await keys.look_up("theforce.net", HOST, 5.0)
            assert len(keys._known) == 1
            keys.forget()
            return names_asked(server)

    assert asyncio.run(run()) == [REVERSE, REVERSE, REVERSE, NAMED]


def test_calls_that_wait_and_calls_within_a_loop() -> None:
    async def run() -> None:
        async with DnsServer({REVERSE: txt(sst_key(HOST, 1))}) as server:
            where = (ip_address(LOOPBACK),), server.port
            waiting = asyncio.to_thread(HostKeys(*where).find, "theforce.net", HOST, 5.0)
            assert await waiting == public_key(1)
            # A call that waits, in a coroutine: it stands still, and so would the server in this
            # loop; it is there all the same, and ends when its time is over.
            assert HostKeys(*where).find("theforce.net", HOST, 0.05) is None

    asyncio.run(run())


def test_the_loop_of_the_caller_is_left_alone() -> None:
    """One that is not running, and was set aside for later."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        assert HostKeys((ip_address(LOOPBACK),), 1).find("192.0.2.23", HOST, 0.05) is None
        assert asyncio.get_event_loop_policy().get_event_loop() is loop
    finally:
        asyncio.set_event_loop(None)
        loop.close()


ENCRYPTED = """
import asyncio, socket, subprocess, sys, threading, time
from ipaddress import ip_address
from pathlib import Path
from oegw import moniker
from oegw.moniker.daemon.service import Daemon
from oegw.moniker.library import client
from oegw.moniker.settings import MonikerSettings
from oegw.sst.keys import generate
from oegw.trace import JsonTrace
from dnsrecords.sstkey import SstKey
from tests.support.dns_server import DnsServer

folder = Path(sys.argv[1])
here = ip_address("192.0.2.23")
subprocess.run("ip addr add 192.0.2.23/32 dev lo", shell=True, check=True)
(folder / "resolv.conf").write_text("nameserver 127.0.0.1\\n")
subprocess.run(["mount", "--bind", folder / "resolv.conf", "/etc/resolv.conf"], check=True)
key = generate(folder / "sst.pem")
record = SstKey(10, here, 1, key.public).presentation()
running = threading.Event()

async def run():
    async with DnsServer({"23.2.0.192.in-addr.arpa.": {"TXT": [record]}}, port=53):
        daemon = Daemon(MonikerSettings(private_key=folder / "sst.pem"), JsonTrace(None, time.time))
        await daemon.start()
        running.set()
        await asyncio.Event().wait()

threading.Thread(target=lambda: asyncio.run(run()), daemon=True).start()
running.wait(10)
tap = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
tap.bind(("lo", 0))
tap.settimeout(0.2)

def packets():
    seen = b""
    try:
        while True:
            seen += tap.recv(65535)
    except TimeoutError:
        return seen

with moniker.serve("starwars") as service:
    port = str(service.reveal_port()).encode()
    for encrypt in ("prefer", "require", "never"):
        client.answers.forget_all()
        with moniker.connect("192.0.2.23", "starwars", encrypt=encrypt) as session:
            seen = packets()
            print(encrypt, session.encrypted, b"MON/1" in seen, b"starwars" in seen, port in seen)
"""


@pytest.mark.netns
def test_the_wire_has_neither_the_name_nor_the_port(box: Any, tmp_path: Any) -> None:
    """The daemon, the DNS and the client in a box; then what was on its wire: a question; the
    name; the port.  In clear, all are seen."""
    assert box.run("-c", ENCRYPTED, tmp_path).splitlines() == [
        "prefer True True False False",
        "require True True False False",
        "never False True True True",
    ]
