"""Alice, a host with a SOCKS server, and Bob, in network namespaces; nothing leads past the server.

    alice 10.1.0.2 --- 10.1.0.1 server 10.2.0.1 --- 10.2.0.2 bob
          fd00:1::2    fd00:1::1       fd00:2::1    fd00:2::2

The server's host forwards nothing.  What Bob's services say begins with the address that they were
asked from, so each test sees that it was the server's.
"""

from __future__ import annotations

import os
import socket
import socketserver
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from typing import Any

from tests.oegw.socks5.clients.waiting import accepts
from tests.support.intercept_net import Net, within

SERVER = {"4": "10.1.0.1", "6": "fd00:1::1"}  # what Alice connects to
LEAVING = {"4": "10.2.0.1", "6": "fd00:2::1"}  # what Bob sees
ALICE = {"4": "10.1.0.2", "6": "fd00:1::2"}
BOB = {"4": "10.2.0.2", "6": "fd00:2::2"}
NAMES = {"4": "four.test", "6": "six.test"}

OPEN_PORT, PASSWORD_PORT = 1080, 1081  # of the server: without authentication, with it
USER, PASSWORD = "alice", "correct-horse"

ECHO, WEB, SSH, NOBODY = 7000, 8000, 2222, 7999  # Bob's ports; nobody listens at the last
ONLY_4 = 7004  # a port of his IPv4 address only

SILENT = "fd00:77::1"  # an address that Bob's host, which forwards nothing, says nothing about

HOSTS = f"""\
127.0.0.1 localhost
::1 localhost
{BOB["4"]} four.test both.test
{BOB["6"]} six.test both.test
{SILENT} half.test
{BOB["4"]} half.test
"""
PATIENCE = 20.0  # seconds; what takes longer has failed, on a busy machine too


class Bed:
    """``directory``: of the configurations and logs."""

    def __init__(self, net: Net, directory: Path) -> None:
        self.net = net
        self.directory = directory
        self.places = {"alice": net.inside, "server": net.gateway, "bob": net.outside}
        self._resolution = {
            "hosts": HOSTS,
            "resolv.conf": "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n",  # nobody there
        }
        for name, text in self._resolution.items():
            (directory / name).write_text(text)

    def entering(self, place: str, over: Mapping[str, Path] | None = None) -> list[str]:
        """What is put before a program, so that it runs on that host.

        ``over``: files of /etc that it sees instead, beside the names of this network.
        """
        files = {f"/etc/{name}": self.directory / name for name in self._resolution}
        files |= dict(over or {})
        mounts = "".join(f"mount --bind {source} {target}; " for target, source in files.items())
        return [
            "nsenter", f"--net=/run/netns/{self.places[place]}", "unshare", "--mount",
            "sh", "-ec", mounts + 'exec "$@"', "sh",
        ]  # fmt: skip

    def run(
        self, place: str, *command: str, feed: bytes = b"", **environment: str
    ) -> subprocess.CompletedProcess[bytes]:
        """A program that ends by itself, its output and exit code."""
        return subprocess.run(
            [*self.entering(place), *command],
            input=feed, capture_output=True, check=False, timeout=PATIENCE,
            env=dict(os.environ, **environment),
        )  # fmt: skip

    def says(self, place: str, *command: str, feed: bytes = b"", **environment: str) -> str:
        """What a program prints that must succeed."""
        done = self.run(place, *command, feed=feed, **environment)
        assert done.returncode == 0, f"{command[0]} ended with {done.returncode}: {told(done)}"
        return done.stdout.decode()

    @contextmanager
    def running(
        self,
        place: str,
        command: Sequence[str],
        ready: Sequence[tuple[str, int]] = (),
        over: Mapping[str, Path] | None = None,
        log: str = "",
        **environment: str,
    ) -> Iterator[subprocess.Popen[bytes]]:
        """A program in the background; it is there when it listens at the places ``ready``."""
        path = self.directory / (log or Path(command[0]).name + ".log")
        with path.open("ab") as output:
            process = subprocess.Popen(
                [*self.entering(place, over), *command],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                start_new_session=True, env=dict(os.environ, **environment),
            )  # fmt: skip
        try:
            for address, port in ready:
                accepts(
                    lambda: within(self.places[place], lambda: _connect(address, port)),  # noqa: B023
                    process,
                    path,
                )
            yield process
        finally:
            process.terminate()
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def at_alice(self, work: Callable[[], Any]) -> Any:
        """Do something in this process, in a thread on Alice's host."""
        return within(self.net.inside, work)

    def at_bob(self, work: Callable[[], Any]) -> Any:
        return within(self.net.outside, work)


