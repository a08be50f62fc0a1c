"""The paper's listings, on a host with a daemon at port 1 (MK-3 to MK-7, MK-22)."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from oegw import moniker
from oegw.moniker.library import paper

pytestmark = pytest.mark.netns

EXAMPLES = Path(__file__).parents[4] / "oegw/docs/examples"
SERVER = EXAMPLES / "starwars_server.py"
CLIENT = EXAMPLES / "starwars_client.py"

VIEWER = """
import sys
from oegw.moniker import *
server = mon_connect("localhost", "starwars")
print("up", flush=True)
for line in iter(sys.stdin.readline, ""):
    mon_send(server, int(line).to_bytes(4))
    size = int.from_bytes(mon_recv(server, 8)[4:])
    print(len(mon_recv(server, size)), flush=True)
"""


def test_the_film_is_shown(box: Any, tmp_path: Path) -> None:
    box.daemon()
    film = tmp_path / "film"
    film.write_text("one\n\ntwo\n\n" + "three\n" * 2000)
    box.python(SERVER, film, ready="starwars is served")
    for _ in range(2):  # by a process of its own for each
        assert box.run(CLIENT, "localhost") == "one\ntwo\n" + "three\n" * 2000 + "\n"


def test_without_the_server_it_is_said_why(box: Any) -> None:
    assert "no daemon of Moniker answers there" in box.run(CLIENT, "localhost", fails=True)
    box.daemon()
    assert "starwars: unknown" in box.run(CLIENT, "localhost", fails=True)


def test_the_name_ends_with_the_parent_and_a_session_with_its_child(box: Any) -> None:
    """kill -9 of the server: nobody finds it any more; who is being served, is."""
    box.daemon()
    server = box.python(SERVER, ready="starwars is served")
    viewer = box.python("-c", VIEWER)
    assert seen(viewer, 0) > 4
    server.send_signal(signal.SIGKILL)
    assert "starwars: unknown" in box.run(CLIENT, "localhost", fails=True)
    assert seen(viewer, 1) > 4


def seen(viewer: Any, picture: int) -> int:
    """How many octets of a picture a viewer gets."""
    viewer.stdin.write(f"{picture}\n")
    viewer.stdin.flush()
    return int(viewer.stdout.readline())


SYNS = """
import socket
from oegw.moniker import *
server = mon_service(MON_STREAM, "1", "starwars")
mon_listen(server, 5)
tap = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
tap.bind(("lo", 0))
tap.settimeout(0.3)
client = mon_connect("127.0.0.1", "starwars")
mon_send(client, b"hello")
print(mon_recv(mon_accept(server), 5).decode())
seen = []
try:
    while True:
        packet, where = tap.recvfrom(65535)
        if where[2] != socket.PACKET_OUTGOING and packet[9] == 6 and packet[33] == 2:
            seen.append(int.from_bytes(packet[22:24]))
except TimeoutError:
    names = {server.reveal_port(): "service"}
    print([names.get(port, port) for port in seen])
"""


def test_one_question_and_one_connection(box: Any) -> None:
    """MK-6, in the packets: which ports get a SYN."""
    box.daemon()
    assert box.run("-c", SYNS) == "hello\n[1, 'service']\n"


DATAGRAMS = """
from oegw.moniker import *
server = mon_service(MON_DGRAM, "1", "starwars")
client = mon_connect("localhost", "starwars", MON_DGRAM)
mon_send(client, b"hello")
mon_send(server, mon_recv(server, 100)[::-1])
print(mon_recv(client, 100).decode())
mon_close(client)
mon_close(server)
for refused in (lambda: mon_listen(server, 5), lambda: mon_accept(server)):
    try:
        refused()
    except MonikerError as error:
        print(error)
own = mon_service(MON_STREAM, "1", "reynolds::http")
print(own)
"""


def test_datagrams(box: Any) -> None:
    """MK-7."""
    box.daemon()
    assert box.run("-c", DATAGRAMS).splitlines() == [
        "olleh",
        "starwars@1: udp is no stream transport",
        "starwars@1: udp is no stream transport",
        "<Service reynolds::http@1>",
    ]


USERS = """
import os
from oegw import moniker
with moniker.serve("http") as ours:
    print(ours.name)
    if os.fork() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        with moniker.serve("http") as theirs:
            print(theirs.name, flush=True)
            for name in ("http", "nobody::http"):
                with moniker.connect("localhost", name) as session:
                    print(name, session.reveal_port() == theirs.reveal_port(), flush=True)
        for wish in ({"namespace": "-"}, {"namespace": "reynolds"}, {"namespace": "root"}):
            try:
                moniker.serve("http", **wish)
            except moniker.RegistrationRefused as error:
                print(error.code, flush=True)
        os._exit(0)
    os.wait()
    print(ours.registered)
"""


def test_users_have_namespaces_of_their_own(box: Any) -> None:
    """MK-13, MK-21: the same name twice on one host."""
    box.daemon()
    assert box.run("-u", "-c", USERS).splitlines() == [
        "http@1",
        "nobody::http@1",
        "http False",
        "nobody::http True",
        *["denied"] * 3,
        "True",
    ]


def test_the_calls_are_those_of_the_paper() -> None:
    calls = {name for name in dir(paper) if name.startswith(("mon_", "MON_"))}
    assert calls == {
        "MON_DGRAM", "MON_STREAM", "mon_accept", "mon_close", "mon_connect", "mon_listen",
        "mon_recv", "mon_send", "mon_service",
    }  # fmt: skip
    assert calls <= set(moniker.__all__)
