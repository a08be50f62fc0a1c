"""Two routers that are booted, the hosts behind them, and an Internet between them.

    alice 192.1.0.65 --- 192.1.0.1 [a] 192.1.1.4 --+-- 192.1.1.5 [b] 192.2.0.1 --- 192.2.0.66 bob
                      +- 192.1.0.2 [d] 192.1.1.6 --+
                                                   |
                                  192.1.1.1 router, 192.1.1.53 DNS, 192.1.1.70 q

Alice, Bob and the Internet are network namespaces; each boot of a router gets a new one, for a
power cut takes the rules of the kernel with it.  Its links keep their hardware addresses.  Router d
is there when it is asked for (`spare`).  Addresses are those of netns-lab/.  The DNS is BIND, and
takes updates that are signed.
"""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from tests.deploy.machine import Machine, await_true
from tests.support.intercept_net import Capture, within
from tests.support.named import Named

ALICE, BOB, Q = "192.1.0.65", "192.2.0.66", "192.1.1.70"
DNS, INTERNET = "192.1.1.53", "192.1.1.1"
ZONES = ("1.1.192.in-addr.arpa.", "0.1.192.in-addr.arpa.", "0.2.192.in-addr.arpa.")

_numbers = itertools.count()


@dataclass(frozen=True, slots=True)
class Place:
    """Of a router: its addresses, its host."""

    outer: str
    inner: str
    host: str
    host_name: str

    @property
    def network(self) -> str:
        return self.inner.rpartition(".")[0] + ".0/24"


PLACES = {
    "a": Place("192.1.1.4", "192.1.0.1", ALICE, "alice"),
    "b": Place("192.1.1.5", "192.2.0.1", BOB, "bob"),
}
"""Of the routers that are always there."""
SPARE = Place("192.1.1.6", "192.1.0.2", ALICE, "alice")
ALL_PLACES = {**PLACES, "d": SPARE}


def furnish(machine: Machine, links: Mapping[str, tuple[str, str]]) -> None:
    """Its name, its resolver, and of each link the address and the default router, if any."""
    machine.write("/etc/hostname", f"{machine.name}\n")
    machine.write("/etc/resolv.conf", f"nameserver {DNS}\n")
    for link, (address, router) in links.items():
        way = f"Gateway={router}\n" if router else ""
        machine.write(
            f"/etc/systemd/network/{link}.network",
            f"[Match]\nName={link}\n[Network]\nIPv6AcceptRA=no\nAddress={address}/24\n{way}",
        )


def _ip(lines: str, namespace: str = "", *, check: bool = True) -> None:
    """Words of `ip`, a line each."""
    options = ("-n", namespace) if namespace else ()
    command = (
        ["ip", *options, "-force", "-batch", "-"] if not check else ["ip", *options, "-b", "-"]
    )
    done = subprocess.run(command, input=lines, text=True, capture_output=True)
    assert not check or done.returncode == 0, done.stderr


