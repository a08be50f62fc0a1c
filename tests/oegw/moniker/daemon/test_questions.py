"""Questions over TCP and UDP, good and bad, as they come over loopback addresses."""

from __future__ import annotations

import json
import random
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from oegw.moniker.daemon import limits, streamdoor
from oegw.moniker.daemon.limits import CONNECTIONS_OF_A_SOURCE
from oegw.moniker.settings import ServiceRule
from oegw.moniker.wire import MAX_LINE_OCTETS
from tests.support.moniker_daemon import (
    NONCE,
    PATIENCE,
    Application,
    RunningDaemon,
    all_of,
    bound_socket,
    port_of,
    question,
    running,
    until,
)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[RunningDaemon]:
    with running(tmp_path) as found:
        yield found


@pytest.fixture
def starwars(daemon: RunningDaemon) -> Iterator[Application]:
    with daemon.application() as found:
        assert found.register("starwars", tcpmux=True)["ok"]
        yield found


def answer_of(application: Application) -> str:
    return f"MON/1 + {NONCE} {port_of(application.bound[0])} tcp 1 46 60"


# ------------------------------------------------------------------------------- TCP


@pytest.mark.parametrize("end", [b"\r\n", b"\n"])
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_one_line_one_answer_and_the_end(
    daemon: RunningDaemon, starwars: Application, end: bytes, host: str
) -> None:
    """MK-2, MK-29."""
    said = daemon.says(question("starwars").encode() + end, host)
    assert said == answer_of(starwars) + "\r\n"


def test_a_question_may_come_octet_by_octet(daemon: RunningDaemon, starwars: Application) -> None:
    with daemon.stream() as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for octet in question("starwars").encode() + b"\r\n":
            connection.send(bytes([octet]))
        assert all_of(connection).decode() == answer_of(starwars) + "\r\n"


def test_what_follows_the_line_does_not_cost_the_answer(
    daemon: RunningDaemon, starwars: Application
) -> None:
    """What is left unread makes the kernel end a connection with a reset."""
    for _ in range(20):
        said = daemon.says(question("starwars").encode() + b"\r\nGET / HTTP/1.0\r\n" + b"x" * 2000)
        assert said == answer_of(starwars) + "\r\n"


@pytest.mark.parametrize("octets", [MAX_LINE_OCTETS + 1, 100_000])
def test_a_line_that_is_too_long_is_refused_before_its_end(
    daemon: RunningDaemon, octets: int
) -> None:
    with daemon.stream() as connection:
        connection.sendall(question("x").encode().ljust(octets))
        assert all_of(connection).decode().startswith("MON/1 - ")


def test_the_longest_line_is_none_too_long(daemon: RunningDaemon, starwars: Application) -> None:
    line = question("starwars").ljust(MAX_LINE_OCTETS)
    assert daemon.says(line) == answer_of(starwars) + "\r\n"


