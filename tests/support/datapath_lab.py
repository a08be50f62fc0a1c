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
        started: dict[str, tuple[int, int]] = self.read("workers")
        self.workers = {name: pid for name, (pid, _) in started.items()}

    def read(self, key: str, seconds: float = 40) -> Any:
        """The value of the next line that has ``key``."""
        assert self.process.stdout is not None
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            ready, _, _ = select.select([self.process.stdout], [], [], 1)
            if ready:
                line = self.process.stdout.readline()
                assert line, f"the gateway ended, no {key}"
                answer = json.loads(line)
                if key in answer:
                    return answer[key]
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
        for name in self.names:
            run("ip", "netns", "del", name, check=False)

    def inside(self, name: str, *command: str, check: bool = True) -> str:
        done = run("nsenter", f"--net=/run/netns/{name}", *command, check=check)
        return done.stdout + done.stderr

    def start(
        self, family: int, encapsulation: str, algorithm: str = "gcm-128"
    ) -> tuple[Gateway, Gateway]:
        first = self.start_one("a", family, encapsulation, algorithm)
        return first, self.start_one("b", family, encapsulation, algorithm)

    def start_one(
        self,
        side: str,
        family: int = 4,
        encapsulation: str = "esp",
        algorithm: str = "gcm-128",
        outer_a: tuple[str, int] | None = None,
    ) -> Gateway:
        """``outer_a``: A's address and port as this side sees them."""
        namespace = {"a": self.gwa, "b": self.gwb}[side]
        seen = (outer_a[0], str(outer_a[1])) if outer_a else ()
        gateway = Gateway(namespace, side, str(family), encapsulation, algorithm, "1500", *seen)
        self.gateways.append(gateway)
        return gateway

    def ping(self, *arguments: str, target: str = B4, from_: str | None = None) -> bool:
        command = ("ping", "-n", "-i", "0.2", "-W", "2", *arguments, target)
        done = run("nsenter", f"--net=/run/netns/{from_ or self.alice}", *command, check=False)
        self.last = done.stdout + done.stderr
        return done.returncode == 0

    def _build(self) -> None:
        for name in self.names:
            run("ip", "netns", "add", name)
            self.inside(name, "ip", "link", "set", "lo", "up")
            self.inside(name, "sysctl", "-qw", "net.ipv6.conf.all.accept_dad=0")
            self.inside(name, "sysctl", "-qw", "net.ipv6.conf.default.accept_dad=0")
        self._link(
            self.alice,
            "eth0",
            f"{A4}/24",
            f"{A6}/64",
            self.gwa,
            "in0",
            "192.1.0.1/24",
            "2001:db8:1::1/64",
        )
        self._build_outside()
        self._link(
            self.gwb,
            "in0",
            "192.2.0.1/24",
            "2001:db8:2::1/64",
            self.bob,
            "eth0",
            f"{B4}/24",
            f"{B6}/64",
        )
        for name, near in ((self.alice, "1"), (self.bob, "2")):
            self.inside(name, "ip", "route", "add", "default", "via", f"192.{near}.0.1")
            self.inside(name, "ip", "-6", "route", "add", "default", "via", f"2001:db8:{near}::1")
        for name in (self.gwa, self.gwb):
            self.inside(name, "sysctl", "-qw", "net.ipv4.ip_forward=1")
            self.inside(name, "sysctl", "-qw", "net.ipv6.conf.all.forwarding=1")
            self.inside(
                name,
                "nft",
                "add table inet lab { chain pre { type filter hook prerouting priority mangle; "
                f'iifname "in0" meta l4proto != ipv6-icmp meta mark set {TUNNEL_MARK}; '
                f'iifname "in0" icmpv6 type {{ echo-request, echo-reply }} '
                f"meta mark set {TUNNEL_MARK}; }}; }}",
            )

    def _build_outside(self) -> None:
        """Between the gateways: one link, and the way to what is behind the other."""
        self._link(
            self.gwa,
            "out0",
            f"{GATEWAY_A4}/24",
            f"{GATEWAY_A6}/64",
            self.gwb,
            "out0",
            f"{GATEWAY_B4}/24",
            f"{GATEWAY_B6}/64",
        )
        self._routes_outside()

    def _routes_outside(self) -> None:
        for name, far, via4, via6 in (
            (self.gwa, "2", GATEWAY_B4, GATEWAY_B6),
            (self.gwb, "1", GATEWAY_A4, GATEWAY_A6),
        ):
            self.inside(name, "ip", "route", "add", f"192.{far}.0.0/24", "via", via4)
            self.inside(name, "ip", "-6", "route", "add", f"2001:db8:{far}::/64", "via", via6)

    def _link(self, *ends: str) -> None:
        """Two ends: namespace, device, addresses."""
        half = len(ends) // 2
        (name, device, *addresses), (peer, peer_device, *peer_addresses) = ends[:half], ends[half:]
        run(
            "ip",
            "link",
            "add",
            device,
            "netns",
            name,
            "type",
            "veth",
            "peer",
            "name",
            peer_device,
            "netns",
            peer,
        )
        for where, link, own in ((name, device, addresses), (peer, peer_device, peer_addresses)):
            self.inside(where, "ip", "link", "set", link, "up")
            for address in own:
                self.inside(where, "ip", "addr", "add", address, "dev", link)


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

    def _build_outside(self) -> None:
        self._link(self.gwa, "out0", f"{NAT_INSIDE_A}/24", self.nat, "in0", "10.0.0.1/24")
        self._link(self.nat, "out0", f"{NAT_FIRST}/24", self.gwb, "out0", f"{GATEWAY_B4}/24")
        self.inside(self.nat, "sysctl", "-qw", "net.ipv4.ip_forward=1")
        self.inside(self.gwa, "ip", "route", "add", "default", "via", "10.0.0.1")
        # Only for the reverse path check: what is for A's hosts goes into the tunnel.
        self.inside(self.gwb, "ip", "route", "add", "192.1.0.0/24", "via", NAT_SECOND)
        for name in (self.gwa, self.gwb):
            self.inside(name, "ip", "-6", "route", "add", "2001:db8::/32", "dev", "out0")
