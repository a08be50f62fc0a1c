"""npm's package ``socks``: CONNECT, BIND and ASSOCIATE."""

from __future__ import annotations

import json
import socket
import subprocess
from pathlib import Path
from typing import Any

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
)  # fmt: skip

pytestmark = pytest.mark.netns

PROGRAM = str(Path(__file__).with_name("programs") / "npm_client.js")
MODULES = {"NODE_PATH": "/usr/share/nodejs"}  # where Debian has them, whosever Node it is


def said(bed: Bed, *arguments: object, **environment: str) -> list[dict[str, Any]]:
    done = bed.run("alice", "node", PROGRAM, *map(str, arguments), **MODULES, **environment)
    assert done.stdout, done.stderr.decode()
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize(("via", "towards"), ["46", "64"])
def test_connect(bed: Bed, via: str, towards: str) -> None:
    """From one family to the other, to an address and to a name."""
    for place in BOB[towards], NAMES[towards]:
        heard = said(bed, "connect", SERVER[via], OPEN_PORT, place, ECHO)[-1]
        assert heard == {"what": "heard", "text": f"{LEAVING[towards]}\nover\n"}


def test_connect_with_a_password(bed: Bed) -> None:
    asked = "connect", SERVER["4"], PASSWORD_PORT, NAMES["6"], ECHO, USER
    assert said(bed, *asked, PASSWORD)[-1]["text"] == f"{LEAVING['6']}\nover\n"
    [failed] = said(bed, *asked, "wrong")
    assert failed["what"] == "failed"
    assert "uthentication" in failed["text"]


def test_a_refusal_has_its_name(bed: Bed) -> None:
    [failed] = said(bed, "connect", SERVER["4"], OPEN_PORT, BOB["4"], NOBODY)
    assert "ConnectionRefused" in failed["text"]


@pytest.mark.parametrize(("via", "towards"), ["44", "46", "64"])
def test_associate(bed: Bed, via: str, towards: str) -> None:
    established, heard = said(bed, "associate", SERVER[via], OPEN_PORT, BOB[towards], ECHO)
    assert established["place"]["host"] == SERVER[via]
    assert heard["text"] == f"{LEAVING[towards]} over"
    assert heard["from"]["port"] == ECHO


def test_associate_for_a_destination(bed: Bed) -> None:
    """The package asks for a "destination" with every command, and many give it one here, too."""
    asked = "associate", SERVER["4"], OPEN_PORT, BOB["4"], ECHO
    assert said(bed, *asked, DECLARED="destination")[-1]["text"] == f"{LEAVING['4']} over"


@pytest.mark.parametrize(("via", "towards"), ["44", "46", "64"])
def test_bind(bed: Bed, via: str, towards: str) -> None:
    """Bob comes to the place that the server names; where that is of the client's family, and not
    his own (SK-33), he knows the server by its other address."""
    process = subprocess.Popen(
        [
            *bed.entering("alice"), "env", "NODE_PATH=/usr/share/nodejs",
            "node", PROGRAM, "bind", SERVER[via], str(OPEN_PORT), BOB[towards], "0",
        ],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    with process:
        bound = json.loads(process.stdout.readline())
        assert bound["what"] == "bound", bound
        place = LEAVING[towards], bound["place"]["port"]
        with bed.at_bob(lambda: socket.create_connection(place, 5)) as peer:
            port = peer.getsockname()[1]
            assert peer.recv(100) == b"over\n"
            peer.sendall(b"and over\n")
            established, heard = [json.loads(line) for line in process.stdout]
    assert established["place"]["port"] == port
    assert heard["text"] == "and over\n"
