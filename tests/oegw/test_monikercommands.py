"""`oegw moniker` as an operator meets it, beside a real daemon on this host's loopback."""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from oegw import cli, monikerlisten
from oegw.moniker.library.local import ask_daemon
from oegw.moniker.names import MonikerError
from oegw.sst.keys import read_private

ROOT = Path(__file__).parents[2]
SECONDS = 20.0


class Host:
    """A daemon, its configuration, and commands that use it."""

    def __init__(self, folder: Path) -> None:
        self.config = folder / "oegw.toml"
        self.socket = folder / "moniker.sock"
        self.port, self.dns = free_port(), free_port()
        key = folder / "ab.key"
        secret = base64.b64encode(b"of both of them").decode()
        key.write_text(f'key "a.b" {{ algorithm hmac-sha256; secret "{secret}"; }};\n')
        key.chmod(0o600)
        self.config.write_text(
            textwrap.dedent(f"""
            version = 1
            [moniker]
            port = {self.port}
            addresses = ["127.0.0.1"]
            socket = "{self.socket}"
            [moniker.export]
            zone = "site.example"
            host = "bob.example"
            listen = ["127.0.0.1:{self.dns}"]
            [[moniker.export.peer]]
            name = "site.example"
            address = "127.0.0.1"
            port = {self.dns}
            key = "{key}"
            """)
        )
        self.daemon = self.started("serve")

    @property
    def name(self) -> str:
        return f"127.0.0.1:{self.port}"

    def started(self, *words: str, **options: Any) -> subprocess.Popen[str]:
        command, *rest = words
        line = [sys.executable, "-m", "oegw", "moniker", command, "--config", str(self.config)]
        return subprocess.Popen([*line, *rest], cwd=ROOT, text=True, **options)

    @contextmanager
    def serving(self, *words: str) -> Iterator[subprocess.Popen[str]]:
        """`oegw moniker run`, ended at the end."""
        process = self.started("run", *words, stdin=subprocess.PIPE)
        try:
            yield process
        finally:
            process.terminate()
            process.communicate(timeout=SECONDS)

    def services(self) -> dict[str, dict[str, Any]]:
        rows = ask_daemon({"do": "list"}, daemon=self.socket)["services"]
        return {row["service"]: row for row in rows}

    def known(self, service: str) -> Callable[[], bool]:
        return lambda: service in self.services()

    def gone(self, service: str) -> Callable[[], bool]:
        return lambda: service not in self.services()


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def until(true: Callable[[], Any], seconds: float = SECONDS) -> None:
    end = time.monotonic() + seconds
    while True:
        try:
            if true():
                return
        except (MonikerError, OSError):
            pass
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    made = Host(tmp_path_factory.mktemp("moniker"))
    try:
        until(lambda: made.services() == {})
        yield made
    finally:
        made.daemon.terminate()
        assert made.daemon.wait(SECONDS) == 0


class Result:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def oegw(host: Host, capsys: pytest.CaptureFixture[str]) -> Any:
    def run(command: str, *arguments: object) -> Result:
        words = ["moniker", command, "--config", str(host.config), *map(str, arguments)]
        code = cli.main(words)
        captured = capsys.readouterr()
        assert all(line.startswith("oegw: ") for line in captured.err.splitlines()), captured.err
        return Result(code, captured.out, captured.err)

    return run


HTTP = (sys.executable, "-m", "http.server", "{port}")

SERVER = """
import os, socket, sys, time
kind = socket.SOCK_DGRAM if "udp" in sys.argv else socket.SOCK_STREAM
s = socket.socket(socket.AF_INET, kind)
if "reuse" in sys.argv:
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
if "away" in sys.argv:
    if os.fork():
        os._exit(0)
    time.sleep(0.3)
s.bind(("127.0.0.1" if "local" in sys.argv else "0.0.0.0", int(sys.argv[1])))
if kind == socket.SOCK_STREAM:
    s.listen()
if "closes" in sys.argv:
    sys.stdin.readline()
    s.close()
time.sleep(600)
"""


