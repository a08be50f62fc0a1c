"""The guard on disk, and what it does in a kernel that has no gateway."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from oegw import guardfile
from tests.support.intercept_net import INSIDE, INSIDE6, OTHER_PEER, PEER, PEER6, Net, gateway
from tests.support.intercept_policy import configured_rule, policy, protected_rule

DEPLOY = Path(__file__).parents[2] / "oegw/deploy"


def test_it_is_written_as_a_whole_and_only_when_it_changed(tmp_path: Path) -> None:
    path = tmp_path / "guard.nft"
    assert guardfile.save(path, "table inet a { }\n", "table inet b { }\n") == ""
    text = path.read_text()
    assert text.index("inet a") < text.index("inet b")
    assert text.endswith(guardfile.COMPLETE)
    assert path.stat().st_mode & 0o777 == 0o600
    before = path.stat().st_ino
    guardfile.save(path, "table inet a { }\n", "table inet b { }\n")
    assert path.stat().st_ino == before
    guardfile.save(path, "table inet a { }\n")
    assert "inet b" not in path.read_text()
    assert [each.name for each in tmp_path.iterdir()] == ["guard.nft"]


def test_a_link_in_its_place_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "guard.nft"
    path.symlink_to("/dev/zero")
    assert guardfile.save(path, "table inet a { }\n") == ""
    assert not path.is_symlink()
    assert path.read_text().endswith(guardfile.COMPLETE)


def test_a_pipe_in_its_place_holds_nothing_up(tmp_path: Path) -> None:
    path = tmp_path / "guard.nft"
    os.mkfifo(path)
    assert guardfile.save(path, "table inet a { }\n") == ""
    assert path.read_text().endswith(guardfile.COMPLETE)


def test_what_can_not_be_saved_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    problem = guardfile.save(tmp_path / "file" / "guard.nft", "")
    assert "not saved" in problem
    assert "guard.nft" in problem


# ----------------------------------------------------------------- in a kernel of its own


@pytest.fixture
def net() -> Iterator[Net]:
    with Net() as net:
        yield net


@pytest.fixture
def saved(net: Net, tmp_path: Path) -> Path:
    """The guard of a gateway that has ended, as at a boot: nothing is in the kernel any more."""
    path = tmp_path / "guard.nft"
    table = policy(configured_rule(f"{PEER}/32"), protected_rule(f"{PEER6}/128"))
    with gateway(net, table) as gate:
        assert guardfile.save(path, gate.call(gate.interception.residue)) == ""
    net.run(net.gateway, "nft", "delete", "table", "inet", "oegw")
    return path


def load(net: Net, path: Path) -> str:
    """What the unit of the guard says."""
    command = [str(DEPLOY / "guard"), str(path)]
    done = subprocess.run(
        ["nsenter", f"--net=/run/netns/{net.gateway}", *command],
        text=True, capture_output=True, check=True,
    )  # fmt: skip
    return done.stdout + done.stderr


def arrives(net: Net, source: str, peer: str, namespace: str = "") -> bool:
    there = net.udp(net.outside, peer, 9999)
    here = net.udp(namespace or net.inside, source)
    try:
        here.send("hello", peer)
        return bool(there.receive(0.3))
    finally:
        here.close()
        there.close()


@pytest.mark.netns
def test_protected_packets_stay_and_others_pass_without_a_gateway(net: Net, saved: Path) -> None:
    assert arrives(net, INSIDE, PEER)  # or this test could not fail
    assert arrives(net, INSIDE6, PEER6)
    assert "in force" in load(net, saved)
    assert not arrives(net, INSIDE, PEER)
    assert not arrives(net, INSIDE6, PEER6)
    assert not arrives(net, "10.2.0.1", PEER, net.gateway)  # the box's own
    assert arrives(net, INSIDE, OTHER_PEER)


@pytest.mark.netns
def test_the_start_of_the_gateway_replaces_it(net: Net, saved: Path) -> None:
    load(net, saved)
    with gateway(net, policy()):
        assert "clear_inbound" in net.run(net.gateway, "nft", "list", "table", "inet", "oegw")
        assert "there are rules already" in load(net, saved)
    assert arrives(net, INSIDE, PEER)


@pytest.mark.netns
@pytest.mark.parametrize("damage", ["empty", "half", "unknown word", "gone"])
def test_a_damaged_one_closes_all_but_ssh(net: Net, saved: Path, damage: str) -> None:
    text = saved.read_text()
    match damage:
        case "empty":
            saved.write_text("")
        case "half":
            saved.write_text(text[: len(text) // 2])
        case "unknown word":
            saved.write_text(text.replace("postrouting", "postruoting"))
        case "gone":
            saved.unlink()
    assert "damaged" in load(net, saved)
    assert not arrives(net, INSIDE, PEER)
    assert not arrives(net, INSIDE, OTHER_PEER)
    assert not arrives(net, "10.2.0.1", OTHER_PEER, net.gateway)
    assert ssh_answers(net)


def ssh_answers(net: Net) -> bool:
    """Whether a connection to port 22 of the gateway, from outside, is answered."""
    assert shutil.which("nc")
    enter = ["nsenter", f"--net=/run/netns/{net.gateway}"]
    with subprocess.Popen([*enter, "nc", "-l", "-p", "22"]) as server:
        try:
            net.run(net.gateway, "sh", "-c", "until ss -ltn | grep -q :22; do sleep 0.01; done")
            reached = subprocess.run(
                ["nsenter", f"--net=/run/netns/{net.outside}", "nc", "-zw2", "10.2.0.1", "22"]
            )
            return reached.returncode == 0
        finally:
            server.kill()


@pytest.mark.netns
def test_oegw_guard_says_what_stands_and_opens(net: Net, saved: Path) -> None:
    config = saved.with_name("oegw.toml")
    config.write_text('version = 1\nthis = "is wrong"\n[gateway]\nstate = "state.db"\n')
    program = str(Path(sys.executable).with_name("oegw"))
    socket = str(saved.with_name("socket"))
    command = (program, "guard", "--config", str(config), "--socket", socket)
    assert "now: nothing is held back" in net.run(net.gateway, *command)
    load(net, saved)
    said = net.run(net.gateway, *command)
    assert "now: the nft tables oegw hold back" in said
    assert f"at a boot: {saved}" in said
    assert "open" in net.run(net.gateway, *command, "--remove")
    assert not saved.exists()
    assert arrives(net, INSIDE, PEER)
    assert "now: nothing is held back" in net.run(net.gateway, *command)


@pytest.mark.netns
def test_root_loads_only_what_root_has_written(net: Net, saved: Path) -> None:
    """The directory is the gateway's user's: who has taken over that one may put a file there."""
    os.chown(saved, 65534, 65534)
    assert "damaged" in load(net, saved)
    assert not arrives(net, INSIDE, OTHER_PEER)
    whole = saved.read_text().removeprefix(guardfile.HEAD).removesuffix(guardfile.COMPLETE)
    assert guardfile.save(saved, whole) == ""
    assert saved.stat().st_uid == 0
