"""Registration over the Unix socket: what there is to be had, and what is refused."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from oegw.moniker.daemon import local
from oegw.moniker.localwire import MAX_LINE_OCTETS
from oegw.moniker.settings import ClientSettings, Grant, ServiceRule
from tests.support.moniker_daemon import (
    PATIENCE,
    Application,
    RunningDaemon,
    bound_socket,
    port_of,
    running,
    until,
)

NOBODY = 65534


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[RunningDaemon]:
    with running(tmp_path) as found:
        yield found


@pytest.fixture
def public() -> Iterator[Path]:
    """A directory that other users can reach."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def application(daemon: RunningDaemon) -> Iterator[Application]:
    with daemon.application() as found:
        yield found


def test_a_registered_service_is_told_until_it_is_unregistered(
    daemon: RunningDaemon, application: Application
) -> None:
    """MK-1, MK-8, MK-11."""
    answer = application.register("StarWars", "4.1")
    assert answer == {"ok": True, "number": 1, "namespace": "-"}
    port = port_of(application.bound[0])
    assert daemon.answer("starwars") == f"+ {port} tcp 4.1 46 60"
    assert application.ask("unregister", number=1) == {"ok": True}
    assert daemon.answer("starwars") == "- unknown no such service"
    assert application.ask("unregister", number=1)["code"] == "unknown"


def test_the_daemon_keeps_no_copy_of_the_socket(
    daemon: RunningDaemon, application: Application
) -> None:
    """Else the port would stay taken when its owner closes it."""
    bound = bound_socket()
    assert application.register("starwars", bound=bound)["ok"]
    port = port_of(bound)
    bound.close()
    with socket.socket(socket.AF_INET6) as again:
        again.bind(("::", port))


def test_entries_end_with_their_connection(daemon: RunningDaemon) -> None:
    """MK-22."""
    application = daemon.application()
    assert application.register("starwars")["ok"]
    application.close()
    until(lambda: daemon.answer("starwars").startswith("- unknown"))
    assert len(daemon.daemon.registry) == 0


FORKING = """
import json, os, socket, sys, time
connection = socket.socket(socket.AF_UNIX)
connection.connect(sys.argv[1])
bound = socket.socket()
bound.bind(("", 0))
bound.listen()
line = json.dumps({"do": "register", "tag": 1, "service": "starwars", "version": "1"}) + "\\n"
socket.send_fds(connection, [line.encode()], [bound.fileno()])
connection.recv(1000)
child = os.fork()
if child == 0:
    time.sleep(60)
    os._exit(0)
print(child, flush=True)
time.sleep(60)
"""


def test_a_killed_server_is_gone_within_a_second_though_its_children_live(
    daemon: RunningDaemon,
) -> None:
    """MK-22: the children have the connection and the listening socket still."""
    with subprocess.Popen(
        [sys.executable, "-S", "-c", FORKING, str(daemon.settings.socket)],
        stdout=subprocess.PIPE, text=True,
    ) as server:  # fmt: skip
        assert server.stdout is not None
        child = int(server.stdout.readline())
        try:
            assert daemon.answer("starwars").startswith("+ ")
            server.kill()
            killed = time.monotonic()
            until(lambda: daemon.answer("starwars").startswith("- unknown"), 5.0)
            assert time.monotonic() - killed < 1.0
            os.kill(child, 0)  # it lives
        finally:
            os.kill(child, signal.SIGKILL)


def test_a_child_that_ends_takes_nothing_along(daemon: RunningDaemon) -> None:
    """A server that forks for each connection (listing 2 of the paper)."""
    with daemon.application() as application:
        assert application.register("starwars")["ok"]
        child = os.fork()
        if child == 0:
            application.connection.close()
            os._exit(0)
        os.waitpid(child, 0)
        assert daemon.answer("starwars").startswith("+ ")
        assert application.ask("list")["ok"]