def server(*words: str) -> tuple[str, ...]:
    return (sys.executable, "-c", SERVER, "{port}", *words)


def test_a_server_that_knows_no_names_is_found_by_its_name(host: Host, oegw: Any) -> None:
    """MK-19: its port is in no command line but its own."""
    with host.serving("--weight", "7", "web@2", "--", *HTTP) as process:
        until(host.known("web"))
        row = host.services()["web"]
        assert (row["version"], row["weight"], row["families"]) == ("2", 7, "4")
        shown = oegw("query", host.name, "web@>=2", "--json")
        found = json.loads(shown.out)
        assert (shown.code, found["transport"], found["version"]) == (cli.FINE, "tcp", "2")
        url = oegw("url", f"web://{host.name}/LICENSE?x#y")
        assert url.out == f"web://127.0.0.1:{found['port']}/LICENSE?x#y\n"
        place = oegw("url", "--connect-to", f"web://{host.name}/")
        assert place.out == f"::127.0.0.1:{found['port']}\n"
        curl = ["curl", "-sS", "--connect-to", place.out.strip(), "http://any.example/LICENSE"]
        answer = subprocess.run(curl, capture_output=True, text=True, check=True, timeout=SECONDS)
        assert answer.stdout == (ROOT / "LICENSE").read_text(encoding="utf-8")
        listed = oegw("list")
        assert listed.out.splitlines()[1].split() == ["web", "2", "tcp", "4", "root", "7"]
        assert str(found["port"]) not in listed.out
        wrong = host.started("connect", "--pass-fd", host.name, "web", stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE)  # fmt: skip
        assert "ProxyUseFdpass" in wrong.communicate(timeout=SECONDS)[1]
        assert wrong.returncode == cli.USAGE
        process.send_signal(signal.SIGTERM)
        assert process.wait(SECONDS) == 128 + signal.SIGTERM
    until(host.gone("web"))


def test_a_url_is_one_of_tcp_where_there_is_a_choice(host: Host, oegw: Any) -> None:
    with host.serving("--udp", "both", "--", *server("udp")):
        until(host.known("both"))
        only = oegw("url", f"both://{host.name}/").out
        assert only == f"both://127.0.0.1:{host.services()['both']['port']}/\n"
        with host.serving("both", "--", *server("reuse")):
            until(lambda: host.services()["both"]["transport"] == "tcp")
            port = host.services()["both"]["port"]
            for _ in range(9):
                assert oegw("url", f"both://{host.name}/").out == f"both://127.0.0.1:{port}/\n"


def test_what_there_is_not_is_said_in_one_line(host: Host, oegw: Any) -> None:
    """MK-11."""
    for command in ("query", "connect"):
        result = oegw(command, host.name, "starwars")
        assert (result.code, result.out) == (cli.FAILED, "")
        assert "starwars" in result.err
    assert oegw("url", f"starwars://{host.name}/").code == cli.FAILED


@pytest.mark.parametrize(
    "arguments",
    [
        ("query", "bob", "a b"),
        ("query", "bob:0", "http"),
        ("query", "bob/x", "http"),
        ("url", "no-uri"),
        ("url", "http://"),
        ("run", "http", "--", "server", "80"),
        ("run", "http", "--"),
        ("run", "http", "--udp", "--", "server", "{port}"),  # options come before the name
        ("run", "http@>=1", "--", "server", "{port}"),
        ("run", "--weight", "0", "http", "--", "server", "{port}"),
        ("run", "--text", "novalue", "http", "--", "server", "{port}"),
        ("find", "http", "=x"),
    ],
    ids=" ".join,
)
def test_a_wrong_command_line_is_told(oegw: Any, arguments: tuple[str, ...]) -> None:
    result = oegw(*arguments)
    assert (result.code, result.out) == (cli.USAGE, "")
    assert len(result.err.splitlines()) == 1


