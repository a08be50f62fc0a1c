"""The table of `oegw/docs/trust.md`: what dies under traffic, what leaks, what is lost, how long.

One site for all rows, one after the other: each begins when the one before is over and its traffic
flows both ways.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.deploy.machine import Machine, await_true
from tests.deploy.pair import await_router, pair
from tests.deploy.root import package
from tests.deploy.site import Site
from tests.deploy.trust import Outcome, Traffic, Trial

PAGE = Path(__file__).resolve().parents[2] / "oegw/docs/trust.md"
PATIENCE = 60.0  # seconds until all is well again, on a busy machine

Event = Callable[[Site], None]


@dataclass(frozen=True, slots=True)
class Row:
    """``event``: does it, and returns when what has to come back of itself has.  ``seconds``: no
    longer than this without a packet; 0 if none may be lost."""

    name: str
    event: Event
    seconds: float = 30.0


def main_pid(machine: Machine) -> str:
    return machine.says("systemctl show -P MainPID oegw")


def is_active(machine: Machine) -> bool:
    return machine.says("systemctl is-active oegw") == "active"


def processes(machine: Machine) -> dict[str, int]:
    """By name, as the gateway says."""
    rows = json.loads(machine.run("oegw status --json"))["processes"]
    return {row["name"]: row["pid"] for row in rows}


def killed(process: str, router: str = "a") -> Event:
    """A process of the gateway without which it ends: systemd starts it again."""

    def event(site: Site) -> None:
        machine = site.machines[router]
        before = main_pid(machine)
        machine.run(f"kill -KILL {processes(machine)[process]}")
        await_true(
            lambda: main_pid(machine) not in (before, "0") and is_active(machine),
            "systemd has started it again", PATIENCE,
        )  # fmt: skip

    return event


def worker_killed(name: str) -> Event:
    """One that the gateway starts again."""

    def event(site: Site) -> None:
        before = processes(site.a)
        site.a.run(f"kill -KILL {before[name]}")
        await_true(
            lambda: processes(site.a).get(name, before[name]) != before[name],
            "there is another one", PATIENCE,
        )  # fmt: skip
        assert processes(site.a)["mind"] == before["mind"]

    return event


def nothing(site: Site) -> None:
    """What the method itself loses."""


def terminated(site: Site) -> None:
    """A clean end, so systemd leaves it at that."""
    site.a.run(f"kill -TERM {main_pid(site.a)}")
    await_true(lambda: site.a.says("systemctl is-active oegw") == "inactive", "it ends", PATIENCE)
    site.a.run("systemctl start oegw")


def hung_up(site: Site) -> None:
    site.a.run(f"kill -HUP {main_pid(site.a)}")
    await_true(lambda: is_active(site.a), "it goes on", PATIENCE)


def upgraded(site: Site) -> None:
    before = site.a.says("dpkg-query -W -f '${Version}' oegw")
    site.a.run("dpkg --install /root/newer.deb 2>&1", 300)
    assert site.a.says("dpkg-query -W -f '${Version}' oegw") != before
    await_true(lambda: is_active(site.a), "it is started again", PATIENCE)


def command(line: str) -> Event:
    def event(site: Site) -> None:
        site.a.run(line)

    return event


def power_cut(*names: str) -> Event:
    """All of these, and booted at once."""

    def event(site: Site) -> None:
        for name in names:
            site.cut_power(name)
        site.boot(*names, wait=False)
        for name in names:
            machine = site.machines[name]
            await_true(lambda machine=machine: is_active(machine), f"{name} is up", PATIENCE)
            assert "in force" in machine.journal("oegw-guard")

    return event


ROWS = (
    Row("nothing at all", nothing, 0.0),
    Row("SIGHUP", hung_up, 0.0),
    Row("`systemctl reload`", command("systemctl reload oegw"), 0.0),
    Row("SIGKILL of an ESP worker, inbound", worker_killed("opening 0")),
    Row("SIGKILL of an ESP worker, outbound", worker_killed("sealing 0")),
    Row("SIGKILL of the signer", killed("signer")),
    Row("SIGKILL of the mind", killed("mind")),
    Row("SIGKILL of the hands, the first process", killed("hands")),
    Row("SIGKILL of the far router's hands", killed("hands", "b")),
    Row("SIGTERM, then `systemctl start`", terminated),
    Row("`systemctl stop`, then `start`", command("systemctl stop oegw; systemctl start oegw")),
    Row("`systemctl restart`", command("systemctl restart oegw")),
    Row("upgrade, `dpkg --install`", upgraded),
    Row("power cut, and boot", power_cut("a")),
    Row("power cut of the far router, and boot", power_cut("b")),
    Row("power cut of both, and boot", power_cut("a", "b")),
)


def router_after(line: str, name: str) -> Event:
    """Something on router a, after which the hosts' router is this one."""

    def event(site: Site) -> None:
        site.a.run(line)
        await_router(site, name)

    return event


