"""OpenSSH through ProxyCommand: netcat's ``-X 5``, and our own pipe ``oegw socks connect``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.oegw.socks5.clients.bed import (
    BOB,
    LEAVING,
    NAMES,
    OPEN_PORT,
    SERVER,
    SSH,
    Bed,
    bracketed,
)  # fmt: skip
from tests.oegw.socks5.clients.servers import quiet, sshd

pytestmark = pytest.mark.netns

OURS = f"{sys.executable} -m oegw socks connect --proxy"
WAYS = pytest.mark.parametrize(("via", "place"), [("4", NAMES["6"]), ("6", BOB["4"])])


@pytest.fixture(scope="module")
def key(bed: Bed) -> Iterator[Path]:
    """The key that Bob's sshd, which runs meanwhile, lets in."""
    with sshd(bed, "bob", list(BOB.values())) as key:
        yield key


def seen_from(bed: Bed, key: Path, proxy_command: str, place: str) -> str:
    """Where Bob's sshd sees the client of a login, which also gets a lot of octets."""
    said = bed.says(
        "alice", "ssh", *quiet(key), "-p", str(SSH), "-o", f"ProxyCommand={proxy_command}",
        f"root@{place}", 'head -c 300000 /dev/zero; echo; echo "$SSH_CLIENT"',
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