def test_without_a_daemon_it_is_said_so(
    oegw: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "oegw.toml"
    config.write_text('version = 1\n[moniker]\nsocket = "nobody.sock"\n')
    for words in (("list",), ("status",), ("run", "--seconds", "1", "x", "--", *server("reuse"))):
        command, *rest = words
        code = cli.main(["moniker", command, "--config", str(config), *rest])
        assert code == cli.NO_DAEMON, words
        assert "nobody.sock" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "words", "families"),
    [
        ((), ("reuse", "local"), "4"),  # one address: a copy of its own socket is the proof
        (("--unheld",), (), "4"),  # without SO_REUSEADDR
        (("--udp",), ("udp",), "4"),
        ((), ("reuse", "away"), "4"),  # forks away, as old daemons do
    ],
    ids=["one address", "unheld", "udp", "forks away"],
)
def test_servers_of_all_kinds(
    host: Host, options: tuple[str, ...], words: tuple[str, ...], families: str
) -> None:
    with host.serving(*options, "kind", "--", *server(*words)) as process:
        until(host.known("kind"))
        row = host.services()["kind"]
        assert row["families"] == families
        assert row["transport"] == ("udp" if "udp" in words else "tcp")
        process.terminate()
        code = process.wait(SECONDS)
        assert code == (0 if "away" in words else 128 + signal.SIGTERM)
    until(host.gone("kind"))


def test_who_kills_the_server_or_us_ends_the_name(host: Host) -> None:
    """MK-22: within a second."""
    with host.serving("mortal", "--", *server("reuse")) as process:
        until(host.known("mortal"))
        (child,) = children_of(process.pid)
        os.kill(child, signal.SIGKILL)
        killed = time.monotonic()
        until(host.gone("mortal"))
        assert time.monotonic() - killed < 5, "a second, on a machine that is not busy"
        assert process.wait(SECONDS) == 128 + signal.SIGKILL
    with host.serving("mortal", "--", *server("reuse")) as process:
        until(host.known("mortal"))
        (child,) = children_of(process.pid)
        process.kill()
        until(host.gone("mortal"))
        until(lambda: not runs(child))


