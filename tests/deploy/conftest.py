"""Two routers with the package installed and a tunnel between their hosts: made once."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.crossing import Crossed, crossing
from tests.deploy.machine import Machine
from tests.deploy.root import package
from tests.deploy.site import ALL_PLACES, PLACES, Site
from tests.deploy.tutorial import run_tutorial
from tests.deploy.wholesite import WholeSite
from tests.support.pages import TUTORIAL


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, Any]:
    """What the routers' journals say last is shown with a failure."""
    report = yield
    given = getattr(item, "funcargs", {})
    site = given.get("site") or given.get("whole_site")
    if report.failed and report.when == "call" and site is not None:
        for name, machine in site.machines.items():
            journal = machine.says("journalctl --no-pager -o short-precise -n 60")
            report.sections.append((f"journal of {name}", journal))
    return report


def install(machine: Machine, package: Path) -> str:
    """What dpkg says.  There is no way from inside to any registry."""
    machine.write("/root/oegw.deb", "")
    (machine.root / "root/oegw.deb").write_bytes(package.read_bytes())
    return machine.run("dpkg --install /root/oegw.deb 2>&1", 300)


def configure(site: Site, name: str, precedence: int = 10) -> list[str]:
    """A key, its records in the DNS, and a policy that protects the other side's network.

    Returns the records.
    """
    place, machine = ALL_PLACES[name], site.machines[name]
    other = PLACES["a" if name == "b" else "b"]
    machine.run("oegw keygen --out /etc/oegw/gateway.pem")
    who = f"--gateway {place.outer} --client {place.host} {place.outer} --precedence {precedence}"
    lines = machine.run(f"oegw dns-records --key /etc/oegw/gateway.pem {who}").splitlines()
    site.publish(lines)
    machine.write(
        "/etc/oegw/oegw.toml",
        "version = 1\n"
        '[interfaces]\noutside = ["out0"]\n'
        '[[rule]]\nname = "the other side"\ncategory = "opportunistic"\n'
        f'destination = "{other.network}"\non_failure = "drop"\n',
    )
    return lines


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    made = package()
    with Site(tmp_path_factory.mktemp("deploy")) as site:
        site.boot()
        for machine in site.machines.values():
            install(machine, made)
        for name in PLACES:
            configure(site, name)
        for machine in site.machines.values():
            machine.run("systemctl start oegw")
        yield site


@pytest.fixture(scope="session")
def whole_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WholeSite]:
    """Nothing installed yet."""
    with WholeSite(tmp_path_factory.mktemp("whole")) as site:
        site.boot()
        yield site


@pytest.fixture(scope="session")
def crossed(whole_site: WholeSite) -> Crossed:
    """What crossed the Internet while somebody did what the tutorial says."""
    with crossing(whole_site) as crossed:
        run_tutorial(TUTORIAL.read_text(), whole_site)
    return crossed
