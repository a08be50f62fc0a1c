"""The SOCKS server beside dante and microsocks, in one run: bulk, connections a second, memory.

    .venv/bin/python tests/bench/bench_socks.py [--rounds 5] [--seconds 3] [--only bulk,rate,idle]

Needs root, dante-server and microsocks (Debian).  All servers run at the same time and do nothing
while another is measured; they are measured in turns, and medians are told, for this machine does
other things too.  ``veth``: client, server and destination are three network namespaces; ``lo``:
all three in one.  The ends (`socks_load.py`) are the same for all.  What the server itself costs
is taken from the kernel's account of its processes.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.bench.accounts import descendants, memory, spent
from tests.support.intercept_net import Net, wait_for

LOAD = str(Path(__file__).with_name("socks_load.py"))
BULK, ANSWER = 7001, 7002
SERVER, OUTSIDE, LOOPBACK = "10.1.0.1", "10.2.0.2", "127.0.0.1"
IDLE = 10_000
AT_A_TIME = 32  # connections that are being set up

OURS = """
version = 1
[dns]
resolvers = "127.0.0.1"
[interfaces]
outside = ["out0"]
[socks]
socket = "{name}.sock"
[[socks.listener]]
address = "{internal}"
port = {port}
[[socks.rule]]
allow = true
destinations = ["10.0.0.0/8", "127.0.0.0/8"]
[socks.limits]
total = 20000
client = 20000
"""

DANTE = """
logoutput: /dev/null
internal: {internal} port = {port}
external: {external}
clientmethod: none
socksmethod: none
user.privileged: root
user.unprivileged: root
client pass {{ from: 0.0.0.0/0 to: 0.0.0.0/0 }}
socks pass {{ from: 0.0.0.0/0 to: 0.0.0.0/0 }}
"""


@dataclass(frozen=True)
class Place:
    """Namespaces of client, server and destination; the addresses of the last two."""

    name: str
    client: str
    server: str
    destination: str
    proxy: str
    to: str


@dataclass(frozen=True)
class Server:
    name: str
    process: subprocess.Popen[bytes]
    port: int

    def processes(self) -> list[int]:
        """It, and all that descend from it."""
        return descendants(self.process.pid)

    def seconds(self) -> float:
        """CPU time so far."""
        return spent(self.processes()).both

    def memory(self) -> float:
        """Megabytes that are its own."""
        return memory(self.processes())


def nsenter(namespace: str, *command: str) -> list[str]:
    return ["nsenter", f"--net=/run/netns/{namespace}", *command]


@contextmanager
def ended(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    try:
        yield process
    finally:
        process.terminate()
        process.wait(20)


def start(stack: ExitStack, place: Place, name: str, command: list[str], port: int) -> Server:
    process = stack.enter_context(
        ended(
            subprocess.Popen(
                nsenter(place.server, *command),
                stderr=None if name == "ours" else subprocess.DEVNULL,
            )
        )
    )
    probe = ["bash", "-c", f"exec 3<>/dev/tcp/{place.proxy}/{port}"]
    wait_for(
        lambda: (
            not subprocess.run(
                nsenter(place.client, *probe), check=False, stderr=subprocess.DEVNULL
            ).returncode
        ),
        20,
    )
    return Server(name, process, port)


def servers(stack: ExitStack, place: Place, folder: Path) -> list[Server]:
    toml = folder / f"{place.name}.toml"
    toml.write_text(OURS.format(internal=place.proxy, port=3001, name=place.name))
    external = LOOPBACK if place.name == "lo" else "10.2.0.1"
    conf = folder / f"danted-{place.name}.conf"
    conf.write_text(DANTE.format(internal=place.proxy, port=3002, external=external))
    commands = {"ours": [sys.executable, "-m", "oegw", "socks", "serve", "--config", str(toml)]}
    for name, program, arguments in (
        ("dante", "danted", ["-f", str(conf), "-p", str(conf.with_suffix(".pid")), "-N", "1"]),
        ("microsocks", "microsocks", ["-i", place.proxy, "-p", "3003"]),
    ):
        path = shutil.which(program, path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
        if path is None:
            raise SystemExit(f"{program} is not installed: apt-get install dante-server microsocks")
        commands[name] = [path, *arguments]
    return [
        start(stack, place, name, command, 3001 + number)
        for number, (name, command) in enumerate(commands.items())
    ]


def load(place: Place, server: Server, role: str, port: int, *words: object) -> dict[str, float]:
    """A measurement; beside what it says, the server's CPU time."""
    arguments = [role, place.proxy, str(server.port), place.to, str(port), *map(str, words)]
    before = server.seconds()
    done = subprocess.run(
        nsenter(place.client, sys.executable, LOAD, *arguments),
        check=True, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    said: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return said | {"cpu": server.seconds() - before}


def table(title: str, unit: str, results: dict[str, list[float]], cost: dict[str, float]) -> None:
    middle = {name: statistics.median(each) for name, each in results.items()}
    best = max((value for name, value in middle.items() if name != "ours"), default=1.0)
    print(f"{title} ({unit})")
    for name, value in middle.items():
        spread = f"{min(results[name]):.2f} to {max(results[name]):.2f}"
        ratio = f"   {value / best:.2f} of the best other" if name == "ours" else ""
        print(f"  {name:<12}{value:>10.2f}   ({spread})   {cost[name]:>8.2f}{ratio}")
    sys.stdout.flush()


def bulk(place: Place, measured: list[Server], count: int, rounds: int, seconds: float) -> None:
    results, cost = defaultdict(list), {}
    for _ in range(rounds):
        for server in measured:
            said = load(place, server, "bulk", BULK, count, seconds)
            results[server.name].append(said["gbits"])
            cost[server.name] = said["cpu"] / (said["gbits"] / 8 * (seconds + 0.5))
    table(f"{place.name}, bulk, {count} connections", "Gbit/s; CPU s/GB", results, cost)


def rate(place: Place, measured: list[Server], rounds: int, seconds: float) -> None:
    results, cost = defaultdict(list), {}
    for _ in range(rounds):
        for server in measured:
            said = load(place, server, "rate", ANSWER, AT_A_TIME, seconds)
            results[server.name].append(said["rate"])
            cost[server.name] = said["cpu"] / said["done"] * 1e6
    table(f"{place.name}, connections", "1/s; CPU us each", results, cost)


def idle(place: Place, measured: list[Server], count: int) -> None:
    """Memory of the server's processes; what the kernel needs for the sockets is not in it."""
    print(f"{place.name}, {count} idle connections (MB before, MB with them)")
    for server in measured:
        before = server.memory()
        arguments = ["idle", place.proxy, str(server.port), place.to, str(ANSWER), str(count)]
        holding = subprocess.Popen(
            nsenter(place.client, sys.executable, LOAD, *arguments),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        assert holding.stdin is not None
        assert holding.stdout is not None
        said = holding.stdout.readline()
        with_them = server.memory()
        held = json.loads(said)["held"] if said else "it could not hold them"
        print(f"  {server.name:<12}{before:>8.1f}{with_them:>8.1f}   {held}", flush=True)
        holding.stdin.close()
        holding.wait(60)


def measure(place: Place, arguments: argparse.Namespace, what: list[str]) -> None:
    for key in ("ipv4.tcp_tw_reuse=1", "ipv4.ip_local_port_range=10000 65000",
                "core.somaxconn=8192"):  # fmt: skip
        for namespace in {place.client, place.server, place.destination}:
            subprocess.run(nsenter(namespace, "sysctl", "-qw", f"net.{key}"), check=True)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="oegw-bench-")))
        end = stack.enter_context(
            ended(
                subprocess.Popen(
                    nsenter(
                        place.destination, sys.executable, LOAD, "destination", str(BULK),
                        str(ANSWER),
                    ),
                    stdout=subprocess.PIPE,
                )
            )
        )  # fmt: skip
        assert end.stdout is not None
        end.stdout.readline()
        measured = [
            server
            for server in servers(stack, place, folder)
            if server.name in arguments.servers.split(",")
        ]
        if "bulk" in what:
            for count in map(int, arguments.connections.split(",")):
                bulk(place, measured, count, arguments.rounds, arguments.seconds)
        if "rate" in what:
            rate(place, measured, arguments.rounds, arguments.seconds)
        if "idle" in what:
            idle(place, measured, arguments.idle)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--only", default="bulk,rate,idle")
    parser.add_argument("--places", default="veth,lo")
    parser.add_argument("--servers", default="ours,dante,microsocks")
    parser.add_argument("--connections", default="1,64", help="of bulk")
    parser.add_argument("--idle", type=int, default=IDLE)
    arguments = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with Net() as net:
        places = (
            Place("veth", net.inside, net.gateway, net.outside, SERVER, OUTSIDE),
            Place("lo", net.gateway, net.gateway, net.gateway, LOOPBACK, LOOPBACK),
        )
        for place in places:
            if place.name in arguments.places.split(","):
                measure(place, arguments, arguments.only.split(","))


if __name__ == "__main__":
    main()
