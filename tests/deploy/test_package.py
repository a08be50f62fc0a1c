"""The package: what lintian says of it, what is in it, and what it leaves behind."""

from __future__ import annotations

import subprocess

import pytest

from tests.deploy.conftest import install
from tests.deploy.machine import Machine
from tests.deploy.root import package
from tests.deploy.site import Site

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(900)]


_COMPLETE = """
source /usr/share/bash-completion/completions/oegw
function=$(complete -p oegw | sed 's/.*-F \\([^ ]*\\).*/\\1/')
COMP_WORDS=(oegw sta) COMP_CWORD=1
"$function" oegw sta oegw
echo "${COMPREPLY[@]}"
"""


def test_lintian_finds_no_error() -> None:
    done = subprocess.run(
        ["lintian", "--allow-root", "--fail-on", "error", str(package())],
        text=True, capture_output=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_nothing_in_it_is_of_the_place_where_it_was_built(site: Site) -> None:
    found = site.a.says("grep -rIl -e /tmp/ -e /root/ /opt/oegw/bin /opt/oegw/pyvenv.cfg")
    assert found == ""
    used = "import sys, cryptography, netfilterqueue; print(sys.prefix, cryptography.__file__)"
    prefix, library = site.a.run(f"/opt/oegw/bin/python -Pc '{used}'").split()
    assert prefix == "/opt/oegw"
    assert library.startswith("/opt/oegw/lib/")


def test_the_compiled_core_is_in_it(site: Site) -> None:
    assert "compiled (it is there)" in site.a.run("oegw status")


@pytest.mark.parametrize("page", ["oegw.8", "oegw.toml.5"])
def test_there_are_manual_pages(site: Site, page: str) -> None:
    name, _, section = page.rpartition(".")
    text = site.a.run(f"man --warnings {section} {name} 2>/dev/null | cat")
    assert "NAME" in text
    assert ("oegw status" in text) if section == "8" else ("on_failure" in text)
    assert name in site.a.run(f"whatis {name}")


def test_the_shell_completes_its_commands(site: Site) -> None:
    site.a.write("/root/complete", _COMPLETE)
    assert site.a.run("bash /root/complete").split() == ["status"]


def test_it_is_not_started_before_it_is_configured_and_leaves_keys_at_a_purge(
    site: Site, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with Machine("c", tmp_path_factory.mktemp("purge")) as machine:
        subprocess.run(["ip", "netns", "add", "oegwd-purge"], check=True)
        try:
            waits = machine.root / "etc/systemd/system/systemd-networkd-wait-online.service"
            waits.symlink_to("/dev/null")  # there is no network
            machine.boot("oegwd-purge")
            install(machine, package())
            assert machine.says("systemctl is-active oegw") == "inactive"
            assert machine.says("systemctl is-failed oegw") == "inactive"
            assert machine.says("systemctl is-enabled oegw oegw-guard").split() == ["enabled"] * 2
            machine.run("oegw keygen --out /etc/oegw/gateway.pem && mkdir -p /var/lib/oegw")
            said = machine.run("dpkg --purge oegw 2>&1")
            assert "/etc/oegw stays" in said
            left = machine.says("ls -d /opt/oegw /var/lib/oegw /usr/sbin/oegw 2>/dev/null")
            assert left == ""
            machine.run("test -e /etc/oegw/gateway.pem")
            assert machine.says("systemctl --failed --quiet --plain 'oegw*'") == ""
        finally:
            machine.cut_power()
            subprocess.run(["ip", "netns", "del", "oegwd-purge"], check=True)