def test_two_processes_can_not_change_each_others_entries(
    daemon: RunningDaemon, application: Application
) -> None:
    """MK-21: of the same user, too."""
    number = application.register("starwars")["number"]
    program = f"""
import json, socket
connection = socket.socket(socket.AF_UNIX)
connection.connect({str(daemon.settings.socket)!r})
for do in ("unregister", "update"):
    line = json.dumps({{"do": do, "number": {number}, "weight": 1}}) + "\\n"
    connection.sendall(line.encode())
    print(json.loads(connection.recv(1000))["code"])
"""
    said = subprocess.run(
        [sys.executable, "-S", "-c", program], capture_output=True, text=True, check=True
    )
    assert said.stdout.split() == ["unknown", "unknown"]
    assert daemon.answer("starwars").startswith("+ ")


def test_versions_and_weights(daemon: RunningDaemon, application: Application) -> None:
    """MK-9: two versions of one service; the highest that will do is told."""
    old, new = bound_socket(), bound_socket()
    with old, new:
        application.register("http", "1", bound=old)
        application.register("http", "2", bound=new)
        assert daemon.answer("http") == f"+ {port_of(new)} tcp 2 46 60"
        assert daemon.answer("http", versions="1") == f"+ {port_of(old)} tcp 1 46 60"
        assert daemon.answer("http", versions="3").startswith("- version")


def test_update_changes_what_is_given_and_nothing_else(
    daemon: RunningDaemon, application: Application
) -> None:
    """MK-8."""
    number = application.register("starwars", exported=True, text=["episode=4"])["number"]
    assert application.ask("update", number=number, weight=7) == {"ok": True}
    row = application.ask("list")["services"][0]
    assert (row["weight"], row["exported"], row["text"]) == (7, True, ["episode=4"])
    application.ask("update", number=number, text=[], exported=False)
    row = application.ask("list")["services"][0]
    assert (row["weight"], row["exported"], row["text"]) == (7, False, [])
    assert application.ask("update", number=number, weight=0)["code"] == "malformed"
    assert application.ask("update", number=number, weight="1")["code"] == "malformed"


def test_a_service_of_this_host_is_resolved_for_its_applications(application: Application) -> None:
    with bound_socket(kind=socket.SOCK_DGRAM) as bound:
        application.register("sip", "2", bound=bound, sst=True)
        assert application.ask("resolve", service="SIP", versions=">=1") == {
            "ok": True, "port": port_of(bound), "transport": "udp", "version": "2",
            "families": "46", "ttl": 60, "sst": True,
        }  # fmt: skip
    assert application.ask("resolve", service="sip", transport="tcp")["code"] == "transport"
    assert application.ask("resolve", service="sip", namespace="alice")["code"] == "unknown"


def test_the_policy_of_applications_is_told(tmp_path: Path) -> None:
    """MK-17, at the client's side."""
    rule = ServiceRule(False, "telnet", origin="moniker.client.rule[1]")
    with (
        running(tmp_path, client=ClientSettings((rule,), "require")) as daemon,
        daemon.application() as application,
    ):
        assert application.ask("policy") == {
            "ok": True,
            "encrypt": "require",
            "rules": [
                {
                    "allow": False, "service": "telnet", "namespace": "*", "clients": [],
                    "hosts": [], "encrypted": False, "origin": "moniker.client.rule[1]",
                }
            ],
        }  # fmt: skip


def test_a_list_comes_in_pages_that_have_no_gaps(application: Application) -> None:
    """MK-8."""
    with bound_socket() as bound:
        for number in range(150):
            text = ["x=" + "y" * 60, "z=" + "w" * 60]
            application.register(f"service-{number}", bound=bound, text=text)
    names, after, pages = [], 0, 0
    while True:
        page = application.ask("list", after=after)
        assert len(json.dumps(page)) < 2 * MAX_LINE_OCTETS
        names += [row["service"] for row in page["services"]]
        after = page["services"][-1]["number"]
        pages += 1
        if not page["more"]:
            break
    assert names == [f"service-{number}" for number in range(150)]
    assert pages > 1