def test_a_slow_line_ends_the_connection(
    daemon: RunningDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MK-26: octets now and then don't buy more time."""
    monkeypatch.setattr(streamdoor, "LINE_SECONDS", 0.1)
    with daemon.stream() as connection:
        connection.settimeout(0.02)
        said = None
        for octet in question("starwars").encode() * 10:
            try:
                connection.send(bytes([octet]))
                said = connection.recv(100)
                break
            except TimeoutError:
                continue
            except ConnectionError:
                said = b""
                break
        assert said == b""
    assert daemon.counted("slow") == 1


def test_silent_connections_of_one_source_keep_nobody_out(
    daemon: RunningDaemon, starwars: Application
) -> None:
    """MK-26: a stranger holds as many as he may; an honest asker is served."""
    held = [daemon.stream(source="127.0.0.66") for _ in range(CONNECTIONS_OF_A_SOURCE + 10)]
    try:
        until(lambda: daemon.counted("source_crowd") == 10)
        assert daemon.answer("starwars").startswith("+ ")
        with daemon.stream(source="127.0.0.66") as one_more:
            assert all_of(one_more) == b"MON/1 - 0000000000000000 busy too many connections\r\n"
    finally:
        for connection in held:
            connection.close()
    until(lambda: daemon.daemon.status()["connections"] == 0)


def test_many_sources_push_out_their_own_silence(
    daemon: RunningDaemon, starwars: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    crowd = limits.Crowd(in_all=8, of_a_source=2)
    monkeypatch.setattr(daemon.daemon._streams, "_crowd", crowd)
    held = [daemon.stream(source=f"127.0.1.{number}") for number in range(1, 20)]
    try:
        until(lambda: daemon.counted("crowd") >= 11)
        assert daemon.answer("starwars").startswith("+ ")
        assert len(crowd) <= 8
    finally:
        for connection in held:
            connection.close()


def test_those_that_give_way_are_gone_before_the_next_are_let_in(
    daemon: RunningDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when a hundred wait at once to be accepted."""
    door = daemon.daemon._streams
    monkeypatch.setattr(door, "_crowd", limits.Crowd(in_all=8, of_a_source=2))
    present: list[int] = []
    admit = door._admit

    def admitted(connection: socket.socket, peer: tuple[str, int]) -> None:
        admit(connection, peer)
        present.append(len(door._tasks))

    monkeypatch.setattr(door, "_admit", admitted)
    waiting, go_on = threading.Event(), threading.Event()

    def hold_up() -> None:
        waiting.set()
        go_on.wait(PATIENCE)

    daemon.loop.call_soon_threadsafe(hold_up)
    assert waiting.wait(PATIENCE)
    held = [daemon.stream(source=f"127.0.1.{number}") for number in range(1, 101)]
    try:
        go_on.set()
        until(lambda: len(present) == len(held))
        assert max(present) < 20
    finally:
        for connection in held:
            connection.close()


def test_questions_of_one_source_are_bounded(tmp_path: Path) -> None:
    """MK-26: ten seconds' worth at once, and no more."""
    with running(tmp_path, queries=1.0) as daemon:
        said = [daemon.says(question("x"), source="127.0.0.66") for _ in range(30)]
        busy = sum(" busy" in each for each in said)
        assert 15 <= busy <= 20
        assert " unknown" in daemon.says(question("x"), source="127.0.0.1")


@pytest.mark.parametrize(
    "line",
    ["MON/1", "MON/1 Q", "MON/2 Q x", f"MON/1 + {NONCE} 1 tcp 1 4 60", "MON/1 E !", "MON/1 E QUJD"],
)
def test_a_malformed_line_is_refused(daemon: RunningDaemon, line: str) -> None:
    said = daemon.says(line)
    assert said.startswith("MON/1 - ")
    assert said.split(" ")[3].strip() in ("malformed", "key")


def test_a_policy_of_names_holds(tmp_path: Path) -> None:
    """MK-17: a service that strangers may not have looks like one that may not be asked for."""
    rules = (ServiceRule(False, "secret*"),)
    with running(tmp_path, rules=rules) as daemon, daemon.application() as application:
        application.register("secret-1")
        assert daemon.answer("secret-1").startswith("- denied")
        assert daemon.answer("secret-2").startswith("- denied")


# ---------------------------------------------------------------------------- TCPMUX


def test_tcpmux_hands_the_connection_to_the_server(
    daemon: RunningDaemon, starwars: Application
) -> None:
    """RFC 1078: + and then the server itself; what the client sent at once is not lost."""
    with daemon.stream() as client:
        client.sendall(b"StarWars\r\nhello")
        connection, peer = accepted(starwars)
        with connection:
            assert peer == list(client.getsockname())
            assert connection.gettimeout() is None
            assert connection.recv(100) == b"hello"
            connection.sendall(b"obi-wan")
            connection.shutdown(socket.SHUT_WR)
            assert all_of(client) == b"+\r\nobi-wan"
    until(lambda: daemon.trace.counters["moniker.handed_over"] == 1)


def accepted(application: Application) -> tuple[socket.socket, list[object]]:
    """The connection that the daemon hands over, and its peer."""
    octets, came, _, _ = socket.recv_fds(application.connection, 4096, 4)
    assert b'"event":"tcpmux"' in octets
    event = json.loads(octets)
    return socket.socket(fileno=came[0]), event["peer"]


def test_tcpmux_refuses_what_is_not_offered(daemon: RunningDaemon, starwars: Application) -> None:
    starwars.register("private")
    for name in ("private", "nothing", "a/b"):
        assert daemon.says(name).startswith("-")


def test_a_list_for_those_of_this_host_only(tmp_path: Path) -> None:
    """MK-28; a loopback address is one of this host's."""
    with running(tmp_path) as daemon, daemon.application() as application:
        application.register("starwars", namespace="alice")
        assert daemon.says("HELP") == "alice::starwars\r\n"


def test_a_server_that_does_not_take_connections_is_not_waited_for(
    daemon: RunningDaemon, starwars: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("oegw.moniker.daemon.handover.WAITING_OF_A_SERVER", 0)
    assert daemon.says("starwars") == "-the service does not answer\r\n"


# ------------------------------------------------------------------------------- UDP


def datagram(
    daemon: RunningDaemon, octets: bytes, host: str = "127.0.0.1", patience: float = PATIENCE
) -> bytes:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as asker:
        asker.settimeout(patience)
        asker.connect((host, daemon.port))  # so that an answer from another address is not seen
        asker.send(octets)
        return asker.recv(4096)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.9", "::1"])
def test_a_datagram_is_answered_from_the_address_that_was_asked(
    daemon: RunningDaemon, starwars: Application, host: str
) -> None:
    """MK-2, MK-33."""
    said = datagram(daemon, question("starwars").encode().ljust(256), host)
    assert said.decode() == answer_of(starwars)


def test_no_datagram_has_a_longer_answer(daemon: RunningDaemon, starwars: Application) -> None:
    """MK-27: of no question, good or bad, at no length."""
    lines = [question("starwars"), question("nothing"), question("starwars", versions="7"),
             "MON/1 Q " + NONCE, "HELP", "starwars"]  # fmt: skip
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        asker.settimeout(PATIENCE)
        asker.connect(("127.0.0.1", daemon.port))
        for line in lines:
            for octets in range(len(line), len(line) + 60, 7):
                asker.send(line.encode().ljust(octets))
                asker.send(question("starwars", nonce="f" * 16).encode().ljust(256))
                found = [asker.recv(4096)]
                if b"f" * 16 not in found[0]:
                    found.append(asker.recv(4096))
                assert len(found) == 1 or len(found[0]) <= octets


def test_a_datagram_is_no_way_to_tcpmux_or_to_a_list(daemon: RunningDaemon) -> None:
    for octets in (b"HELP\r\n", b"starwars\r\n", f"MON/1 + {NONCE} 1 tcp 1 4 60".encode()):
        with pytest.raises(TimeoutError):
            datagram(daemon, octets, patience=0.05)


def test_strangers_octets_raise_nothing_and_the_honest_are_served(
    daemon: RunningDaemon, starwars: Application
) -> None:
    hostile(daemon, 1000, 200)
    assert daemon.answer("starwars").startswith("+ ")


@pytest.mark.fuzz
def test_a_flood_of_strangers_octets(daemon: RunningDaemon, starwars: Application) -> None:
    hostile(daemon, 30_000, 1500)
    assert daemon.answer("starwars").startswith("+ ")


def hostile(daemon: RunningDaemon, datagrams: int, streams: int) -> None:
    dice = random.Random(7)
    seeds = [question("starwars").encode(), b"HELP\r\n", f"MON/1 E {'A' * 400}".encode()]

    def bad() -> bytes:
        octets = bytearray(dice.choice(seeds))
        for _ in range(dice.randrange(1, 6)):
            octets[dice.randrange(len(octets))] = dice.randrange(256)
        return bytes(octets[: dice.randrange(len(octets) + 1)])

    failures: list[object] = []
    daemon.loop.call_soon_threadsafe(
        daemon.loop.set_exception_handler, lambda _, context: failures.append(context)
    )
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        asker.connect(("127.0.0.1", daemon.port))
        for _ in range(datagrams):
            asker.send(bad() or b"x")
    for _ in range(streams):
        with daemon.stream(source="127.0.0.66") as connection:
            connection.sendall(bad() + dice.choice([b"", b"\n", b"\r\n", b"\x00"]))
    assert not failures
    assert threading.active_count() < 50


def test_a_mistake_of_ours_ends_one_question_and_is_told(
    daemon: RunningDaemon, starwars: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("ours")

    with monkeypatch.context() as patch:
        patch.setattr(daemon.daemon._desk, "asked", broken)
        assert daemon.says(question("starwars")) == ""
    until(lambda: daemon.counted("internal") == 1)
    assert daemon.answer("starwars").startswith("+ ")


def test_the_socket_can_be_of_another_transport(daemon: RunningDaemon) -> None:
    """MK-7: the answer says which."""
    with (
        daemon.application() as application,
        bound_socket(kind=socket.SOCK_DGRAM) as udp,
        bound_socket() as tcp,
    ):
        application.register("sip", bound=udp)
        application.register("sip", bound=tcp)
        assert daemon.answer("sip", transport="udp") == f"+ {port_of(udp)} udp 1 46 60"
        assert daemon.answer("sip", transport="tcp") == f"+ {port_of(tcp)} tcp 1 46 60"
        assert daemon.answer("sip", transport="sctp").startswith("- transport")
