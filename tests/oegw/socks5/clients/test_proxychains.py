"""proxychains4: its library under a program that knows nothing of SOCKS.  IPv4 inside, names of
either family, for the server resolves them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.oegw.socks5.clients.bed import (
    BOB,
    ECHO,
    LEAVING,
    NAMES,
    OPEN_PORT,
    PASSWORD,
    PASSWORD_PORT,
    SERVER,
    USER,
    Bed,
)  # fmt: skip

pytestmark = pytest.mark.netns

PROGRAM = [sys.executable, str(Path(__file__).with_name("programs") / "plain.py"), "stream"]


def said(bed: Bed, folder: Path, proxy: str, place: str) -> list[str]:
    path = folder / "proxychains.conf"
    path.write_text(f"strict_chain\nquiet_mode\nproxy_dns\n[ProxyList]\nsocks5 {proxy}\n")
    command = ["proxychains4", "-f", str(path), *PROGRAM, place, str(ECHO)]
    return bed.says("alice", *command).split()


@pytest.mark.parametrize("place", [BOB["4"], NAMES["4"], NAMES["6"]])
def test_connect(bed: Bed, folder: Path, place: str) -> None:
    leaving = LEAVING["6" if place == NAMES["6"] else "4"]
    assert said(bed, folder, f"{SERVER['4']} {OPEN_PORT}", place) == [leaving, "over"]


def test_connect_with_a_password(bed: Bed, folder: Path) -> None:
    proxy = f"{SERVER['4']} {PASSWORD_PORT} {USER} {PASSWORD}"
    assert said(bed, folder, proxy, NAMES["4"]) == [LEAVING["4"], "over"]
