"""A real daemon among strangers who mean it no good: it lives, stays small, serves the honest.

What is asked and answered is written and read here by hand, not by the code under test.
"""

from __future__ import annotations

import base64
import hashlib
import os
import random
import re
import resource
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from oegw.moniker.library.local import ask_daemon
from tests.support.amount import amount
from tests.support.intercept_net import INSIDE, Net, wait_for, within
from tests.support.moniker_strangers import (
    ASKER,
    ASKER6,
    CRLF,
    HERE,
    PORT,
    Application,
    Asker,
    MonikerDaemon,
    bound,
    question,
    seconds_of,
)
from tests.support.serving import MEGABYTE, ROOT, stays_small
from tests.support.sst_packets import UDP, ipv4, packed, udp

pytestmark = pytest.mark.netns

NOBODY = 65534
CROWD = [f"10.1.0.{number}" for number in range(10, 50)]  # further addresses of the asker's


@pytest.fixture(scope="module")
def net() -> Iterator[Net]:
    with Net() as net:
        for address in CROWD:
            net.run(net.inside, "ip", "addr", "add", f"{address}/24", "dev", "in0")
        yield net


@pytest.fixture
def folder() -> Iterator[Path]:
    """One into which other users may look, as into /run/oegw."""
    with tempfile.TemporaryDirectory(prefix="oegw-moniker-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def daemon(net: Net, folder: Path) -> Iterator[MonikerDaemon]:
    with MonikerDaemon(net, folder) as daemon:
        yield daemon


@pytest.fixture
def open_daemon(net: Net, folder: Path) -> Iterator[MonikerDaemon]:
    """One that lets a source ask as often as it likes, so that all comes to be read."""
    with MonikerDaemon(net, folder, "queries = 1000000\n") as daemon:
        yield daemon


def mutated(rng: random.Random, octets: bytes) -> bytes:
    changed = bytearray(octets)
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(len(changed) + 1)
        match rng.randrange(4):
            case 0:
                changed[at:at] = rng.randbytes(rng.randint(1, 8))
            case 1:
                del changed[at : at + rng.randint(1, 8)]
            case 2:
                changed[at : at + 1] = rng.choice((b" ", b"\r", b"\0", b"\xff", b"\xe2\x80\x8b"))
            case _:
                changed[at:at] = changed[: rng.randint(1, 40)] * rng.randint(1, 9)
    return bytes(changed)


def nonsense(rng: random.Random) -> bytes:
    """A line of some kind, or of none."""
    good = rng.choice(
        (
            question("starwars"),
            question("starwars", None, rng.randbytes(16).hex()),
            b"MON/1 E " + rng.randbytes(90).hex().encode(),
            b"MON/1 + " + rng.randbytes(8).hex().encode() + b" 4000 tcp 1 46 60",
            b"MON/1 ? " + rng.randbytes(8).hex().encode() + b" " + b"0" * 32,
            b"MON/2 Q x", b"HELP", b"starwars", b"GET / HTTP/1.1", b"reynolds::http@>=1,<2",
        )
    )  # fmt: skip
    if rng.random() < 0.1:
        return rng.randbytes(rng.randint(0, 2000))
    return mutated(rng, good) if rng.random() < 0.9 else good


def test_malformed_lines_and_datagrams(net: Net, open_daemon: MonikerDaemon) -> None:
    rng = random.Random(26)
    number = amount(4000, 250)
    datagrams = Asker(net).datagrams()
    datagrams.setblocking(False)
    said: Counter[bytes] = Counter()

    def attack() -> None:
        for each in range(number):
            octets = nonsense(rng)
            datagrams.send(octets)
            if each % 10 == 0:
                octets = Asker(net).say(octets + rng.choice((CRLF, b"\n", b"")))
                said[octets[:5]] += 1
            while select.select([datagrams], [], [], 0)[0]:
                said[datagrams.recv(65535)[:5]] += 1

    with Application(open_daemon) as application:
        port = application.register("starwars")
        stays_small(open_daemon, attack)
        assert Asker(net).port_of("starwars") == Asker(net, ASKER6).port_of("starwars") == port
    assert said[b"MON/1"] > number / 10, "no question of these came to be read"
    counters = open_daemon.status()["status"]["counters"]
    assert counters["question.moniker_malformed"] > number / 10


def test_oversized_lines_are_cut_off_where_no_line_is_that_long(
    net: Net, daemon: MonikerDaemon
) -> None:
    def attack() -> None:
        for octets in (b"x" * MEGABYTE, b"MON/1 Q " + b"a" * MEGABYTE, b" " * MEGABYTE):
            assert len(Asker(net).say(octets)) < 200
        with Asker(net).datagrams() as datagrams:
            for size in (1537, 20_000, 60_000):
                datagrams.send(b"MON/1 Q " + b"7" * size)

    with Application(daemon) as application:
        port = application.register("starwars")
        stays_small(daemon, attack)
        assert Asker(net).port_of("starwars") == port


def test_slow_clients_hold_up_nobody_and_are_sent_away(net: Net, daemon: MonikerDaemon) -> None:
    """Slow by an octet now and then, from 40 addresses, as many connections as each may have."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, most), most))
    slow: list[socket.socket] = []
    with Application(daemon) as application:
        port = application.register("starwars")
        began = time.monotonic()
        for address in CROWD:
            slow += [Asker(net, address).connected() for _ in range(33)]
        took = seconds_of(lambda: Asker(net).port_of("starwars") == port)
        assert took < 2, f"the honest client waited {took:.1f} s"
        assert daemon.descriptors < 600, "as many connections as anybody likes"

        trickling = slow[-1]
        trickling.setblocking(True)
        trickling.settimeout(0.4)
        while True:
            try:
                trickling.send(b"M")
                if trickling.recv(100) == b"":
                    break
            except TimeoutError:
                assert time.monotonic() - began < 30, "it may be slow for ever"
            except OSError:
                break
        assert Asker(net).port_of("starwars") == port
        wait_for(lambda: daemon.descriptors < 40, 20)
    for connection in slow:
        connection.close()


def test_a_source_that_asks_too_often_is_told_so_and_others_are_not(
    net: Net, daemon: MonikerDaemon
) -> None:
    flooding = Asker(net, CROWD[0])
    with Application(daemon) as application:
        port = application.register("starwars")
        began = time.monotonic()
        said = [flooding.say(question("starwars") + CRLF) for _ in range(300)]
        granted = 200 + 20 * (time.monotonic() - began)
        refused = [each for each in said if b" busy" in each]
        assert 300 - granted - 10 < len(refused) < 150, "200 at once, and 20 in a second"
        assert refused, "the machine is so slow that nobody could ask too often"
        assert Asker(net).port_of("starwars") == port


class Forger:
    """Datagrams with the source that one likes, and what the daemon sends to such sources.

    Sources that are nowhere are beyond the gateway's default route, where they can be seen.
    """

    def __init__(self, net: Net) -> None:
        self.sent: Counter[str] = Counter()
        self._seen = net.capture(net.outside, "out0")
        self._socket = within(
            net.inside, lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        )

    def send(self, source: str, payload: bytes, port: int = 40000) -> None:
        ends = packed(source), packed(HERE)
        self._socket.sendto(ipv4(*ends, UDP, udp(*ends, port, PORT, payload)), (HERE, 0))
        self.sent[source] += len(payload)

    def answered(self) -> Counter[str]:
        """Octets of UDP to each source."""
        found: Counter[str] = Counter()
        for packet in self._seen.read():
            if packet[0] >> 4 == 4 and packet[9] == UDP:
                length = struct.unpack_from("!H", packet, (packet[0] & 15) * 4 + 4)[0] - 8
                found[socket.inet_ntoa(packet[16:20])] += length
        return found

    def close(self) -> None:
        self._seen.close()
        self._socket.close()


@pytest.fixture
def forger(net: Net) -> Iterator[Forger]:
    forger = Forger(net)
    yield forger
    forger.close()


def test_forged_datagrams_make_no_flood_of_answers(
    net: Net, daemon: MonikerDaemon, forger: Forger
) -> None:
    """MK-27: towards nobody more octets than came in his name, whatever came."""
    rng = random.Random(27)
    with Application(daemon) as application:
        application.register("starwars")
        for number in range(amount(20_000, 1000)):
            source = f"203.0.113.{number % 50 + 1}"
            payload = rng.choice(
                (question("starwars"), question("starwars") + b" " * 90, question("x"),
                 b"MON/1 Q", b"HELP", b"", nonsense(rng))
            )  # fmt: skip
            forger.send(source, payload[:1400])
            if number % 200 == 199:
                answered = forger.answered()
        assert Asker(net).port_of("starwars") is not None
        answered = wait_for(lambda: forger.answered() or None)
    more = {
        s: (forger.sent[s], octets) for s, octets in answered.items() if octets > forger.sent[s]
    }
    assert not more
    assert answered, "nothing was answered at all"


def test_forged_questions_shut_out_nobody(net: Net, daemon: MonikerDaemon, forger: Forger) -> None:
    """Neither the client in whose name they come, nor others."""
    with Application(daemon) as application:
        port = application.register("starwars")
        for number in range(amount(20_000, 3000)):
            forger.send(INSIDE, question("starwars") + b" " * 90)
            forger.send(f"198.18.{number % 250}.{number // 250}", question("starwars"))
        assert Asker(net, ASKER).port_of("starwars") == port
        assert Asker(net, CROWD[5]).port_of("starwars") == port


def test_a_port_behind_the_firewall_opens_for_no_forged_source(
    net: Net, folder: Path, forger: Forger
) -> None:
    """A question that opens a port must come from where the port will be open to (MK-33)."""
    rest = '[moniker.firewall]\ndeny = true\noutside = ["in0"]\n'
    with MonikerDaemon(net, folder, rest) as daemon, Application(daemon) as application:
        port = application.register("starwars")
        for cookie in ((), ("0" * 32,), ("f" * 32,)):
            forger.send(CROWD[1], question("starwars", None, *cookie) + b" " * 90)
        with Asker(net).datagrams() as honest:
            honest.send(question("starwars", "a" * 16) + b" " * 90)
            said = honest.recv(2000).split()
            assert said[1:3] == [b"?", b"a" * 16], "the source is not yet proven"
            honest.send(question("starwars", "b" * 16, said[3].decode()) + b" " * 90)
            assert honest.recv(2000).split()[1:4] == [b"+", b"b" * 16, str(port).encode()]
        assert reaches(net, ASKER, port)
        assert not reaches(net, CROWD[1], port), "open to an address that never asked"
        told = [e["client"] for e in daemon.events() if e["event"] == "told"]
        assert told == [ASKER]


def reaches(net: Net, source: str, port: int) -> bool:
    def connect() -> bool:
        with socket.socket() as made:
            made.settimeout(0.4)
            made.bind((source, 0))
            return made.connect_ex((HERE, port)) == 0

    return within(net.inside, connect)


def test_strangers_who_begin_as_a_host_does_take_no_room(net: Net, folder: Path) -> None:
    """The lease protocol's first line can be said by anybody: the keys of hosts are in the DNS."""
    key = folder / "sst.pem"
    made = [sys.executable, "-m", "oegw", "sst", "keygen", str(key)]
    subprocess.run(made, check=True, capture_output=True, cwd=ROOT)
    hosts_key = bytes([2] * 32)
    rest = (
        f'private_key = "{key}"\n[[moniker.host]]\nname = "bob"\naddresses = ["10.2.0.9"]\n'
        f'key = "{base64.b64encode(hosts_key).decode()}"\n'
    )
    its_id = hashlib.sha256(hosts_key).digest()[:8]
    hello = b"MON/1 L " + base64.urlsafe_b64encode(its_id + bytes([9] * 32)).rstrip(b"=") + CRLF
    with MonikerDaemon(net, folder, rest) as daemon, Application(daemon) as application:
        port = application.register("starwars")
        before, held = daemon.descriptors, []
        for address in CROWD[:10]:
            for _ in range(30):
                connection = Asker(net, address).connected()
                connection.sendall(hello)
                held.append(connection)
        assert any(each.recv(100).startswith(b"MON/1 L ") for each in held[:4]), "not understood"
        assert Asker(net).port_of("starwars") == port
        assert daemon.descriptors < before + 100, "as many as anybody likes"
        for connection in held:
            connection.close()


def as_user(uid: int, text: str, *arguments: object) -> str:
    """What a Python program of another user's says; it knows no code of ours."""
    done = subprocess.run(
        [sys.executable, "-I", "-c", _BEFORE + text, str(uid), *map(str, arguments)],
        capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


_BEFORE = """
import json, os, socket, sys
def drop():
    os.setgroups([]); os.setgid(int(sys.argv[1])); os.setuid(int(sys.argv[1]))
def visit(path):
    s = socket.socket(socket.AF_UNIX); s.connect(path); return s, s.makefile("rb")
def ask(s, f, request, *fds):
    line = json.dumps(request).encode() + b"\\n"
    socket.send_fds(s, [line], fds) if fds else s.sendall(line)
    return json.loads(f.readline())
"""

_THIEF = """
path, number, port = sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
drop()
s, f = visit(path)
said = []
for each in range(number - 2, number + 3):  # those of others, whatever their numbers
    said.append(ask(s, f, {"do": "unregister", "number": each}))
    said.append(ask(s, f, {"do": "update", "number": each, "weight": 1000, "text": ["mine"]}))
said.append(ask(s, f, {"do": "register", "service": "starwars", "version": "1", "port": port}))
mine = socket.socket(); mine.bind(("127.0.0.1", 0)); mine.listen()
for namespace in ("-", "", "root", "ROOT", "daemon"):
    said.append(ask(s, f, {"do": "register", "service": "starwars", "version": "1",
                           "namespace": namespace, "port": port}, mine.fileno()))
loose = socket.socket()
said.append(ask(s, f, {"do": "register", "service": "starwars", "version": "1"}, loose.fileno()))
there = socket.create_connection(mine.getsockname())
said.append(ask(s, f, {"do": "register", "service": "starwars", "version": "1"}, there.fileno()))
said.append(ask(s, f, {"do": "register", "service": "starwars", "version": "1"}, 0))
print(json.dumps([each["ok"] for each in said]))
"""


def test_a_registration_is_nobody_elses(net: Net, daemon: MonikerDaemon) -> None:
    """MK-21: not to change, not to end, not to shadow; and no port that one has not got."""
    with Application(daemon) as application:
        port = application.register("starwars")
        number = application.ask({"do": "list"})["services"][0]["number"]
        said = as_user(NOBODY, _THIEF, daemon.socket, number, port)
        assert set(said.strip("[]").split(", ")) == {"false"}, said
        listed = application.ask({"do": "list"})["services"]
        assert [(e["number"], e["weight"], e["port"]) for e in listed] == [(number, 100, port)]
        assert Asker(net).port_of("starwars") == port


_RUBBISH = r"""
import random
path, rounds = sys.argv[2], int(sys.argv[3])
drop()
rng = random.Random(21)
good = b'{"do": "register", "service": "starwars", "version": "1", "tag": 1}\n'
for number in range(rounds):
    s, f = visit(path)
    s.settimeout(5)
    kind = number % 6
    octets = (rng.randbytes(300) + b"\n", b"[" * 10000 + b"\n", b"x" * 20000,
              b"{" * 5 + b"\n" * 50, good[:rng.randint(1, 60)] + rng.randbytes(4) + b"\n",
              b'{"do":' + b'{"a":' * 900 + b"\n")[kind]
    try:
        if number % 4 == 0:
            socket.send_fds(s, [octets], [0] * rng.choice((1, 16, 17, 100)))
        else:
            s.sendall(octets)
        if kind in (0, 3, 4): f.readline()
    except OSError:
        pass
    s.close()
print("done")
"""

_CROWD = """
import time
path = sys.argv[2]
drop()
made = []
for number in range(700):
    try:
        made.append(visit(path)[0])
    except OSError:
        break
print(len(made), flush=True)
sys.stdin.read()
"""


def test_local_rubbish_and_crowds_keep_no_application_out(net: Net, daemon: MonikerDaemon) -> None:
    rounds = amount(6000, 300)
    stays_small(daemon, lambda: as_user(NOBODY, _RUBBISH, daemon.socket, rounds))
    before = daemon.descriptors
    crowd = subprocess.Popen(
        [sys.executable, "-I", "-c", _BEFORE + _CROWD, str(NOBODY), str(daemon.socket)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert crowd.stdin is not None
    assert crowd.stdout is not None
    assert int(crowd.stdout.readline()) > 512
    with Application(daemon) as application:
        port = application.register("starwars")
        assert Asker(net).port_of("starwars") == port
        # Two for each that may be there: the connection, and the process at its other end.
        assert daemon.descriptors < before + 540, "one user has as many connections as he likes"
    crowd.communicate("")
    wait_for(lambda: daemon.descriptors <= before + 1, 10)


_FLOOD = """
drop()
held = []
print("up", flush=True)
while True:
    try:
        s = socket.socket(socket.AF_UNIX); s.settimeout(1); s.connect(sys.argv[2]); held.append(s)
        if len(held) > 300: held.pop(0).close()
    except OSError: pass
"""


def test_a_local_flood_of_connections_lets_each_have_its_turn(
    net: Net, daemon: MonikerDaemon
) -> None:
    """What the library can't ask is what it does not know: the policy of this host, too."""
    flood = subprocess.Popen(
        [sys.executable, "-I", "-c", _BEFORE + _FLOOD, str(NOBODY), str(daemon.socket)],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert flood.stdout is not None
        assert flood.stdout.readline() == "up\n"
        wait_for(lambda: daemon.descriptors > 300, 20)
        for _ in range(20):
            assert ask_daemon({"do": "policy"}, daemon=daemon.socket, timeout=20.0)["ok"]
        assert Asker(net).port_of("starwars") is None
    finally:
        flood.kill()
        flood.wait()


_JUGGLER = """
import resource, time
_, most = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
drop()
s, f = visit(sys.argv[2])
nothing = os.open("/dev/null", 0)
many = [os.dup(nothing) for _ in range(min(18000, most - 2000))]
held = []
for number in range(200):
    held.append(socket.create_server(("0.0.0.0", 0)))
    assert ask(s, f, {"do": "register", "service": f"s{number}", "version": "1"},
               held[-1].fileno())["ok"]
print("up", flush=True)
while True:
    time.sleep(0.1)
    held = [each.dup() for each in held]  # and the old ones are closed
"""


def test_a_process_with_very_many_descriptors_holds_up_nobody(
    net: Net, daemon: MonikerDaemon
) -> None:
    """Whether it has its sockets still is looked for among them, and they move all the time."""
    with Application(daemon) as application:
        port = application.register("starwars")
        juggler = subprocess.Popen(
            ["nsenter", f"--net=/run/netns/{net.gateway}", sys.executable, "-I", "-c",
             _BEFORE + _JUGGLER, str(NOBODY), str(daemon.socket)],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            assert juggler.stdout is not None
            assert juggler.stdout.readline() == "up\n"
            began, before = time.monotonic(), daemon.processor_seconds
            for _ in range(10):
                assert seconds_of(lambda: Asker(net).port_of("starwars")) < 3
                time.sleep(0.1)
            assert Asker(net).port_of("starwars") == port
            spent = daemon.processor_seconds - before
            assert spent < (time.monotonic() - began) / 2 + 0.3, f"{spent:.1f} s of CPU time"
        finally:
            juggler.kill()
            juggler.wait()


def test_a_killed_server_is_unknown_within_a_second(net: Net, daemon: MonikerDaemon) -> None:
    """MK-22: though a child of it holds the connection still, as one that was forked does."""
    program = _BEFORE + (
        "s, f = visit(sys.argv[2]); held = socket.socket(); held.bind(('0.0.0.0', 0))\n"
        "held.listen(); print(ask(s, f, {'do': 'register', 'service': 'starwars', 'version': '1'},"
        " held.fileno())['ok'], held.getsockname()[1], flush=True)\n"
        "child = os.fork()\n"
        "print(child, flush=True) if child else None\n"
        "import time; time.sleep(60)\n"
    )
    server = subprocess.Popen(
        ["nsenter", f"--net=/run/netns/{net.gateway}", sys.executable, "-I", "-c", program, "0",
         str(daemon.socket)],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert server.stdout is not None
    ok, port = server.stdout.readline().split()
    child = int(server.stdout.readline())
    try:
        assert ok == "True"
        assert Asker(net).port_of("starwars") == int(port)
        server.send_signal(signal.SIGKILL)
        killed = time.monotonic()
        server.wait(10)
        wait_for(lambda: Asker(net).port_of("starwars") is None, 5)
        assert time.monotonic() - killed < 1
    finally:
        os.kill(child, signal.SIGKILL)


def test_after_a_restart_no_port_of_before_is_answered(net: Net, daemon: MonikerDaemon) -> None:
    """A port that a stranger has since taken must not be given for the service that had it."""
    with Application(daemon) as application:
        port = application.register("starwars")
        assert Asker(net).port_of("starwars") == port
        daemon.end(signal.SIGKILL)  # without a chance to tidy up
    taken = within(net.gateway, lambda: bound(port))
    try:
        daemon.start()
        assert Asker(net).port_of("starwars") is None
        said = Asker(net).say(question("starwars") + CRLF)
        assert re.fullmatch(rb"MON/1 - [0-9a-f]{16} unknown[ -~]*\r\n", said)
    finally:
        taken.close()
