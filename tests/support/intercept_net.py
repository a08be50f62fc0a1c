"""Three hosts by veth: inside - gateway - outside.  All traffic stays in their namespaces.

    inside 10.1.0.2 --- 10.1.0.1 gateway 10.2.0.1 --- 10.2.0.2 outside, 10.9.0.2 and more
           fd00:1::2    fd00:1::1        fd00:2::1    fd00:2::2        fd00:9::2

On the gateway, ``in0`` and ``out0`` are the interfaces, and ``oegw0`` stands in
for the TUN device: packets with the tunnel mark are routed into it, and can be
captured at its other end.
"""

from __future__ import annotations

import asyncio
import ctypes
import itertools
import os
import select
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any, TypeVar

from oegw.intercept.interception import NftInterception
from oegw.intercept.interface import InterceptSettings
from oegw.trace import JsonTrace
from policy.flow import Flow
from policy.table import PolicyTable

T = TypeVar("T")

ALL_PROTOCOLS = 3  # ETH_P_ALL
SETTINGS = InterceptSettings(outside=("out0",), tunnel_interface="oegw0", queue=4510)
PEER, OTHER_PEER, ON_LINK = "10.9.0.2", "10.9.0.3", "10.2.0.2"
PEER6 = "fd00:9::2"
INSIDE, INSIDE6 = "10.1.0.2", "fd00:1::2"

_numbers = itertools.count()

_QUICK = {f"ipv6/conf/{which}/accept_dad": "0" for which in ("default", "all")}
"""Nobody else is on these links: no second of waiting for others with the same address."""
_FORWARDING = {"ipv4/ip_forward": "1", "ipv6/conf/all/forwarding": "1"}

# The index: the kernel takes a link whose other end has the same one, in whatever namespace, for
# one without another half, and tells IPv6 up to a second later that it is up.
_CABLES = """
link add in0 index 12 netns {inside} type veth peer name in0 netns {gateway}
link add out0 netns {gateway} type veth peer name out0 netns {outside}
"""
_HOSTS = {
    "inside": """
link set lo up
addr add 10.1.0.2/24 dev in0
addr add fd00:1::2/64 dev in0 nodad
link set in0 up
route add default via 10.1.0.1
route add default via fd00:1::1
""",
    "outside": """
link set lo up
addr add 10.2.0.2/24 dev out0
addr add fd00:2::2/64 dev out0 nodad
addr add 10.9.0.2/32 dev lo
addr add 10.9.0.3/32 dev lo
addr add fd00:9::2/128 dev lo nodad
link set out0 up
route add default via 10.2.0.1
route add default via fd00:2::1
""",
    "gateway": """
link set lo up
link add oegw0 type veth peer name tap0
link set oegw0 arp off up
link set tap0 arp off up
addr add 10.1.0.1/24 dev in0
addr add fd00:1::1/64 dev in0 nodad
addr add 10.2.0.1/24 dev out0
addr add fd00:2::1/64 dev out0 nodad
link set in0 up
link set out0 up
route add default via 10.2.0.2
route add default via fd00:2::2
rule add fwmark 0x20000/0x30000 lookup 100
route add default dev oegw0 table 100
route add ::/0 dev oegw0 table 100
""",
    "gateway -6": "rule add fwmark 0x20000/0x30000 lookup 100",
}


def _batch(lines: str, *options: str, check: bool = True) -> None:
    """Words of `ip`, a line each.  Programs that start are what a namespace costs."""
    command = ["ip", *options, "-batch", "-"]
    done = subprocess.run(command, input=lines, text=True, capture_output=True)
    assert not check or done.returncode == 0, done.stderr


def wait_for(condition: Callable[[], Any], seconds: float = 5.0) -> Any:
    """Wait until a condition is true, and return what it said.  A slow guest has more time."""
    deadline = time.monotonic() + seconds * float(os.environ.get("OEGW_LAB_PATIENCE") or 1)
    while not (said := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)
    return said


def enter(namespace: str) -> None:
    """Move this thread into a network namespace."""
    library = ctypes.CDLL(None, use_errno=True)
    with (Path("/run/netns") / namespace).open() as handle:
        if library.setns(handle.fileno(), 0x40000000):
            raise OSError(ctypes.get_errno(), f"setns {namespace}")


def within(namespace: str, work: Callable[[], T]) -> T:
    """Do something in a network namespace; sockets made there stay there."""
    results: list[T] = []
    errors: list[BaseException] = []

    def body() -> None:
        try:
            enter(namespace)
            results.append(work())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def _set(values: dict[str, str]) -> None:
    """Settings of the network namespace in which this thread is."""
    for name, value in values.items():
        (Path("/proc/sys/net") / name).write_text(value)


