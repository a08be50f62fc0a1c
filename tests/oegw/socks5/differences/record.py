"""What each server is heard to do, in all cases at the same time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

from tests.oegw.socks5.clients.bed import BOB, Bed
from tests.oegw.socks5.differences.cases import CASES, FAR, NOWHERE, UNREACHABLE
from tests.oegw.socks5.differences.talk import NEIGHBOUR, Over, Talk
from tests.support.intercept_net import enter

Heard = Mapping[str, list[str]]  # by the case's name


def prepare(bed: Bed) -> None:
    """Routes, and the neighbour's address."""
    for kind, addresses in ("unreachable", UNREACHABLE), ("throw", NOWHERE):
        for family, address in addresses.items():
            bed.net.run(bed.net.gateway, "ip", f"-{family}", "route", "add", kind, address)
    # Bob's host forwards what reaches it with no hop left: it says that the time has expired.
    bed.net.run(bed.net.outside, "sysctl", "-qw", "net.ipv4.ip_forward=1")
    far = ["ip", "route", "add", FAR, "via", BOB["4"], "hoplimit", "1"]
    bed.net.run(bed.net.gateway, *far)
    bed.net.run(bed.net.inside, "ip", "addr", "add", f"{NEIGHBOUR}/24", "dev", "in0")


def played(bed: Bed, names: list[str] | None = None) -> Heard:
    """All cases, side by side: most of what they do is wait."""
    wanted = names or list(CASES)
    with ThreadPoolExecutor(max_workers=24) as pool:
        return dict(zip(wanted, pool.map(lambda name: _one(bed, CASES[name]), wanted), strict=True))


def _one(bed: Bed, work: Callable[[Talk], None]) -> list[str]:
    enter(bed.net.inside)
    talk = Talk(bed)
    try:
        work(talk)
    except Over:
        pass
    finally:
        talk.close()
    return talk.heard