def cable(name: str, *, into: bool) -> Event:
    def event(site: Site) -> None:
        site.plug("a", "net", into=into)
        await_router(site, name)

    return event


def power_off(site: Site) -> None:
    site.cut_power("a")
    await_router(site, "d")


def power_on(site: Site) -> None:
    site.boot("a", wait=False)
    await_router(site, "a")


PAIR_ROWS = (
    Row("keepalived stopped on SG-A: to SG-D", router_after("systemctl stop keepalived", "d")),
    Row("keepalived started again: back to SG-A", router_after("systemctl start keepalived", "a")),
    Row("gateway stopped on SG-A: to SG-D", router_after("systemctl stop oegw", "d")),
    Row("gateway started again: back to SG-A", router_after("systemctl start oegw", "a")),
    Row("outer cable of SG-A pulled: to SG-D", cable("d", into=False)),
    Row("outer cable plugged in: back to SG-A", cable("a", into=True)),
    Row("power cut of SG-A: to SG-D", power_off),
    Row("SG-A booted again: back to SG-A", power_on),
)


class Results:
    """What was measured so far, in the words of the page."""

    def __init__(self) -> None:
        self.outcomes: dict[str, Outcome] = {}

    def lines(self) -> Iterator[str]:
        for name, found in self.outcomes.items():
            alice, bob = found.lost
            yield f"| {name} | {found.clear} | {alice} + {bob} | {found.seconds:.1f} |"


@pytest.fixture(scope="module")
def results(request: pytest.FixtureRequest) -> Iterator[Results]:
    """The table is printed at the end, whatever pytest keeps to itself."""
    results = Results()
    yield results
    capture = request.config.pluginmanager.get_plugin("capturemanager")
    with capture.global_and_fixture_disabled() if capture else nullcontext():
        print("", *results.lines(), sep="\n")


@pytest.fixture(scope="module")
def traffic(site: Site) -> Iterator[Traffic]:
    with Traffic(site) as traffic:
        yield traffic


@pytest.fixture(scope="module")
def routers(site: Site) -> Iterator[None]:
    """Both of Alice's side, with keepalived."""
    with pair(site):
        yield


def examine(row: Row, site: Site, traffic: Traffic, results: Results, folder: Path) -> Outcome:
    await_true(traffic.is_steady, "the traffic flows both ways", PATIENCE)
    with Trial(site, traffic, folder) as trial:
        row.event(site)
        trial.await_steady(row.name, PATIENCE)
    found = results.outcomes[row.name] = trial.outcome
    assert found.clear == 0
    if row.seconds:
        assert found.seconds < row.seconds
    else:
        assert found.lost == (0, 0)
    return found


def test_the_page_has_these_rows_and_no_clear_packet() -> None:
    rows = re.findall(r"^\| ([^|]+) \| (\d+) \| \d+ \+ \d+ \| [\d.]+ \|", PAGE.read_text(), re.M)
    assert rows == [(row.name, "0") for row in (*ROWS, *PAIR_ROWS)]


@pytest.mark.deploy
@pytest.mark.timeout(600)
@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
def test_nothing_leaks_and_it_comes_back(
    row: Row, site: Site, traffic: Traffic, results: Results, tmp_path: Path
) -> None:
    if row.event is upgraded:
        newer(site, tmp_path)
    examine(row, site, traffic, results, tmp_path)


def newer(site: Site, folder: Path) -> None:
    """The same package under a higher number, on router a."""
    contents, made = folder / "contents", folder / "newer.deb"
    subprocess.run(["dpkg-deb", "-R", str(package()), str(contents)], check=True)
    control = contents / "DEBIAN/control"
    control.write_text(re.sub(r"^(Version: .*)$", r"\1+newer", control.read_text(), flags=re.M))
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "-Znone", "-b", str(contents), str(made)],
        check=True, capture_output=True,
    )  # fmt: skip
    site.a.write("/root/newer.deb", "")
    (site.a.root / "root/newer.deb").write_bytes(made.read_bytes())


@pytest.mark.deploy
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("routers")
@pytest.mark.parametrize("row", PAIR_ROWS, ids=[row.name for row in PAIR_ROWS])
def test_another_gateway_takes_over(
    row: Row, site: Site, traffic: Traffic, results: Results, tmp_path: Path
) -> None:
    examine(row, site, traffic, results, tmp_path)