class Net:
    """The namespaces; a context that removes them again."""

    def __init__(self) -> None:
        stem = f"oegwi{os.getpid()}x{next(_numbers)}"
        self.names = {host: f"{stem}{host}" for host in ("inside", "gateway", "outside")}
        self.inside, self.gateway, self.outside = self.names.values()

    def __enter__(self) -> Net:
        try:
            _batch("".join(f"netns add {name}\n" for name in self.names.values()))
            for name in self.names.values():
                within(name, lambda: _set(_QUICK))
            within(self.gateway, lambda: _set(_FORWARDING))
            _batch(_CABLES.format(**self.names))
            for words, lines in _HOSTS.items():
                host, *family = words.split()
                _batch(lines, "-n", self.names[host], *family)
            wait_for(lambda: self.answers(self.inside, "fd00:2::2"), 10)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        _batch("".join(f"netns del {n}\n" for n in self.names.values()), "-force", check=False)

    def run(self, namespace: str, *command: str) -> str:
        """A program's output."""
        done = subprocess.run(
            ["nsenter", f"--net=/run/netns/{namespace}", *command],
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout

    def answers(self, namespace: str, address: str, seconds: str = "0.2") -> bool:
        """Whether a ping comes back."""
        ping = ["nsenter", f"--net=/run/netns/{namespace}", "ping", "-qc1", "-W", seconds, address]
        return subprocess.run(ping, check=False, capture_output=True).returncode == 0

    def udp(self, namespace: str, address: str = "", port: int = 0, mark: int = 0) -> Udp:
        return within(namespace, lambda: Udp(address, port, mark))

    def capture(self, namespace: str, interface: str) -> Capture:
        return within(namespace, lambda: Capture(interface))


class Udp:
    """A UDP socket of either family."""

    def __init__(self, address: str, port: int, mark: int) -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_DGRAM)
        if mark:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, struct.pack("=I", mark))
        self.socket.bind((address, port))

    def send(self, payload: str, address: str, port: int = 9999) -> bool:
        """Whether the kernel took it: a packet dropped on its way out is refused."""
        try:
            self.socket.sendto(payload.encode(), (address, port))
        except PermissionError:
            return False
        return True

    def receive(self, seconds: float = 0.0) -> list[str]:
        """What has come, waiting so long for the first."""
        came = []
        while select.select([self.socket], [], [], 0 if came else seconds)[0]:
            came.append(self.socket.recv(65535).decode())
        return came

    def close(self) -> None:
        self.socket.close()


class Capture:
    """All IP packets that come in by an interface, or leave by it, as (source, destination)."""

    def __init__(self, interface: str) -> None:
        self.socket = socket.socket(
            socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ALL_PROTOCOLS)
        )
        self.socket.bind((interface, ALL_PROTOCOLS))
        self.packets: list[bytes] = []

    def read(self) -> list[bytes]:
        """Every packet so far."""
        while select.select([self.socket], [], [], 0)[0]:
            self.packets.append(self.socket.recv(65535))
        return self.packets

    def to(self, address: str) -> list[bytes]:
        """The packets so far with this destination."""
        wanted = ip_address(address).packed
        field = slice(24, 40) if ":" in address else slice(16, 20)
        version = 6 if ":" in address else 4
        return [p for p in self.read() if p[0] >> 4 == version and p[field] == wanted]

    def close(self) -> None:
        self.socket.close()


class Gateway:
    """Interception in a thread of its own, in the gateway's namespace, with its event loop."""

    def __init__(self, namespace: str, settings: InterceptSettings = SETTINGS) -> None:
        self._namespace = namespace
        self.trapped: list[tuple[Flow, int, int]] = []
        self.times: list[float] = []
        self.trace = JsonTrace(None, time.time)
        self.interception = NftInterception(settings, self.trace)
        self.loop = asyncio.new_event_loop()
        ready = threading.Event()
        self._thread = threading.Thread(target=self._body, args=(ready,), daemon=True)
        self._thread.start()
        ready.wait()

    def _body(self, ready: threading.Event) -> None:
        enter(self._namespace)
        asyncio.set_event_loop(self.loop)
        self.loop.call_soon(ready.set)
        self.loop.run_forever()

    def _listen(self, flow: Flow, packet: int, size: int) -> None:
        self.times.append(time.perf_counter())
        self.trapped.append((flow, packet, size))

    def start(self, table: PolicyTable) -> None:
        self.wait(self.interception.start(table, self._listen))

    def wait(self, work: Any) -> Any:
        """Run a coroutine to its end."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(60)

    def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call a function in the loop's thread."""

        async def body() -> T:
            return function(*arguments)

        return self.wait(body())

    def await_trapped(self, number: int = 1) -> list[tuple[Flow, int, int]]:
        """Wait until so many packets were reported since the beginning."""
        return wait_for(lambda: self.trapped if len(self.trapped) >= number else None)

    @property
    def counters(self) -> dict[str, int]:
        return self.call(self.interception.counters)

    def end(self) -> None:
        """Stop interception, and the thread with it."""
        try:
            self.wait(self.interception.close())
        finally:
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join()
            self.loop.close()


@contextmanager
def gateway(
    net: Net, table: PolicyTable, settings: InterceptSettings = SETTINGS
) -> Iterator[Gateway]:
    """Interception that runs with this policy."""
    running = Gateway(net.gateway, settings)
    try:
        running.start(table)
        yield running
    finally:
        running.end()
