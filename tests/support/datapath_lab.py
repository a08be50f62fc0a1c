"""Four network namespaces in a row, alice - gwa - gwb - bob, for one test.

    alice 192.1.0.65 -- gwa -- 192.1.1.4 | 192.1.1.5 -- gwb -- 192.2.0.66 bob     (and IPv6)

What the gateways forward between the two hosts carries the tunnel mark, as interception would
set it.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.support.datapath_sas import (
    A4,
    A6,
    B4,
    B6,
    GATEWAY_A4,
    GATEWAY_A6,
    GATEWAY_B4,
    GATEWAY_B6,
)

ROOT = Path(__file__).resolve().parents[2]
TUNNEL_MARK = "0x20000"


def run(*command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    path = shutil.which(command[0])
    assert path is not None, command[0]
    done = subprocess.run([path, *command[1:]], capture_output=True, text=True, timeout=60)
    assert not check or done.returncode == 0, (command, done.stdout, done.stderr)
    return done


def batch(lines: str, namespace: str | None = None, check: bool = True) -> None:
    """Words of `ip`, a line each; in a namespace, if one is named."""
    command = [str(shutil.which("ip")), *(["-n", namespace] if namespace else [])]
    command += [*([] if check else ["-force"]), "-batch", "-"]
    done = subprocess.run(command, input=lines, capture_output=True, text=True, timeout=60)
    assert not check or done.returncode == 0, (command, done.stdout, done.stderr)


class Gateway:
    """A `tests.support.datapath_gateway` at work."""

    def __init__(self, namespace: str, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [
                str(shutil.which("nsenter")),
                *(f"--net=/run/netns/{namespace}", sys.executable),
                *("-m", "tests.support.datapath_gateway", *arguments),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        self._lines: list[bytes] = []
        self._part = b""
        started: dict[str, tuple[int, int]] = self.read("workers")
        self.workers = {name: pid for name, (pid, _) in started.items()}

    def read(self, key: str, seconds: float = 40) -> Any:
        """The value of the next line that has ``key``."""
        assert self.process.stdout is not None
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            while self._lines:
                answer = json.loads(self._lines.pop(0))
                if key in answer:
                    return answer[key]
            ready, _, _ = select.select([self.process.stdout], [], [], 1)
            if ready:
                octets = os.read(self.process.stdout.fileno(), 65536)
                assert octets, f"the gateway ended, no {key}"
                # More than one line may come at once, and part of one.
                *self._lines, self._part = (self._part + octets).split(b"\n")
        raise AssertionError(f"no {key} within {seconds} s")

    def ask(self, question: str, key: str) -> Any:
        assert self.process.stdin is not None
        self.process.stdin.write(question + "\n")
        self.process.stdin.flush()
        return self.read(key)

    def counters(self) -> dict[str, int]:
        counters: dict[str, int] = self.ask("counters", "counters")
        return counters

    def restarted(self) -> dict[str, tuple[int | None, int]]:
        """The process id of each worker (None: of a successor that does not run yet), and how
        often there was another."""
        reports: dict[str, tuple[int | None, int]] = self.ask("workers", "workers")
        return {name: (pid, restarts) for name, (pid, restarts) in reports.items()}

    def cores(self) -> dict[str, str]:
        """Of the workers that run."""
        cores: dict[str, str] = self.ask("cores", "cores")
        return cores

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


class Lab:
    """``with Lab() as lab``: the namespaces exist, and vanish at the end."""

    def __init__(self) -> None:
        tag = f"oegwdp{os.getpid()}"
        self.alice, self.gwa, self.gwb, self.bob = (
            f"{tag}{name}" for name in ("alice", "gwa", "gwb", "bob")
        )
        self.names = [self.alice, self.gwa, self.gwb, self.bob]
        self.gateways: list[Gateway] = []

    def __enter__(self) -> Lab:
        try:
            self._build()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for gateway in self.gateways:
            gateway.end()
        batch("".join(f"netns del {name}\n" for name in self.names), check=False)

    def inside(self, name: str, *command: str, check: bool = True) -> str:
        done = run("nsenter", f"--net=/run/netns/{name}", *command, check=check)
        return done.stdout + done.stderr

    def start(
        self, family: int, encapsulation: str, algorithm: str = "gcm-128", **settings: Any
    ) -> tuple[Gateway, Gateway]:
        """``settings``: fields of `UserspaceSettings`."""
        first = self.start_one("a", family, encapsulation, algorithm, **settings)
        return first, self.start_one("b", family, encapsulation, algorithm, **settings)

    def start_one(
        self,
        side: str,
        family: int = 4,
        encapsulation: str = "esp",
        algorithm: str = "gcm-128",
        outer_a: tuple[str, int] | None = None,
        **settings: Any,
    ) -> Gateway:
        """``outer_a``: A's address and port as this side sees them."""
        namespace = {"a": self.gwa, "b": self.gwb}[side]
        seen = (outer_a[0], str(outer_a[1])) if outer_a else ()
        said = json.dumps(settings)
        gateway = Gateway(namespace, side, str(family), encapsulation, algorithm, said, *seen)
        self.gateways.append(gateway)
        return gateway

    def ping(self, *arguments: str, target: str = B4, from_: str | None = None) -> bool:
        command = ("ping", "-n", "-i", "0.2", "-W", "2", *arguments, target)
        done = run("nsenter", f"--net=/run/netns/{from_ or self.alice}", *command, check=False)
        self.last = done.stdout + done.stderr
        return done.returncode == 0

    def _build(self) -> None:
        """Few programs do it all: where processes start slowly, they are what takes the time."""
        batch("".join(f"netns add {name}\n" for name in self.names))
        for name in self.names:
            quick = (f"net.ipv6.conf.{which}.accept_dad=0" for which in ("all", "default"))
            forwards = name not in (self.alice, self.bob)
            forwarding = ("net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
            self.inside(name, "sysctl", "-qw", *quick, *(forwarding if forwards else ()))
        batch("".join(self._cables()))
        lines = self._addresses()
        for name in self.names:
            batch("".join(["link set lo up\n", *lines[name]]), name)
        for name in (self.gwa, self.gwb):
            self.inside(
                name,
                "nft",
                "add table inet lab { chain pre { type filter hook prerouting priority mangle; "
                f'iifname "in0" meta l4proto != ipv6-icmp meta mark set {TUNNEL_MARK}; '
                f'iifname "in0" icmpv6 type {{ echo-request, echo-reply }} '
                f"meta mark set {TUNNEL_MARK}; }}; }}",
            )

    def _cables(self) -> list[str]:
        """For `ip -batch`."""
        return [
            link_add(self.alice, "eth0", self.gwa, "in0"),
            link_add(self.gwb, "in0", self.bob, "eth0"),
            *self._cables_outside(),
        ]

    def _addresses(self) -> dict[str, list[str]]:
        """For `ip -batch` in each namespace: addresses, then routes."""
        lines = {
            self.alice: end("eth0", f"{A4}/24", f"{A6}/64"),
            self.gwa: end("in0", "192.1.0.1/24", "2001:db8:1::1/64"),
            self.gwb: end("in0", "192.2.0.1/24", "2001:db8:2::1/64"),
            self.bob: end("eth0", f"{B4}/24", f"{B6}/64"),
        }
        for name, near in ((self.alice, "1"), (self.bob, "2")):
            lines[name].append(f"route add default via 192.{near}.0.1\n")
            lines[name].append(f"route add default via 2001:db8:{near}::1\n")
        for name, more in self._addresses_outside().items():
            lines[name] = [*lines.get(name, ()), *more]
        return lines

    def _cables_outside(self) -> list[str]:
        """Between the gateways: one link."""
        return [link_add(self.gwa, "out0", self.gwb, "out0")]

    def _addresses_outside(self) -> dict[str, list[str]]:
        """Of that link, and the way to what is behind the other gateway."""
        return {
            self.gwa: [
                *end("out0", f"{GATEWAY_A4}/24", f"{GATEWAY_A6}/64"),
                f"route add 192.2.0.0/24 via {GATEWAY_B4}\n",
                f"route add 2001:db8:2::/64 via {GATEWAY_B6}\n",
            ],
            self.gwb: [
                *end("out0", f"{GATEWAY_B4}/24", f"{GATEWAY_B6}/64"),
                f"route add 192.1.0.0/24 via {GATEWAY_A4}\n",
                f"route add 2001:db8:1::/64 via {GATEWAY_A6}\n",
            ],
        }


def link_add(name: str, device: str, peer: str, peer_device: str) -> str:
    ends = f"{device} netns {name} type veth peer name {peer_device} netns {peer}"
    return f"link add {ends}\n"


def end(device: str, *addresses: str) -> list[str]:
    return [f"link set {device} up\n", *(f"addr add {each} dev {device}\n" for each in addresses)]


NAT_INSIDE_A = "10.0.0.4"
NAT_FIRST, NAT_SECOND = "192.1.1.9", "192.1.1.10"


class NatLab(Lab):
    """A stands behind a NAT; IPv4 only outside.

    alice -- gwa -- 10.0.0.4 | 10.0.0.1 -- nat -- 192.1.1.9 | 192.1.1.5 -- gwb -- bob
    """

    def __init__(self) -> None:
        super().__init__()
        self.nat = self.gwa.removesuffix("gwa") + "nat"
        self.names.append(self.nat)

    def map_to(self, address: str, port: int) -> None:
        """From now on, A is seen as this.  The kernel forgets the flows of an address that goes."""
        rules = (
            "add table ip nat; flush table ip nat; table ip nat { chain post { "
            "type nat hook postrouting priority srcnat; "
            f'oifname "out0" udp sport 4500 masquerade to :{port}; }}; }}'
        )
        self.inside(self.nat, "nft", rules)
        self.inside(self.nat, "ip", "addr", "flush", "dev", "out0", check=False)
        self.inside(self.nat, "ip", "addr", "add", f"{address}/24", "dev", "out0")

    def _cables_outside(self) -> list[str]:
        return [
            link_add(self.gwa, "out0", self.nat, "in0"),
            link_add(self.nat, "out0", self.gwb, "out0"),
        ]

    def _addresses_outside(self) -> dict[str, list[str]]:
        return {
            self.gwa: [
                *end("out0", f"{NAT_INSIDE_A}/24"),
                "route add default via 10.0.0.1\n",
                "route add 2001:db8::/32 dev out0\n",
            ],
            self.nat: [*end("in0", "10.0.0.1/24"), *end("out0", f"{NAT_FIRST}/24")],
            self.gwb: [
                *end("out0", f"{GATEWAY_B4}/24"),
                # Only for the reverse path check: what is for A's hosts goes into the tunnel.
                f"route add 192.1.0.0/24 via {NAT_SECOND}\n",
                "route add 2001:db8::/32 dev out0\n",
            ],
        }
