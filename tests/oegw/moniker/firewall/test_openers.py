"""The Opener twins, and what `Firewalls` makes of the settings."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address

import pytest

from oegw.moniker.firewall.firewalls import Firewalls
from oegw.moniker.firewall.gatewaylink import AskGateway
from oegw.moniker.firewall.openers import AllOf, NoFirewall
from oegw.moniker.firewall.ownfirewall import OwnFirewall
from oegw.moniker.interface import Lease, LeaseRefused, Opening, Place
from oegw.moniker.settings import (
    FirewallSettings,
    GatewayInFront,
    HostSettings,
    MonikerSettings,
)
from oegw.sst.statickey import StaticKey
from oegw.trace import JsonTrace

LEASE = Lease(ip_address("10.9.0.2"), ip_address("10.1.0.2"), "tcp", 4711, 60, "starwars")
KEY = StaticKey(bytes(range(32)))
GATEWAY = GatewayInFront(ip_address("10.1.0.1"), KEY.public)
BOB = HostSettings("bob", (ip_address("10.1.0.2"),), KEY.public)
ALICE = HostSettings("alice", (ip_address("10.1.0.3"),), namespaces=("alice",))
PLACE = Place("tcp", 4711)
DENY = FirewallSettings(deny=True, outside=("eth0",))


class Recorded(NoFirewall):
    """Says what it was told to say, and remembers what it was asked."""

    def __init__(self, opening: Opening | None) -> None:
        self.opening = opening
        self.calls: list[object] = []

    async def start(self) -> None:
        self.calls.append("start")

    async def close(self) -> None:
        self.calls.append("close")

    async def guard(self, place: Place) -> None:
        self.calls.append(("guard", place))

    async def open(self, lease: Lease) -> Opening:
        self.calls.append(lease)
        if self.opening is None:
            raise LeaseRefused("busy", "no more")
        return self.opening

    async def end(self, place: Place) -> None:
        self.calls.append(("end", place))


def made(**settings: object) -> Firewalls:
    async def body() -> Firewalls:
        key = settings.pop("key", KEY)
        return Firewalls(MonikerSettings(**settings), key=key, trace=JsonTrace(None, lambda: 0.0))

    return asyncio.run(body())


def test_without_a_firewall_a_lease_is_a_time() -> None:
    assert asyncio.run(NoFirewall().open(LEASE)) == Opening(4711, 60)


def test_a_port_is_open_when_all_have_opened_it() -> None:
    own, gateway = Recorded(Opening(4711, 60)), Recorded(Opening(9999, 30))
    both = AllOf([own, gateway])

    async def play() -> None:
        await both.start()
        await both.guard(PLACE)
        assert await both.open(LEASE) == Opening(9999, 30)
        await both.end(PLACE)
        await both.close()

    asyncio.run(play())
    expected = ["start", ("guard", PLACE), LEASE, ("end", PLACE), "close"]
    assert own.calls == gateway.calls == expected


def test_one_that_refuses_refuses_for_all() -> None:
    last = Recorded(Opening(1, 1))
    with pytest.raises(LeaseRefused, match="no more"):
        asyncio.run(AllOf([Recorded(None), last]).open(LEASE))
    assert last.calls == []


def test_what_is_made_of_the_settings() -> None:
    bare = made()
    assert isinstance(bare.opener, NoFirewall)
    assert (bare.desk, bare.directory) == (None, None)

    host = made(gateway=GATEWAY)
    assert isinstance(host.opener, AskGateway)

    careful = made(gateway=GATEWAY, firewall=DENY)
    assert isinstance(careful.opener, AllOf)

    gateway = made(firewall=DENY, hosts=(BOB,))
    assert isinstance(gateway.opener, OwnFirewall)
    assert gateway.desk is not None
    assert gateway.directory is None

    directory = made(hosts=(ALICE,))
    assert isinstance(directory.opener, OwnFirewall)
    assert directory.desk is None
    assert directory.directory is not None


def test_without_a_key_nobody_is_asked() -> None:
    """The configuration refuses that; the daemon would otherwise say `gateway` for ever."""
    keyless = made(gateway=GATEWAY, hosts=(BOB,), key=None)
    assert isinstance(keyless.opener, OwnFirewall)
    assert keyless.desk is None


def test_a_reload_says_what_it_can_not_do() -> None:
    async def play() -> list[str]:
        bare = Firewalls(MonikerSettings(), key=KEY, trace=JsonTrace(None, lambda: 0.0))
        return await bare.reload(MonikerSettings(hosts=(BOB, ALICE)))

    notes = asyncio.run(play())
    assert len(notes) == 2
    assert all("next restart" in note for note in notes)