def bracketed(address: str) -> str:
    """As it stands in front of a port."""
    return f"[{address}]" if ":" in address else address


def told(done: subprocess.CompletedProcess[bytes]) -> str:
    return (done.stdout + done.stderr).decode(errors="replace")


def _connect(address: str, port: int) -> None:
    socket.create_connection((address, port), 2).close()


@contextmanager
def standing(directory: Path) -> Iterator[Bed]:
    """The network, and Bob's services."""
    with Net() as net, ExitStack() as stack:
        for key in ("ipv4.ip_forward", "ipv6.conf.all.forwarding"):
            net.run(net.gateway, "sysctl", "-qw", f"net.{key}=0")
        bed = Bed(net, directory)
        for service in bed.at_bob(_services):
            threading.Thread(target=service.serve_forever, args=(0.05,), daemon=True).start()
            stack.callback(service.server_close)
            stack.callback(service.shutdown)
        yield bed


# ----------------------------------------------------------------------- Bob's services


def _peer(address: tuple[Any, ...]) -> str:
    """A peer's address as its family writes it."""
    found = ip_address(address[0].partition("%")[0])
    if isinstance(found, IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    return str(found)


class _Echo(socketserver.BaseRequestHandler):
    """A line with the address that it is asked from, then what it is told."""

    def handle(self) -> None:
        with suppress(ConnectionError):
            self.request.sendall(f"{_peer(self.client_address)}\n".encode())
            while octets := self.request.recv(65536):
                self.request.sendall(octets)


class _EchoDatagrams(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        octets, sock = self.request
        sock.sendto(_peer(self.client_address).encode() + b" " + octets, self.client_address)


class _Web(BaseHTTPRequestHandler):
    """``/N``: N octets behind the line with the address that it is asked from."""

    def do_GET(self) -> None:
        text = f"{_peer(self.client_address)}\n".encode() + bytes(int(self.path[1:] or 0))
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


class _Streams(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


class _Streams6(_Streams):
    address_family = socket.AF_INET6


class _Datagrams(socketserver.UDPServer):
    max_packet_size = 65535


class _Datagrams6(_Datagrams):
    address_family = socket.AF_INET6


class _Webs(ThreadingHTTPServer):
    def server_bind(self) -> None:
        """Without asking a name server that is not there for the host's own name."""
        _Streams.server_bind(self)  # type: ignore[arg-type]
        self.server_name, self.server_port = "bob", self.server_address[1]


class _Webs6(_Webs):
    address_family = socket.AF_INET6


def _services() -> list[socketserver.BaseServer]:
    """One of each family, at the address that is Bob's: an answer has to come from there."""
    return [
        _Streams((BOB["4"], ECHO), _Echo),
        _Streams((BOB["4"], ONLY_4), _Echo),
        _Streams6((BOB["6"], ECHO), _Echo),
        _Datagrams((BOB["4"], ECHO), _EchoDatagrams),
        _Datagrams6((BOB["6"], ECHO), _EchoDatagrams),
        _Webs((BOB["4"], WEB), _Web),
        _Webs6((BOB["6"], WEB), _Web),
    ]
