"""curl: CONNECT, to addresses and to names that the server resolves, over both families."""

from __future__ import annotations

import subprocess

import pytest

from tests.oegw.socks5.clients.bed import (
    BOB,
    LEAVING,
    NAMES,
    NOBODY,
    OPEN_PORT,
    PASSWORD,
    PASSWORD_PORT,
    SERVER,
    USER,
    WEB,
    Bed,
    bracketed,
    told,
)  # fmt: skip

pytestmark = pytest.mark.netns

PROXY_FAILED = 97  # curl's exit code CURLE_PROXY


def curl(bed: Bed, proxy: str, place: str) -> subprocess.CompletedProcess[bytes]:
    return bed.run("alice", "curl", "-sS", "--max-time", "10", "--proxy", proxy, f"http://{place}")


@pytest.mark.parametrize("towards", "46")
@pytest.mark.parametrize("via", "46")
def test_an_address_of_either_family_by_a_listener_of_either(
    bed: Bed, via: str, towards: str
) -> None:
    proxy = f"socks5://{bracketed(SERVER[via])}:{OPEN_PORT}"
    done = curl(bed, proxy, f"{bracketed(BOB[towards])}:{WEB}/100000")
    assert done.returncode == 0, told(done)
    assert done.stdout == f"{LEAVING[towards]}\n".encode() + bytes(100000)


@pytest.mark.parametrize("towards", "46")
@pytest.mark.parametrize("via", "46")
def test_a_name_is_the_servers_to_resolve(bed: Bed, via: str, towards: str) -> None:
    proxy = f"socks5h://{bracketed(SERVER[via])}:{OPEN_PORT}"
    done = curl(bed, proxy, f"{NAMES[towards]}:{WEB}/")
    assert (done.returncode, done.stdout) == (0, f"{LEAVING[towards]}\n".encode()), told(done)


@pytest.mark.parametrize("via", "46")
def test_with_the_right_password(bed: Bed, via: str) -> None:
    proxy = f"socks5h://{USER}:{PASSWORD}@{bracketed(SERVER[via])}:{PASSWORD_PORT}"
    done = curl(bed, proxy, f"{NAMES['4']}:{WEB}/")
    assert (done.returncode, done.stdout) == (0, f"{LEAVING['4']}\n".encode()), told(done)


@pytest.mark.parametrize("account", [f"{USER}:wrong@", f"nobody:{PASSWORD}@", ""])
def test_without_it_nothing_is_opened(bed: Bed, account: str) -> None:
    proxy = f"socks5h://{account}{SERVER['4']}:{PASSWORD_PORT}"
    done = curl(bed, proxy, f"{NAMES['4']}:{WEB}/")
    assert done.returncode == PROXY_FAILED, told(done)
    assert done.stdout == b""


def test_curl_tells_refused_from_unknown(bed: Bed) -> None:
    """Its words come from the reply's code."""
    proxy = f"socks5h://{SERVER['4']}:{OPEN_PORT}"
    refused = curl(bed, proxy, f"{BOB['4']}:{NOBODY}/")
    unknown = curl(bed, proxy, "unknown.test/")
    assert (refused.returncode, unknown.returncode) == (PROXY_FAILED, PROXY_FAILED)
    assert "(5)" in told(refused)
    assert "(4)" in told(unknown)
