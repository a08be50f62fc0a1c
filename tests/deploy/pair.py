"""Two routers for Alice, the draft's SG-A and SG-D, with keepalived as `oegw/docs/operating.md`
has it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.deploy.conftest import configure, install
from tests.deploy.machine import await_true
from tests.deploy.root import package
from tests.deploy.site import ALICE, PLACES, Site

PAGE = Path(__file__).resolve().parents[2] / "oegw/docs/operating.md"
SECONDS = 60.0
_FIRST, _SECOND = "priority 150", "priority 100"
_FILE = "/etc/keepalived/keepalived.conf"


def example() -> str:
    """The configuration in the page, of the first router."""
    [found] = re.findall(r"^```keepalived\n(.*?)^```", PAGE.read_text(), re.M | re.S)
    assert _FIRST in found
    return str(found)


def moving_address() -> str:
    [found] = re.findall(r"virtual_ipaddress \{\s*([\d.]+)/24", example())
    return str(found)


def is_router(site: Site, name: str) -> bool:
    """Whether the hosts' router is this one."""
    return f" {moving_address()}/" in site.machines[name].says("ip -o address show in0")


def await_router(site: Site, name: str) -> None:
    await_true(lambda: is_router(site, name), f"{name} is the router", SECONDS)


@contextmanager
def pair(site: Site) -> Iterator[None]:
    """Router d is there as well, and Alice sends by whichever of both has the moving address."""
    with site.spare() as spare:
        install(spare, package())
        records = configure(site, "d", precedence=20)
        site.b.run(f"oegw forget {ALICE}")  # it may have asked before there were these records
        spare.run("systemctl start oegw")
        for name, priority in (("a", _FIRST), ("d", _SECOND)):
            site.machines[name].write(_FILE, example().replace(_FIRST, priority))
        for name in ("a", "d"):
            site.machines[name].run("systemctl start keepalived")
        await_router(site, "a")
        await_true(lambda: not is_router(site, "d"), "there is one router", SECONDS)
        site.within("alice", "ip", "route", "replace", "default", "via", moving_address())
        try:
            yield
        finally:
            site.within("alice", "ip", "route", "replace", "default", "via", PLACES["a"].inner)
            site.a.run(f"systemctl stop keepalived; rm {_FILE}")
            site.withdraw(records)