class Site:
    """A context that removes it again.  ``machines``: the routers, not booted yet."""

    # What a site with more roots does otherwise.
    _internet: ClassVar[Sequence[str]] = (INTERNET, DNS, Q)
    _places: ClassVar[Mapping[str, Any]] = PLACES
    _name_server: ClassVar[Callable[..., AbstractContextManager[Any]]] = Named

    def __init__(self, folder: Path) -> None:
        self._stem = f"oegwd{os.getpid()}x{next(_numbers)}"
        self._folder = folder
        self._undo = ExitStack()
        self._namespaces: dict[str, str] = {}
        self.machines = {name: Machine(name, folder) for name in PLACES}
        self.dns: Any

    @property
    def a(self) -> Machine:
        return self.machines["a"]

    @property
    def b(self) -> Machine:
        return self.machines["b"]

    def __enter__(self) -> Site:
        with ExitStack() as undo:
            net = self._namespace("net")
            for name in ("alice", "bob"):
                self._namespace(name)
            undo.callback(self._remove_namespaces)
            within(net, lambda: _forward(redirects=False))
            _ip(
                "link set lo up\n"
                f"link add br0 address {_hardware(INTERNET)} type bridge\n"
                "link set br0 promisc on up\n"
                + "".join(f"addr add {each}/24 dev br0\n" for each in self._internet)
                , net,
            )  # fmt: skip
            for place in PLACES.values():
                _ip(
                    f"link set lo up\nlink add eth0 address {_hardware(place.host)} type bridge\n"
                    f"link set eth0 up\naddr add {place.host}/24 dev eth0\n"
                    f"route add default via {place.inner}\n", self._namespaces[place.host_name],
                )  # fmt: skip
            self.dns = undo.enter_context(
                self._name_server(self._folder, ZONES, address=DNS, port=53, namespace=net)
            )
            for name, machine in self.machines.items():
                undo.enter_context(machine)
                self._furnish(machine, self._places[name])
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()

    def _namespace(self, name: str) -> str:
        self._namespaces[name] = full = f"{self._stem}{name}"
        _ip(f"netns add {full}\n")
        return full

    def _remove_namespaces(self) -> None:
        _ip("".join(f"netns del {each}\n" for each in self._namespaces.values()), check=False)

    @staticmethod
    def _furnish(machine: Machine, place: Place) -> None:
        """As somebody who sets up a router leaves it, before oegw is there."""
        furnish(machine, {"out0": (place.outer, INTERNET), "in0": (place.inner, "")})
        machine.write("/etc/sysctl.d/60-router.conf", "net.ipv4.ip_forward = 1\n")

    # ------------------------------------------------------------------------ life

    @contextmanager
    def spare(self) -> Iterator[Machine]:
        """Router d, which is booted, at the links of router a."""
        with Machine("d", self._folder) as machine:
            self.machines["d"] = machine
            try:
                self._furnish(machine, SPARE)
                self.boot("d")
                yield machine
            finally:
                del self.machines["d"]

    def boot(self, *names: str, wait: bool = True) -> None:
        """Boot routers, each with new links; both at the same time."""
        names = names or tuple(PLACES)
        for name in names:
            self.machines[name].boot(self._linked(name), wait=False)
        if wait:
            for name in names:
                self.machines[name].await_boot()

    def _linked(self, name: str) -> str:
        """A new namespace for a router, with links that are not up inside."""
        place, net = ALL_PLACES[name], self._namespaces["net"]
        host = self._namespaces[place.host_name]
        inside = self._namespace(name)
        _ip(
            f"link add to-{name} netns {net} type veth"
            f" peer name out0 address {_hardware(place.outer)} netns {inside}\n"
            f"link add to-{name} netns {host} type veth"
            f" peer name in0 address {_hardware(place.inner)} netns {inside}\n"
        )
        _ip(f"link set to-{name} master br0 up\n", net)
        _ip(f"link set to-{name} master eth0 up\n", host)
        if name in PLACES:
            _ip(f"route replace {place.network} via {place.outer}\n", net)
        return inside

    def plug(self, name: str, where: str, *, into: bool) -> None:
        """A cable of a router: at the Internet, ``net``, or at its host.  The router sees it go."""
        _ip(f"link set to-{name} {'up' if into else 'down'}\n", self._namespaces[where])

    def cut_power(self, name: str) -> None:
        """The system is destroyed, with what the kernel knew; its disk stays.

        The cables are pulled before the namespace goes: Linux takes its packet rules away first
        and its links some milliseconds later, and would forward meanwhile.
        """
        self.machines[name].cut_power()
        for where in ("net", ALL_PLACES[name].host_name):
            self.plug(name, where, into=False)
        _ip(f"netns del {self._namespaces[name]}\n")

        def gone() -> bool:  # the kernel takes the links away when it has time
            shown = subprocess.run(
                ["ip", "-n", self._namespaces["net"], "link", "show", f"to-{name}"],
                capture_output=True,
            )
            return shown.returncode != 0

        await_true(gone, f"the links of {name} are gone")

    # --------------------------------------------------------------------- traffic

    def ping(self, source: str, target: str, *, count: int = 1, seconds: float = 2.0) -> bool:
        """Whether an answer comes, to ``alice``, ``bob`` or ``net``."""
        command = ["ping", "-q", f"-c{count}", "-i0.2", f"-W{seconds:g}", target]
        return self.within(source, *command).returncode == 0

    def within(self, name: str, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a program in one of the namespaces."""
        net = f"--net=/run/netns/{self._namespaces[name]}"
        return subprocess.run(["nsenter", net, *command], text=True, capture_output=True)

    @contextmanager
    def pinging(self, source: str, target: str, interval: float = 0.02) -> Iterator[None]:
        """Pings without end, also where there is no way to ``target`` for a while."""
        net = f"--net=/run/netns/{self._namespaces[source]}"
        again = f"while :; do ping -q -i{interval:g} {target}; sleep 0.05; done"
        with subprocess.Popen(
            ["nsenter", net, "sh", "-c", again],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        ) as process:  # fmt: skip
            try:
                yield
            finally:
                os.killpg(process.pid, signal.SIGKILL)

    def namespace(self, name: str) -> str:
        """Its full name, of a host or of ``net``."""
        return self._namespaces[name]

    def capture(self) -> Capture:
        """What crosses the Internet: all of it, for the bridge looks at what it passes on."""
        return within(self._namespaces["net"], lambda: Capture("br0"))

    def publish(self, lines: Sequence[str]) -> None:
        """Put records into the DNS, given as lines of a zone file."""
        self._update([f"update add {_with_ttl(line)}" for line in lines])

    def withdraw(self, lines: Sequence[str]) -> None:
        self._update([f"update delete {line}" for line in lines])

    def _update(self, lines: Sequence[str]) -> None:
        updates = "".join(f"{line}\nsend\n" for line in lines)  # an update is of one zone
        net = f"--net=/run/netns/{self._namespaces['net']}"
        done = subprocess.run(
            ["nsenter", net, "nsupdate", "-k", str(self.dns.key_file)],
            input=f"server {DNS}\n{updates}", text=True, capture_output=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr


def _hardware(address: str) -> str:
    """What a box with this address has, whichever boot it is."""
    return "02:00:" + ":".join(f"{int(part):02x}" for part in address.split("."))


def _with_ttl(line: str) -> str:
    name, _, rest = line.partition(" ")
    return f"{name} 60 {rest.strip()}"


def _forward(*, redirects: bool) -> None:
    for name, value in (
        ("ip_forward", 1), ("conf/all/send_redirects", int(redirects)),
        ("conf/default/send_redirects", int(redirects)),
    ):  # fmt: skip
        Path("/proc/sys/net/ipv4", name).write_text(str(value))