AS_USER = """
import json, os, pwd, socket, sys
uid = int(sys.argv[2])
os.setgroups([])
os.setresgid(uid, uid, uid)
os.setresuid(uid, uid, uid)
connection = socket.socket(socket.AF_UNIX)
connection.connect(sys.argv[1])
bound = socket.socket()
bound.bind(("", 0))
for line in sys.stdin:
    fds = [bound.fileno()] if "register" in line else []
    socket.send_fds(connection, [line.encode()], fds)
    print(connection.makefile().readline(), end="", flush=True)
"""


def as_user(
    daemon: RunningDaemon, uid: int, *requests: dict[str, object]
) -> list[dict[str, object]]:
    """The answers to requests of another user's process."""
    done = subprocess.run(
        [sys.executable, "-S", "-c", AS_USER, str(daemon.settings.socket), str(uid)],
        input="".join(json.dumps(each) + "\n" for each in requests), capture_output=True,
        text=True, timeout=PATIENCE,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def register(service: str = "http", **more: object) -> dict[str, object]:
    return {"do": "register", "service": service, "version": "1", **more}


@pytest.mark.netns
def test_a_user_has_a_namespace_and_limits(public: Path) -> None:
    """MK-13, MK-21: the system's namespace is not for everybody."""
    with running(public, services=2) as daemon:
        found = as_user(
            daemon, NOBODY, register(), register(namespace="-"), register(namespace="alice"),
            register("second"), register("third"), {"do": "status"},
        )  # fmt: skip
        codes = [row.get("namespace", row.get("code")) for row in found]
        assert codes == ["nobody", "denied", "denied", "nobody", "limit", "denied"]
        assert daemon.counted("local_denied") == 3
        assert daemon.counted("local_limit") == 1


@pytest.mark.netns
def test_a_grant_opens_a_namespace_for_a_name(public: Path) -> None:
    with running(public, grants=(Grant("nobody", "http*"),)) as daemon:
        found = as_user(daemon, NOBODY, register("https"), register("ssh", namespace="-"))
        assert [row.get("namespace", row.get("code")) for row in found] == ["-", "denied"]


@pytest.mark.netns
def test_ports_of_others_are_not_listed(public: Path) -> None:
    with running(public) as daemon, daemon.application() as application:
        application.register("secret")
        application.register("shown", exported=True)
        rows = as_user(daemon, NOBODY, {"do": "list"})[0]["services"]
        assert isinstance(rows, list)
        assert ["port" in row for row in rows] == [False, True]
        assert all("port" in row for row in application.ask("list")["services"])


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        ({"do": "nothing"}, "malformed"),
        ({}, "malformed"),
        ({"do": ["register"]}, "malformed"),
        ({"do": "register", "service": "x", "version": "1"}, "malformed"),  # no socket
        ({"do": "list", "after": "1"}, "malformed"),
        ({"do": "list", "after": True}, "malformed"),
        ({"do": "unregister", "number": 99}, "unknown"),
        ({"do": "unregister"}, "unknown"),
        ({"do": "resolve"}, "malformed"),
        ({"do": "resolve", "service": "a b"}, "malformed"),
        ({"do": "resolve", "service": "x", "versions": "x"}, "malformed"),
    ],
)
def test_a_bad_request_has_a_code_and_the_connection_goes_on(
    application: Application, request_: dict[str, object], code: str
) -> None:
    application.connection.sendall(json.dumps(request_).encode() + b"\n")
    answer = application.read()
    assert (answer["ok"], answer["code"]) == (False, code)
    assert application.ask("list")["ok"]


