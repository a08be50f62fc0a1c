"""What the gateway's user has made stays that user's: root neither runs nor loads it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.deploy.site import Site

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(600)]

FOLDERS = ("/run/oegw", "/var/lib/oegw", "/var/log/oegw")


@pytest.mark.parametrize("what", ["reload", "restart"])
def test_systemd_gives_root_nothing_that_the_user_has_made(site: Site, what: str) -> None:
    """StateDirectory= and its like would, with the setuid bit."""
    as_user = "setpriv --reuid oegw --regid oegw --clear-groups"
    for folder in FOLDERS:
        made = f"cp /bin/true {folder}/theirs && chmod 4755 {folder}/theirs"
        site.a.run(f"{as_user} sh -c '{made}'")
    try:
        site.a.run(f"systemctl {what} oegw")
        places = " ".join(FOLDERS)
        owners = site.a.run(f"stat -c %U {places} /var/lib/oegw/state.db /run/oegw/*.sock").split()
        assert set(owners) == {"oegw"}
        assert site.a.run(f"find {places} -name theirs ! -user oegw") == ""
    finally:
        site.a.run("rm -f " + " ".join(f"{folder}/theirs" for folder in FOLDERS))


def test_the_folders_are_closed_to_others(site: Site) -> None:
    modes = site.a.run(f"stat -c %a {' '.join(FOLDERS)}").split()
    assert modes == ["755", "700", "750"]


def test_root_does_not_rotate_in_a_folder_of_the_user() -> None:
    rotated = Path(__file__).parents[2] / "oegw/deploy/logrotate/oegw"
    blocks = rotated.read_text().split("{\n")[1:]
    assert [block.split("\n")[0].strip() for block in blocks] == ["su oegw oegw"] * 2
