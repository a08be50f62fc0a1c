"""What the kernel tells of, and what its filters keep from us."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Awaitable, Callable

import pytest

from oegw.intercept.nft import Nft
from oegw.powers.lookout import Lookout
from oegw.powers.orders import KernelChanged
from tests.support.own_network import ip, own_network

pytestmark = pytest.mark.netns

MADE = (
    "add table inet ours; add map inet ours m { type ipv4_addr : verdict; }; "
    "add chain inet ours c; add rule inet ours c accept"
)


def sh(command: str) -> None:
    subprocess.run(["bash", "-c", command], check=True, timeout=20)


def heard(work: Callable[[], None]) -> list[KernelChanged]:
    """What is told of ``work``, once a change that is told of follows."""

    async def listen() -> list[KernelChanged]:
        told: list[KernelChanged] = []
        lookout = Lookout(told.append)
        try:
            await turns()
            told.clear()
            work()
            await turns()
            return told
        finally:
            lookout.close()

    return asyncio.run(listen())


def turns() -> Awaitable[None]:
    """The kernel tells within the call that changes something: a few turns are enough."""
    return asyncio.sleep(0.02)


def test_who_takes_rules_away_is_named() -> None:
    with own_network():
        sh(f"nft '{MADE}'")
        [told] = heard(lambda: sh("nft flush ruleset"))
        assert (told.rules, told.deleted) == (True, True)
        assert told.author.startswith("nft (process ")
        [told] = heard(lambda: sh("nft add table inet other"))
        assert (told.rules, told.deleted) == (True, False)


def test_elements_and_own_verdicts_are_not_told() -> None:
    with own_network():
        nft = Nft()
        nft.run(MADE)

        def elements() -> None:
            nft.run("add element inet ours m { 1.2.3.4 : accept }")
            sh("nft 'add element inet ours m { 1.2.3.5 : accept }'")
            nft.run("delete element inet ours m { 1.2.3.4 }")
            nft.run("flush map inet ours m")

        assert heard(elements) == []
        nft.close()


@pytest.mark.parametrize(
    "change",
    ["rule del priority 45", "route flush table 4500", "link set far down", "link del far",
     "addr flush dev far"],
)  # fmt: skip
def test_what_is_taken_from_routing_is_told(change: str) -> None:
    with own_network():
        ip("link", "add", "far", "type", "veth", "peer", "name", "farther")
        for words in (
            "link set far up",
            "addr add 10.3.0.1/24 dev far",
            "route add unreachable default table 4500",
            "rule add priority 45 lookup 4500",
        ):
            ip(*words.split())
        assert KernelChanged(False, True, "") in heard(lambda: ip(*change.split()) and None)


def test_a_routers_routes_are_not_told() -> None:
    with own_network():

        def routes() -> None:
            for number in range(20):
                ip("route", "add", f"10.4.{number}.0/24", "dev", "lo")
            ip("route", "flush", "proto", "boot")

        assert heard(routes) == []