@pytest.mark.parametrize(
    "fields",
    [
        {"service": ""},
        {"service": "a/b"},
        {"service": 7},
        {"version": "one"},
        {"version": None},
        {"weight": 0},
        {"weight": 1.5},
        {"text": "episode=4"},
        {"text": ["x" * 256]},
        {"text": ["x=\ud800"]},
        {"exported": "yes"},
        {"namespace": "a:b"},
        {"namespace": 1},
    ],
)
def test_a_bad_registration_registers_nothing(
    daemon: RunningDaemon, application: Application, fields: dict[str, object]
) -> None:
    with bound_socket() as bound:
        answer = application.ask("register", bound, **{"service": "x", "version": "1", **fields})
    assert (answer["ok"], answer["code"]) == (False, "malformed")
    assert len(daemon.daemon.registry) == 0


def hostile(daemon: RunningDaemon, application: Application, requests: int) -> None:
    dice = random.Random(7)
    keys = ["do", "tag", "service", "version", "namespace", "weight", "sst", "tcpmux", "exported",
            "text", "number", "after", "versions", "transport"]  # fmt: skip
    words = ["register", "update", "unregister", "list", "resolve", "policy", "status"]
    values = [None, True, -1, 0, 1, 2**70, 1.5, "", "-", "*", "x", "x" * 300, "\ud800", "\x00", "1",
              ">=1,<2", [], ["a=b"], [1], {}, {"a": []}, "tcp", "stream"]  # fmt: skip
    readable, writable = os.pipe()
    with bound_socket() as bound:
        for _ in range(requests):
            request = {key: dice.choice(values) for key in dice.sample(keys, dice.randrange(8))}
            request["do"] = dice.choice([*words, dice.choice(values)])
            given = dice.choice([[], [], [bound.fileno()], [readable]])
            line = json.dumps(request).encode() + b"\n"
            socket.send_fds(application.connection, [line], given)
            answer = application.read()
            assert answer["ok"] in (True, False)
            if answer["ok"] is False:
                assert answer["code"]
                assert answer["text"]
            if given and request["do"] != "register":  # it waits for who takes it
                application.ask("register", service="x", version="1")
    os.close(readable)
    os.close(writable)
    assert daemon.counted("local_internal") == 0


def test_whatever_an_application_says_is_answered(
    daemon: RunningDaemon, application: Application
) -> None:
    hostile(daemon, application, 1000)


@pytest.mark.fuzz
def test_whatever_many_applications_say_is_answered(
    daemon: RunningDaemon, application: Application
) -> None:
    hostile(daemon, application, 10_000)


def test_what_comes_along_and_is_no_socket_is_refused(application: Application) -> None:
    readable, writable = os.pipe()
    line = json.dumps(register()).encode() + b"\n"
    socket.send_fds(application.connection, [line], [readable])
    assert application.read()["code"] == "malformed"
    os.close(readable)
    with pytest.raises(BrokenPipeError):  # nobody has it any more: the daemon closed its copy
        os.write(writable, b"x")
    os.close(writable)


@pytest.mark.parametrize("line", [b"{", b"[]", b"1" * 5000, b"[" * 15000, b"\xff\xfe", b""])
def test_what_is_no_json_object_is_said_to_be_none(application: Application, line: bytes) -> None:
    application.connection.sendall(line + b"\n")
    assert application.read() == {
        "ok": False, "code": "malformed", "text": "the request is no JSON object"
    }  # fmt: skip
    assert application.ask("list")["ok"]


def test_a_line_without_an_end_ends_the_connection(
    daemon: RunningDaemon, application: Application
) -> None:
    application.register("starwars")
    application.connection.sendall(b"x" * (MAX_LINE_OCTETS + 1))
    with pytest.raises((EOFError, ConnectionResetError)):
        application.read()
    assert daemon.counted("local_line_too_long") == 1
    until(lambda: len(daemon.daemon.registry) == 0)


