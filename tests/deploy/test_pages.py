"""The how-tos, run as they stand where the tutorial has ended; and what each has promised."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from oegw.arguments import DOCUMENTATION
from tests.deploy.crossing import Crossed, crossing
from tests.deploy.machine import Machine, await_true
from tests.deploy.site import BOB
from tests.deploy.tutorial import run_tutorial
from tests.deploy.wholesite import WholeSite

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(600)]

_AS_IT_WAS = """
rm -rf /etc/oegw/oegw.d/* /etc/systemd/system/oegw.service.d
systemctl daemon-reload
systemctl restart oegw
nft delete table inet oegw_moniker 2>/dev/null || true
"""
_TCP = 6
_SSH = (22).to_bytes(2, "big")


@pytest.fixture
def place(whole_site: WholeSite, crossed: Crossed) -> Iterator[WholeSite]:
    """As the tutorial has left it."""
    assert crossed.encrypted
    yield whole_site
    for router in (whole_site.a, whole_site.b):
        router.run(_AS_IT_WAS)


def read(name: str, site: WholeSite) -> Crossed:
    """What crossed the Internet while somebody did what the page says."""
    with crossing(site) as crossed:
        run_tutorial((DOCUMENTATION / f"howto-{name}.md").read_text(), site)
    return crossed


def alice(site: WholeSite) -> Machine:
    return site.machines["alice"]


def test_a_branch_office_has_its_tunnel_and_nothing_else(place: WholeSite) -> None:
    assert read("configured", place).clear == []
    with crossing(place) as crossed:
        alice(place).run(f"ping -c 3 -i 0.2 -W 5 {BOB}")
    assert crossed.clear == []
    assert min(len(packets) for packets in crossed.encrypted.values()) >= 3
    place.b.run("systemctl stop oegw")
    with crossing(place) as crossed:
        assert alice(place).attempt(f"ping -c 3 -i 0.2 -W 1 {BOB}").returncode != 0
    assert crossed.clear == []


def test_ports_are_hidden(place: WholeSite) -> None:
    """In the second connection, whose first packet waits for nothing."""
    read("sst", place)
    with crossing(place) as crossed:
        alice(place).run(f"ssh {BOB} true")
    connection = [packet for packet in crossed.clear if packet[9] == _TCP]
    assert len(connection) > 10
    assert not any(_SSH in (packet[20:22], packet[22:24]) for packet in connection)
    assert any(b"SSH-2.0" in packet for packet in connection)  # it is that connection


def test_an_inner_host_comes_by_the_socks_server(place: WholeSite) -> None:
    """Bob sees the router.  Both routers are on one network here, which is let pass as it is."""
    assert read("socks", place).clear == []
    assert "192.1.1.4" in place.machines["bob"].says("journalctl --no-pager -u www -o cat")
    place.machines["bob"].run("systemctl stop www")


def test_a_service_is_found_by_name_behind_a_closed_firewall(place: WholeSite) -> None:
    assert read("moniker", place).clear == []
    assert not place.ping("alice", BOB)  # all else is denied
    assert "bob" in place.b.run("oegw moniker status")
    place.machines["bob"].run("systemctl stop web moniker")
    await_true(
        lambda: alice(place).attempt("oegw moniker query bob.example http").returncode != 0,
        "the service is gone",
    )  # fmt: skip
