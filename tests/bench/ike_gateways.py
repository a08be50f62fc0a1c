"""Two gateways to be measured alike: ``oegw run`` and strongSwan's charon, in network namespaces.

Both get the same terms: RSA-2048 raw keys, AES-128-CBC with SHA2-256 and MODP-2048 for the keying
channel, AES-128-GCM in UDP for the tunnel, no perfect forward secrecy, ESP in user space.
"""

from __future__ import annotations

import base64
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from oegw.control import ControlError, request

ROOT = Path(__file__).resolve().parents[2]
CHARON = "/usr/lib/ipsec/charon"
PATIENCE = 30.0  # seconds until a gateway answers, or has ended
NICE = -15
TICKS = os.sysconf("SC_CLK_TCK")


class BenchError(Exception):
    """A gateway or a namespace did not do what the measurement needs."""


def wait_until(what: str, condition: Callable[[], Any], seconds: float = PATIENCE) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise BenchError(f"{what}: not within {seconds:g} s")
        time.sleep(0.01)


def call(*argv: str, environment: dict[str, str] | None = None, check: bool = True) -> str:
    """Run a command to its end; what it printed."""
    done = subprocess.run(
        argv,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=60,
        env={**os.environ, **(environment or {})},
    )
    if check and done.returncode:
        raise BenchError(f"{' '.join(argv)}: {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def inside(namespace: str, *argv: str) -> list[str]:
    return ["nsenter", f"--net=/run/netns/{namespace}", *argv]


def favoured(core: int | None, argv: list[str]) -> list[str]:
    """The command with priority over whatever else the machine does, on one core or on any.

    Otherwise the measurement would be of the neighbours: a process that is woken waits for the
    slice of another, milliseconds, and the more often the more processes a gateway has.  Where the
    scheduler shares out by session, the session is favoured; the command needs one of its own.
    """
    share = f'[ ! -e /proc/self/autogroup ] || echo {NICE} > /proc/self/autogroup; exec "$@"'
    command = ["sh", "-c", share, "sh", "nice", "-n", str(NICE)]
    return [*command, *(["taskset", "-c", str(core)] if core is not None else []), *argv]


@dataclass(frozen=True)
class Key:
    """An RSA-2048 key in the forms that the programs read."""

    private: rsa.RSAPrivateKey = field(repr=False)

    @classmethod
    def make(cls) -> Key:
        return cls(rsa.generate_private_key(65537, 2048))

    def write(self, path: Path) -> None:
        path.touch(mode=0o600)
        path.write_bytes(
            self.private.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.TraditionalOpenSSL,
                serialization.NoEncryption(),
            )
        )

    def write_public(self, path: Path) -> None:
        path.write_bytes(
            self.private.public_key().public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
        )

    @property
    def record(self) -> str:
        """RFC 3110 section 2, as our configuration has it."""
        numbers = self.private.public_key().public_numbers()
        exponent = numbers.e.to_bytes((numbers.e.bit_length() + 7) // 8, "big")
        modulus = numbers.n.to_bytes((numbers.n.bit_length() + 7) // 8, "big")
        return "0s" + base64.b64encode(bytes([len(exponent)]) + exponent + modulus).decode()


@dataclass(frozen=True, slots=True)
class Peer:
    """Who a gateway has a tunnel with: outer address, which is its identity, and network."""

    address: str
    network: str
    key: Key


@contextmanager
def namespaces(*names: str) -> Iterator[list[str]]:
    """Namespaces with names of their own, removed at the end whatever happens."""
    run = secrets.token_hex(3)
    made: list[str] = []
    try:
        for name in names:
            made.append(f"oegwb-{run}-{name}")
            call("ip", "netns", "add", made[-1])
            call("ip", "-n", made[-1], "link", "set", "lo", "up")
        yield made
    finally:
        for name in made:
            call("ip", "netns", "del", name, check=False)


def wire(first: str, second: str) -> None:
    """One link; it is called ``outside`` at both ends."""
    call("ip", "-n", first, "link", "add", "outside", "type", "veth",
         "peer", "name", "outside", "netns", second)  # fmt: skip


def equip(namespace: str, outside: str, within: str) -> None:
    """Addresses: ``outside`` on the link, ``within`` on a link that nobody else is on."""
    for line in (
        f"addr add {outside} dev outside",
        "link set outside up",
        "link add inside type veth peer name host",
        "link set host up",
        f"addr add {within} dev inside",
        "link set inside up",
    ):
        call("ip", "-n", namespace, *line.split())


@contextmanager
def workplace() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="oegw-bench-") as directory:
        yield Path(directory)


class Gateway:
    """A running gateway.  ``seconds`` is the processor time that it and its children have used."""

    def __init__(self, namespace: str, directory: Path, core: int | None) -> None:
        self.namespace = namespace
        self.directory = directory
        self._core = core
        self._process: subprocess.Popen[bytes] | None = None
        directory.mkdir()

    def _launch(self, argv: list[str], environment: dict[str, str]) -> None:
        with (self.directory / "printed").open("wb") as stream:
            self._process = subprocess.Popen(
                inside(self.namespace, *favoured(self._core, argv)),
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                start_new_session=True,
                cwd=self.directory,
                env={**os.environ, **environment},
            )

    def _alive(self) -> None:
        if self._process is None or self._process.poll() is not None:
            raise BenchError(f"{type(self).__name__} ended:\n{self.said()}")

    def said(self) -> str:
        return (self.directory / "printed").read_text(errors="replace")[-4000:]

    def stop(self) -> None:
        if self._process is None:
            return
        process, self._process = self._process, None
        process.terminate()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def seconds(self) -> float:
        assert self._process is not None
        return sum(_processor_seconds(pid) for pid in _family(self._process.pid))


def _family(pid: int) -> list[int]:
    """A process and all below it."""
    found = [pid]
    for parent in found:
        with ExitStack() as stack:
            for task in Path(f"/proc/{parent}/task").iterdir():
                children = stack.enter_context((task / "children").open())
                found += [int(child) for child in children.read().split()]
    return found


def _processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


_OEGW = """
version = 1
[gateway]
addresses = ["{address}"]
private_key = "{directory}/own.pem"
control_socket = "{directory}/control"
state = "{directory}/state.db"
[interfaces]
outside = ["outside"]
[dns]
resolvers = ["127.0.0.1"]
[ike]
channel_proposals = ["aes128-sha256-modp2048"]
tunnel_proposals = ["aes128gcm16"]
pfs = "off"
half_open_per_source = 1000
[datapath]
datapath = "userspace"
encapsulation = "udp"
[default]
category = "permit"
"""

_RULE = """
[[rule]]
name = "peer {number}"
category = "configured"
source = "{network}"
destination = "{peer.network}"
peer = "{peer.address}"
peer_key = "{peer.key.record}"
"""


class Ours(Gateway):
    """``oegw run``, without a trace."""

    name = "oegw"

    def start(self, address: str, network: str, key: Key, peers: Sequence[Peer]) -> None:
        key.write(self.directory / "own.pem")
        text = _OEGW.format(address=address, directory=self.directory)
        for number, peer in enumerate(peers):
            text += _RULE.format(number=number, network=network, peer=peer)
        (self.directory / "oegw.toml").write_text(text)
        config = str(self.directory / "oegw.toml")
        program = [sys.executable, "-P", "-m", "oegw", "run", "--config", config]
        self._launch(program, {"PYTHONPATH": str(ROOT)})
        wait_until("oegw answering", self._answers)

    def _answers(self) -> bool:
        self._alive()
        try:
            return self.ask("status").get("pid") is not None
        except (ControlError, BenchError):  # it starts
            return False

    def ask(self, command: str, **fields: Any) -> dict[str, Any]:
        lines = request(self.directory / "control", {"command": command, **fields}, PATIENCE)
        answer: dict[str, Any] = {}
        for line in lines:
            answer.update(line)
        if "error" in answer:
            raise BenchError(f"oegw {command}: {answer['error']}")
        return answer

    def established(self) -> int:
        """How many tunnels were set up since the start, by its own account."""
        return int(self.ask("status")["counters"].get("tunnel.keyed", 0))

    def tunnels(self) -> int:
        return sum(row["tunnels"] for row in self.ask("status")["connections"])

    def begin(self, source: str, destination: str) -> None:
        """A packet of the gateway itself, which waits for the tunnel."""
        call(*inside(self.namespace, "ping", "-c", "1", "-W", "5", "-I", source, destination))

    def close(self, destination: str) -> None:
        self.ask("close", destination=destination)


_CHARON = """
charon {{
    load = random nonce openssl aes sha1 sha2 hmac gcm kdf pem pkcs1 pkcs8 pubkey {kernel} \
socket-default vici
    dos_protection = no
    ikesa_table_size = 256
    ikesa_table_segments = 16
    plugins {{ vici {{ socket = unix://{directory}/vici }} }}
    filelog {{ log {{ path = {directory}/charon.log
        append = yes
        flush_line = no
        default = 0 }} }}
}}
swanctl {{ load = random openssl pem pkcs1 pkcs8 pubkey sha1 sha2 }}
"""

_CONNECTION = """
    peer{number} {{
        version = 1
        local_addrs = {address}
        remote_addrs = {peer.address}
        proposals = aes128-sha256-modp2048
        encap = yes
        mobike = no
        send_cert = never
        send_certreq = no
        unique = never
        local {{ auth = pubkey
            pubkeys = own.pem
            id = {address} }}
        remote {{ auth = pubkey
            pubkeys = peer{number}.pem
            id = {peer.address} }}
        children {{ net {{
            local_ts = {network}
            remote_ts = {peer.network}
            esp_proposals = aes128gcm16 }} }}
    }}
"""


class Theirs(Gateway):
    """charon with kernel-libipsec, its log at the level of errors and of what was established."""

    name = "strongSwan"

    def start(self, address: str, network: str, key: Key, peers: Sequence[Peer]) -> None:
        for name in ("pubkey", "private"):
            (self.directory / name).mkdir()
        key.write(self.directory / "private" / "own.pem")
        key.write_public(self.directory / "pubkey" / "own.pem")
        connections = ""
        for number, peer in enumerate(peers):
            peer.key.write_public(self.directory / "pubkey" / f"peer{number}.pem")
            connections += _CONNECTION.format(
                number=number, address=address, peer=peer, network=network
            )
        (self.directory / "swanctl.conf").write_text(f"connections {{\n{connections}}}\n")
        (self.directory / "strongswan.conf").write_text(
            _CHARON.format(kernel="kernel-libipsec kernel-netlink", directory=self.directory)
        )
        script = 'mount -t tmpfs -o mode=755 tmpfs /run && exec "$@"'  # its pid file is its own
        own_run = ["unshare", "-m", "--propagation", "private", "sh", "-c", script, "sh"]
        self._launch([*own_run, CHARON], self._environment)

        def answers() -> bool:
            self._alive()
            return (self.directory / "vici").exists() and "uptime" in self._swanctl(
                "--stats", check=False
            )

        wait_until("charon answering", answers)
        loaded = self._swanctl("--load-all")
        if f"successfully loaded {len(peers)} connections" not in loaded:
            raise BenchError(loaded)

    @property
    def _environment(self) -> dict[str, str]:
        return {
            "STRONGSWAN_CONF": str(self.directory / "strongswan.conf"),
            "SWANCTL_DIR": str(self.directory),
        }

    def _swanctl(self, *arguments: str, check: bool = True) -> str:
        command = ["swanctl", *arguments, "--uri", f"unix://{self.directory}/vici"]
        return call(*command, environment=self._environment, check=check)

    def established(self) -> int:
        """How many tunnels it logged as established.  It writes its log now and then only."""
        self._swanctl("--reload-settings")
        log = (self.directory / "charon.log").read_text(errors="replace")
        return log.count("established with SPIs")

    def tunnels(self) -> int:
        return self._swanctl("--list-sas").count("INSTALLED")

    def begin(self, source: str, destination: str) -> None:
        self._swanctl("--initiate", "--child", "net", "--timeout", "5")

    def close(self, destination: str) -> None:
        self._swanctl("--terminate", "--ike", "peer0", "--timeout", "5")


def require_programs() -> None:
    """Say what is missing before anything is begun."""
    for program in (
        "ip",
        "nsenter",
        "nice",
        "taskset",
        "unshare",
        "swanctl",
        "tcpdump",
        "ping",
        CHARON,
    ):
        if shutil.which(program) is None:
            raise BenchError(f"{program} is missing")
    if os.geteuid():
        raise BenchError("network namespaces need root")
