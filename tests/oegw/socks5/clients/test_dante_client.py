"""dante-client: its library under a program that knows nothing of SOCKS, as ``socksify`` puts it.

It knows servers by their IPv4 addresses only, and its programs see IPv4 only: names that the server
resolves are the way to IPv6 for them.  CONNECT, BIND and UDP ASSOCIATE.
"""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.oegw.socks5.clients.bed import (
    BOB,
    ECHO,
    LEAVING,
    NAMES,
    NOBODY,
    OPEN_PORT,
    PASSWORD,
    PASSWORD_PORT,
    SERVER,
    USER,
    Bed,
    told,
)  # fmt: skip

pytestmark = pytest.mark.netns

LIBRARY = "libdsocksd.so.0"
PROGRAM = [sys.executable, str(Path(__file__).with_name("programs") / "plain.py")]

_CONFIGURATION = """\
logoutput: stderr
resolveprotocol: fake
"""
_ROUTE = """\
route {{
  from: 0.0.0.0/0 to: {to} via: {server} port = {port}
  proxyprotocol: socks_v5
  method: {method}
}}
"""


def configured(folder: Path, port: int = OPEN_PORT, method: str = "none") -> dict[str, str]:
    """Dante's library by the environment, as its script does it."""
    path = folder / "dante.conf"
    path.write_text(
        _CONFIGURATION
        + "".join(
            _ROUTE.format(to=to, server=SERVER["4"], port=port, method=method)
            for to in ("0.0.0.0/0", ".")
        )
    )
    return {"LD_PRELOAD": LIBRARY, "SOCKS_CONF": str(path), "SOCKS_AUTOADD_LANROUTES": "no"}


def command(environment: dict[str, str], *arguments: str) -> list[str]:
    return ["env", *(f"{key}={value}" for key, value in environment.items()), *arguments]


@pytest.mark.parametrize("place", [BOB["4"], NAMES["4"], NAMES["6"]])
def test_connect(bed: Bed, folder: Path, place: str) -> None:
    said = bed.says(
        "alice", *command(configured(folder), *PROGRAM, "stream", place, str(ECHO))
    ).split()
    assert said == [LEAVING["6" if place == NAMES["6"] else "4"], "over"]


def test_socksify_itself(bed: Bed, folder: Path) -> None:
    """The script of the package, and another program: curl, which resolves nothing itself."""
    environment = configured(folder) | {"LD_PRELOAD": ""}
    plain = ["curl", "-sS", "-4", "--noproxy", "*", f"http://{NAMES['6']}:8000/"]
    assert bed.says("alice", "socksify", *plain, **environment).strip() == LEAVING["6"]


def test_connect_with_a_password(bed: Bed, folder: Path) -> None:
    account = {"SOCKS_USERNAME": USER, "SOCKS_PASSWORD": PASSWORD}
    environment = configured(folder, PASSWORD_PORT, "username")
    asked = [*PROGRAM, "stream", BOB["4"], str(ECHO)]
    said = bed.says("alice", *command(environment | account, *asked))
    assert said.split() == [LEAVING["4"], "over"]
    account["SOCKS_PASSWORD"] = "wrong"
    assert bed.run("alice", *command(environment | account, *asked)).returncode != 0


def test_a_refusal_is_the_programs_error(bed: Bed, folder: Path) -> None:
    done = bed.run("alice", *command(configured(folder), *PROGRAM, "stream", BOB["4"], str(NOBODY)))
    assert "Connection refused" in told(done)


@pytest.mark.parametrize("place", [BOB["4"], NAMES["4"], NAMES["6"]])
def test_udp_associate(bed: Bed, folder: Path, place: str) -> None:
    said = bed.says(
        "alice", *command(configured(folder), *PROGRAM, "datagrams", place, str(ECHO))
    ).splitlines()
    leaving = LEAVING["6" if place == NAMES["6"] else "4"]
    assert said == [f"{leaving} first {ECHO}", f"{leaving} second {ECHO}"]


def test_bind(bed: Bed, folder: Path) -> None:
    process = subprocess.Popen(
        [
            *bed.entering("alice"),
            *command(configured(folder), *PROGRAM, "listen", BOB["4"], str(ECHO)),
        ],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    with process:
        address, port = process.stdout.readline().split()
        assert address == LEAVING["4"]
        with bed.at_bob(lambda: socket.create_connection((address, int(port)), 5)) as peer:
            assert peer.recv(100) == b"over"
            peer.sendall(b"and over")
            told_peer, heard = process.stdout.read().splitlines()
            assert told_peer.split() == [BOB["4"], str(peer.getsockname()[1])]
    assert heard == "and over"
