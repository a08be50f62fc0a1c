"""What the gateway has a say in, of flows that the SOCKS server opens."""

from __future__ import annotations

import asyncio
import os
import socket
from dataclasses import dataclass
from ipaddress import ip_address

import pytest

from oegw.socks5.codes import ReplyCode
from oegw.socks5.terms import Demand, Refused
from oegw.socksdialler import GatewayDialler, Guard

MARK = 0x400000
BOB = ip_address("192.2.0.66")


@dataclass
class Standing:
    """A guard's twin."""

    standing: bool

    def stands(self) -> bool:
        return self.standing


def test_what_demands_nothing_is_left_alone() -> None:
    dialler = GatewayDialler(MARK, None)
    asyncio.run(dialler.allow(BOB, 80, "tcp", Demand()))
    with socket.socket() as sock:
        dialler.prepare(sock, Demand())
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_MARK) == 0


@pytest.mark.parametrize("guard", [None, Standing(False)])
def test_without_a_guard_nothing_begins(guard: Guard | None) -> None:
    dialler = GatewayDialler(MARK, guard)
    with pytest.raises(Refused) as refused:
        asyncio.run(dialler.allow(BOB, 80, "tcp", Demand(encrypted=True)))
    assert (refused.value.code, refused.value.reason) == (ReplyCode.NOT_ALLOWED, "unguarded")


def test_the_guard_is_looked_for_each_time() -> None:
    guard = Standing(True)
    dialler = GatewayDialler(MARK, guard)
    asyncio.run(dialler.allow(BOB, 80, "tcp", Demand(encrypted=True)))
    guard.standing = False
    with pytest.raises(Refused):
        asyncio.run(dialler.allow(BOB, 80, "tcp", Demand(encrypted=True)))


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_what_must_be_encrypted_is_marked(family: int, kind: int) -> None:
    assert os.geteuid() == 0, "tests run as root: only root may mark"
    with socket.socket(family, kind) as sock:
        GatewayDialler(MARK, Standing(True)).prepare(sock, Demand(encrypted=True))
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_MARK) == MARK
