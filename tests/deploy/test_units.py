"""The units: what systemd itself finds in them, and how much they leave open."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.deploy.site import Site

pytestmark = pytest.mark.deploy

UNITS = Path(__file__).parents[2] / "oegw/deploy/systemd"
NAMES = sorted(path.name for path in UNITS.glob("*.service"))
EXPOSURE = 3.0


def test_there_are_units() -> None:
    assert set(NAMES) >= {"oegw.service", "oegw-guard.service", "oegw-metrics.service"}


@pytest.mark.parametrize("name", NAMES)
def test_systemd_finds_no_fault_where_the_package_is_installed(site: Site, name: str) -> None:
    done = site.a.attempt(f"systemd-analyze verify --man=yes {name}")
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def exposure(path: Path) -> float:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(path)],
        text=True, capture_output=True, check=True,
    )  # fmt: skip
    found = re.search(rf"exposure level for {path.name}: ([0-9.]+)", done.stdout)
    assert found is not None, done.stdout
    return float(found[1])


@pytest.mark.parametrize("name", NAMES)
def test_a_unit_leaves_little_open(name: str) -> None:
    assert exposure(UNITS / name) <= EXPOSURE


def test_a_unit_without_a_sandbox_would_be_found(tmp_path: Path) -> None:
    bare = tmp_path / "bare.service"
    bare.write_text("[Service]\nExecStart=/usr/sbin/oegw run\n")
    assert exposure(bare) > EXPOSURE