def test_descriptors_that_nobody_asked_for_end_the_connection(
    daemon: RunningDaemon, application: Application
) -> None:
    def send_many() -> None:
        for _ in range(4):
            socket.send_fds(application.connection, [b"x"], [bound.fileno()] * 10)
        application.read()

    with bound_socket() as bound:
        with pytest.raises((EOFError, OSError)):
            send_many()
        port = port_of(bound)
    until(lambda: daemon.counted("local_descriptors") == 1)
    until(lambda: is_free(port))  # no copy is left


def is_free(port: int) -> bool:
    try:
        with socket.socket(socket.AF_INET6) as again:
            again.bind(("::", port))
    except OSError:
        return False
    return True


def test_requests_in_one_go_are_answered_in_their_order(application: Application) -> None:
    with bound_socket() as first, bound_socket() as second:
        lines = [
            json.dumps({**register(name), "tag": tag}).encode() + b"\n"
            for tag, name in ((1, "first"), (2, "second"))
        ]
        socket.send_fds(application.connection, lines, [first.fileno(), second.fileno()])
        assert [application.read()["tag"] for _ in range(2)] == [1, 2]
        ports = {row["service"]: row["port"] for row in application.ask("list")["services"]}
        assert ports == {"first": port_of(first), "second": port_of(second)}


def test_a_user_has_a_bound_of_connections(
    daemon: RunningDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon.daemon._local_door, "_most", 2)
    with daemon.application() as first, daemon.application() as second:
        assert first.ask("list")["ok"]
        assert second.ask("list")["ok"]
        with daemon.application() as third, pytest.raises((EOFError, OSError)):
            third.ask("list")
        assert daemon.counted("local_crowd") == 1
        assert first.ask("list")["ok"]


def test_who_does_not_read_is_let_go(
    daemon: RunningDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask_for_ever() -> None:
        while True:
            deaf.connection.sendall(b'{"do": "list", "tag": 1}\n' * 100)

    monkeypatch.setattr(local, "TAKING_SECONDS", 0.05)
    with daemon.application() as deaf:
        deaf.register("starwars", text=["x=" + "y" * 200] * 4)
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            ask_for_ever()
    until(lambda: len(daemon.daemon.registry) == 0)


def test_a_connection_that_ends_while_it_is_written_to_takes_its_descriptor_along(
    daemon: RunningDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the loop would wait for a number that is somebody else's by then."""
    deaf = daemon.application()
    with deaf, daemon.application() as other:
        deaf.register("starwars", text=["x=" + "y" * 200] * 4)
        deaf.connection.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                deaf.connection.send(b'{"do": "list", "tag": 1}\n' * 100)
        deaf.close()
        until(lambda: len(daemon.daemon.registry) == 0)
        for _ in range(10):  # their descriptors are the next free ones
            with daemon.application() as another:
                assert another.ask("list")["ok"]
        assert other.ask("list")["ok"]
    assert daemon.counted("local_internal") == 0


def test_a_mistake_of_ours_ends_one_connection_and_is_told(
    daemon: RunningDaemon, application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("ours")

    monkeypatch.setattr(daemon.daemon._local, "_list", broken)
    with daemon.application() as unlucky, pytest.raises((EOFError, OSError)):
        unlucky.ask("list")
    until(lambda: daemon.counted("local_internal") == 1)
    line = next(line for line in daemon.lines if line.get("trigger") == "local_internal")
    assert "ZeroDivisionError" in line["detail"]
    assert application.ask("policy")["ok"]


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_the_directory_is_open_to_all_whatever_the_umask(public: Path, mask: int) -> None:
    path = public / "oegw" / "moniker.sock"
    before = os.umask(mask)
    try:
        with running(public, socket=path):
            assert path.parent.stat().st_mode & 0o777 == 0o755
            assert path.stat().st_mode & 0o777 == 0o666
    finally:
        os.umask(before)


def test_the_socket_is_there_for_all_and_goes_with_the_daemon(tmp_path: Path) -> None:
    with running(tmp_path) as daemon:
        assert daemon.settings.socket.stat().st_mode & 0o777 == 0o666
    assert not daemon.settings.socket.exists()
