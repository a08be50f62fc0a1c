"""OpenSSH through ProxyCommand: netcat's ``-X 5``, and our own pipe ``oegw socks connect``."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.oegw.socks5.clients.bed import BOB, LEAVING, NAMES, OPEN_PORT, SERVER, SSH, Bed
from tests.oegw.socks5.clients.test_curl import bracketed

pytestmark = pytest.mark.netns

OURS = f"{sys.executable} -m oegw socks connect --proxy"
WAYS = pytest.mark.parametrize(("via", "place"), [("4", NAMES["6"]), ("6", BOB["4"])])


@pytest.fixture(scope="module")
def key(bed: Bed) -> Iterator[Path]:
    """The key that Bob's sshd, which runs meanwhile, lets in."""
    folder = bed.directory
    for name in "host", "user":
        subprocess.run(
            ["ssh-keygen", "-qt", "ed25519", "-N", "", "-C", name, "-f", str(folder / name)],
            check=True,
        )
    listen = "".join(f"ListenAddress {bracketed(each)}:{SSH}\n" for each in BOB.values())
    configuration = folder / "sshd_config"
    configuration.write_text(
        f"{listen}HostKey {folder / 'host'}\nAuthorizedKeysFile {folder / 'user.pub'}\n"
        "StrictModes no\nUsePAM no\nPidFile none\nPermitRootLogin yes\n"
    )
    Path("/run/sshd").mkdir(exist_ok=True)  # sshd wants it to be there
    command = ["/usr/sbin/sshd", "-D", "-e", "-f", str(configuration)]
    with bed.running("bob", command, ready=[(each, SSH) for each in BOB.values()]):
        yield folder / "user"


def seen_from(bed: Bed, key: Path, proxy_command: str, place: str) -> str:
    """Where Bob's sshd sees the client of a login, which also gets a lot of octets."""
    said = bed.says(
        "alice", "ssh", "-F", "none", "-p", str(SSH), "-i", str(key), "-o", "BatchMode=yes",
        "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
        "-o", "LogLevel=ERROR", "-o", f"ProxyCommand={proxy_command}", f"root@{place}",
        'head -c 300000 /dev/zero; echo; echo "$SSH_CLIENT"',
    )  # fmt: skip
    zeros, client = said.splitlines()
    assert zeros == "\0" * 300000
    return client.split()[0]


@WAYS
def test_by_netcat(bed: Bed, key: Path, via: str, place: str) -> None:
    """It hands names to the server as they are."""
    command = f"nc -X 5 -x {bracketed(SERVER[via])}:{OPEN_PORT} %h %p"
    assert seen_from(bed, key, command, place) == LEAVING["6" if place == NAMES["6"] else "4"]


@WAYS
def test_by_our_own_pipe(bed: Bed, key: Path, via: str, place: str) -> None:
    command = f"{OURS} {bracketed(SERVER[via])}:{OPEN_PORT} %h %p"
    assert seen_from(bed, key, command, place) == LEAVING["6" if place == NAMES["6"] else "4"]