def runs(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def children_of(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    return [int(word) for word in text.split()]


@pytest.mark.parametrize("held", [True, False])
def test_the_port_is_held_until_the_server_listens(host: Host, held: bool) -> None:
    sleeper = (sys.executable, "-c", "import time; time.sleep(600)", "{port}")
    with host.serving(*(() if held else ("--unheld",)), "late", "--", *sleeper) as process:
        until(lambda: "{port}" not in port_of_child(process.pid))
        with socket.socket() as other:
            try:
                other.bind(("127.0.0.1", int(port_of_child(process.pid))))
            except OSError:
                assert held
            else:
                assert not held


def port_of_child(pid: int) -> str:
    """The last word of its command line, once it is the server's."""
    for child in children_of(pid):
        words = Path(f"/proc/{child}/cmdline").read_text(encoding="utf-8").split("\0")
        if len(words) > 1:
            return words[-2]
    raise OSError("not yet")


def test_what_others_have_at_the_port_is_not_the_server() -> None:
    text = """import socket, sys
s = socket.create_server(("127.0.0.1", 0))
print(s.getsockname()[1], flush=True)
sys.stdin.read()"""
    with subprocess.Popen(
        [sys.executable, "-c", text], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as listening:
        assert listening.stdout is not None
        port = int(listening.stdout.readline())
        (found,) = monikerlisten.listeners(port, "tcp", os.getpid())
        assert (found.pid, found.there()) == (listening.pid, True)
        assert monikerlisten.listeners(port, "udp", os.getpid()) == []
        assert monikerlisten.listeners(port, "tcp", listening.pid) == [], "not a child of its own"
        listening.communicate()
        assert not found.there()


def test_a_server_that_listens_no_more_is_forgotten(host: Host) -> None:
    with host.serving("closes", "--", *server("reuse", "closes")) as process:
        until(host.known("closes"))
        assert process.stdin is not None
        process.stdin.write("close\n")
        process.stdin.flush()
        until(host.gone("closes"))
        assert process.poll() is None, "it lives on, without a name"


def test_a_server_that_never_listens_is_ended(host: Host) -> None:
    command = (sys.executable, "-c", "import time; time.sleep(600)", "{port}")
    process = host.started("run", "--seconds", "1", "never", "--", *command, stderr=subprocess.PIPE)
    _, err = process.communicate(timeout=SECONDS)
    assert process.returncode == cli.FAILED
    assert "does not listen" in err
    assert "never" not in host.services()


def test_exit_codes_are_those_of_the_command(host: Host) -> None:
    for words, code in (
        (("/no/such/command", "{port}"), 127),
        (("/etc/passwd", "{port}"), 126),
        (("sh", "-c", "exit 42", "{port}"), 42),
    ):
        process = host.started("run", "code", "--", *words, stderr=subprocess.DEVNULL)
        assert process.wait(SECONDS) == code, words


def test_what_is_exported_is_printed_and_found(host: Host, oegw: Any) -> None:
    """MK-20, and the paper's last goal: asked for by content, not by destination."""
    export = ("--export", "--text", "episode=4", "cinema", "--", *server("reuse"))
    with host.serving(*export):
        until(host.known("cinema"))
        until(lambda: oegw("find", "cinema").code == cli.FINE)
        port = host.services()["cinema"]["port"]
        lines = oegw("export").out.splitlines()
        assert lines[0].startswith("site.example. 10 IN SOA ")
        assert f"_cinema._tcp.site.example. 10 IN SRV 0 100 {port} bob.example." in lines
        assert oegw("find", "cinema", "episode=4").out == "cinema@1://bob.example\n"
        assert oegw("find", "--numeric", "cinema").out == "cinema@1://127.0.0.1\n"
        (found,) = json.loads(oegw("find", "cinema@1", "--json").out)
        assert found["host"] == "bob.example"
        assert str(port) not in json.dumps(found), "MK-5"
        for nothing in (("cinema@2",), ("cinema", "episode=5"), ("theatre",)):
            assert oegw("find", *nothing).code == cli.FAILED
        dig = ["dig", "+short", "@127.0.0.1", "-p", str(host.dns), "SRV"]
        answer = subprocess.run(
            [*dig, "_cinema._tcp.site.example"], capture_output=True, text=True, check=False
        )
        assert answer.stdout == f"0 100 {port} bob.example.\n"


def test_the_status_is_shown(host: Host, oegw: Any) -> None:
    assert str(host.port) in oegw("status").out
    assert json.loads(oegw("status", "--json").out)


# ------------------------------------------------------------------------- the pipe


def test_the_key_for_questions_is_printed_as_the_dns_wants_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key, configuration = tmp_path / "bob.x25519", tmp_path / "oegw.toml"
    where = ["--address", "192.2.0.66", "--name", "bob.example"]
    words = ["moniker", "dns-records", "--config", str(configuration), *where]
    configuration.write_text("version = 1\n[moniker]\n")
    assert cli.main(words) == cli.USAGE
    assert "moniker.private_key" in capsys.readouterr().err
    configuration.write_text(f'version = 1\n[moniker]\nprivate_key = "{key}"\n')
    assert cli.main(["sst", "keygen", str(key)]) == 0
    digits = base64.b64encode(read_private(key).public).decode()
    capsys.readouterr()
    assert cli.main(words) == 0
    assert capsys.readouterr().out.splitlines() == [
        f'{name}. IN TXT "X-SST-Key(10)=192.2.0.66 254 {digits}"'
        for name in ("66.0.2.192.in-addr.arpa", "_sst.bob.example")
    ]


def test_a_server_whose_name_is_refused_is_ended(host: Host) -> None:
    texts = [word for number in range(40) for word in ("--text", f"k{number}={'v' * 200}")]
    process = host.started("run", *texts, "much", "--", *server("reuse"), stderr=subprocess.PIPE)
    _, err = process.communicate(timeout=SECONDS)
    assert process.returncode == cli.FAILED
    assert err.startswith("oegw: ")
    assert "much" not in host.services()
