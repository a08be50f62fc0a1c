"""Two routers that boot: an encrypted ping, a reload, a gateway that hangs, power cuts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.deploy.machine import await_true
from tests.deploy.site import ALICE, BOB, PLACES, Q, Site
from tests.support.intercept_net import Capture

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(600)]

PATIENCE = 60.0  # seconds until a tunnel is there after a boot, on a busy machine
_LATE = "[Service]\nExecStartPre=/bin/sh -c 'until [ -e /run/go ]; do sleep 0.05; done'\n"
_CHATTER = f"""
[Unit]
Description=Traffic of the box itself, from the moment that it has an address
DefaultDependencies=no
StartLimitIntervalSec=0
[Service]
ExecStart=/bin/ping -q -i 0.05 {BOB}
Restart=always
RestartSec=50ms
[Install]
WantedBy=sysinit.target
"""


def clear(capture: Capture) -> list[bytes]:
    """What crossed the Internet between the hosts, or from a router to a host, as it is."""
    allowed = bytes(map(int, Q.split(".")))
    return [p for p in capture.to(ALICE) + capture.to(BOB) if p[12:16] != allowed]


def await_ping(site: Site) -> None:
    await_true(lambda: site.ping("alice", BOB, seconds=1), "a ping comes back", PATIENCE)


@contextmanager
def traffic(site: Site) -> Iterator[Capture]:
    """Alice pings Bob, whose network is protected, and Q, whom the policy lets pass."""
    capture = site.capture()
    with site.pinging("alice", BOB), site.pinging("alice", Q):
        yield capture
    capture.close()


def test_the_guard_needs_no_mount_namespace(site: Site) -> None:
    """That early in a boot one may fail to be made: status=226/NAMESPACE, and nothing is kept."""
    wanted = site.a.run("systemctl cat oegw-guard")
    taking = ("ProtectSystem=", "ProtectHome=", "ProtectKernel", "Private", "ReadWritePaths=")
    assert [line for line in wanted.splitlines() if line.startswith(taking)] == []


def reboot_after_a_power_cut(site: Site) -> None:
    site.cut_power("a")
    site.boot("a", wait=False)


def go(site: Site) -> None:
    """The gateway of router a, which has not run since the boot, starts."""
    await_true(
        lambda: site.a.says("systemctl show -P SubState oegw") == "start-pre",
        "the gateway waits", PATIENCE,
    )  # fmt: skip
    site.a.run("touch /run/go")
    site.a.await_boot()
    assert is_active(site)


def is_active(site: Site) -> bool:
    return site.a.says("systemctl is-active oegw") == "active"


def test_the_tunnel_carries_the_ping(site: Site) -> None:
    with traffic(site) as capture:
        await_ping(site)
        assert clear(capture) == []
        assert capture.to(Q)  # the capture sees what is there
    [tunnel] = [
        line for line in site.a.run("oegw status").splitlines() if line.startswith("keyed")
    ]  # fmt: skip
    assert BOB in tunnel


def test_systemd_knows_how_it_is(site: Site) -> None:
    await_ping(site)
    shown = site.a.run("systemctl show oegw -p Type -p SubState -p StatusText -p WatchdogUSec")
    facts = dict(line.split("=", 1) for line in shown.splitlines())
    assert (facts["Type"], facts["SubState"]) == ("notify", "running")
    assert "datapath" in facts["StatusText"]
    assert facts["WatchdogUSec"] == "30s"


def test_a_reload_is_waited_for_and_a_wrong_one_fails_with_the_reason(site: Site) -> None:
    before = site.a.says("systemctl show -P MainPID oegw")
    site.a.run("systemctl reload oegw")
    right = site.a.read("/etc/oegw/oegw.toml")
    site.a.write("/etc/oegw/oegw.toml", right + "nonsense = 1\n")
    try:
        assert site.a.attempt("systemctl reload oegw").returncode != 0
        assert "nonsense" in site.a.journal()
    finally:
        site.a.write("/etc/oegw/oegw.toml", right)
    site.a.run("systemctl reload oegw")
    assert is_active(site)
    assert site.a.says("systemctl show -P MainPID oegw") == before
    await_ping(site)


def test_a_gateway_that_hangs_is_started_again(site: Site) -> None:
    """SIGSTOP stands for whatever keeps the event loop from its turn."""
    drop_in = "/etc/systemd/system/oegw.service.d"
    site.a.write(f"{drop_in}/soon.conf", "[Service]\nWatchdogSec=3\nTimeoutStopSec=3\n")
    site.a.run("systemctl daemon-reload && systemctl restart oegw")
    try:
        before = site.a.says("systemctl show -P MainPID oegw")
        with traffic(site) as capture:
            await_ping(site)
            site.a.run("systemctl kill --signal=STOP oegw")
            await_true(
                lambda: is_active(site)
                and site.a.says("systemctl show -P MainPID oegw") not in (before, "0"),
                "it is started again", PATIENCE,
            )  # fmt: skip
            await_ping(site)
            assert clear(capture) == []
        assert "watchdog" in site.a.says("journalctl --no-pager -u oegw").lower()
    finally:
        site.a.run(f"rm -r {drop_in}; systemctl daemon-reload")
        site.a.run("systemctl restart oegw")


@pytest.fixture
def late(site: Site) -> Iterator[None]:
    """Router a talks itself, and its gateway waits for `go`: time to leak in."""
    site.a.write("/etc/systemd/system/oegw.service.d/late.conf", _LATE)
    site.a.write("/etc/systemd/system/chatter.service", _CHATTER)
    site.a.run("systemctl enable chatter")
    site.a.run("systemctl daemon-reload")
    yield
    site.a.run("systemctl disable --now chatter; rm -r /etc/systemd/system/oegw.service.d")
    site.a.run("systemctl daemon-reload")


@pytest.mark.usefixtures("late")
def test_nothing_protected_leaves_in_clear_after_a_power_cut(site: Site) -> None:
    await_ping(site)
    site.a.run("chown oegw: /var/lib/oegw")  # as it is where the gateway is not root
    with traffic(site) as capture:
        reboot_after_a_power_cut(site)
        already = len(capture.to(Q))
        await_true(lambda: len(capture.to(Q)) > already + 5, "what may pass does", PATIENCE)
        go(site)
        await_ping(site)
        assert clear(capture) == []
    assert "in force" in site.a.journal("oegw-guard")


@pytest.mark.usefixtures("late")
def test_without_the_guard_it_would(site: Site) -> None:
    """Or the test before could not fail."""
    await_ping(site)
    site.a.run("systemctl mask oegw-guard")
    try:
        with traffic(site) as capture:
            reboot_after_a_power_cut(site)
            leaky = {bytes(map(int, a.split("."))) for a in (ALICE, PLACES["a"].outer)}
            await_true(lambda: {packet[12:16] for packet in capture.to(BOB)} == leaky, "a leak")
            go(site)
    finally:
        site.a.run("systemctl unmask oegw-guard")
    await_ping(site)


@pytest.mark.usefixtures("late")
def test_with_a_damaged_guard_nothing_is_forwarded_before_the_gateway_is_ready(site: Site) -> None:
    await_ping(site)
    guard = site.a.root / "var/lib/oegw/guard.nft"
    guard.write_bytes(guard.read_bytes()[:300])
    with traffic(site) as capture:
        reboot_after_a_power_cut(site)
        already = len(capture.to(Q))
        counter = "nft list counter inet oegw guard_dropped"
        await_true(
            lambda: re.search(r"packets [1-9]\d\d", site.a.says(counter)),
            "packets want to pass, and may not", PATIENCE,
        )  # fmt: skip
        assert "closed_forward" in site.a.run("nft list table inet oegw")
        assert len(capture.to(Q)) == already
        go(site)
        await_true(lambda: len(capture.to(Q)) > already, "it passes", PATIENCE)
        await_ping(site)
        assert clear(capture) == []
    assert guard.read_text().endswith("# complete\n")
