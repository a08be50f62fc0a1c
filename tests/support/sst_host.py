"""A host in small: a control group that is the root of all groups, and a network of its own.

What runs in it sees its group as the root of version 2, so that `oegw sst enable` reaches this
host and nothing of the machine.  Packets that leave its sockets with the request bit are counted.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from oegw.sst.asking import cgroups
from oegw.sst.settings import SstSettings

ROOT = Path(__file__).parents[2]
BIT = 0x01000000  # the lowest of the usual mark_mask
NOBODY = 65534

_numbers = itertools.count()

_COUNTERS = """
table inet counted {{
    counter asked {{ }}
    counter silent {{ }}
    counter coded {{ }}
    chain out {{
        type filter hook output priority 0
        meta l4proto != {{ tcp, udp }} accept
        ip dscp {dscp} counter name coded
        ip6 dscp {dscp} counter name coded
        meta mark & {bit} == {bit} counter name asked accept
        counter name silent
    }}
}}
"""

_BEGINNING = (
    'umount --lazy "$1" && mount -t cgroup2 none "$1" && ip link set lo up && echo up '
    "&& exec sleep 3600"
)

APPLICATION = f"""
import errno, os, socket, struct, sys, time
from oegw import sst

def drop():
    "From here on as nobody, who has no rights."
    os.setgroups([])
    os.setgid({NOBODY})
    os.setuid({NOBODY})

def mark(s):
    return s.getsockopt(socket.SOL_SOCKET, socket.SO_MARK) & 0xffffffff

def error(call, *arguments):
    try:
        call(*arguments)
    except OSError as error:
        return errno.errorcode[error.errno]
    return None

def say(value):
    import json
    print(json.dumps(value), flush=True)

IP, IPV6 = socket.IPPROTO_IP, socket.IPPROTO_IPV6
"""


class SstHost:
    """The host; a context that removes it again."""

    def __init__(self, mount: Path) -> None:
        self.mount = mount
        self.group = mount / f"oegwt{os.getpid()}x{next(_numbers)}"
        self._init: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> SstHost:
        self.group.mkdir()
        try:
            self._init = subprocess.Popen(
                ["unshare", "--cgroup", "--mount", "--net", "--propagation", "private", "sh", "-c",
                 _BEGINNING, "sh", str(self.mount)],
                preexec_fn=self._join, stdout=subprocess.PIPE,
            )  # fmt: skip
            assert self._init.stdout is not None
            assert self._init.stdout.readline() == b"up\n"
            self.run(
                "nft", "-f", "-", typed=_COUNTERS.format(bit=BIT, dscp=SstSettings().request_dscp)
            )
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._init is not None:
            self._init.kill()
            self._init.wait()
        for pid in self._everybody():
            os.kill(pid, 9)
        for group in sorted(cgroups.groups(self.group), reverse=True):
            cgroups.remove_run_group(group)

    def _everybody(self) -> list[int]:
        found = []
        for group in cgroups.groups(self.group):
            found += [int(pid) for pid in (group / "cgroup.procs").read_text().split()]
        return found

    def _join(self) -> None:
        # What a shell ignores for its background, and nohup(1), and so all that they start.
        for each in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
            signal.signal(each, signal.SIG_DFL)
        (self.group / "cgroup.procs").write_text("0")

    def start(self, *command: str, **options: Any) -> subprocess.Popen[str]:
        """A program on this host."""
        assert self._init is not None
        return subprocess.Popen(
            ["nsenter", f"--target={self._init.pid}", "--cgroup", "--mount", "--net",
             f"--wdns={ROOT}", *command],
            preexec_fn=self._join, text=True, **options,
        )  # fmt: skip

    def run(self, *command: str, code: int = 0, typed: str | None = None) -> str:
        """A program's output, stderr with it; ``code`` is how it must end."""
        piped = {"stdin": subprocess.PIPE} if typed is not None else {}
        process = self.start(*command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **piped)
        said, _ = process.communicate(typed, timeout=60)
        assert process.returncode == code, said
        return said

    def oegw(self, *arguments: object, code: int = 0) -> str:
        """What a command of ours prints, and complains of."""
        return self.run(sys.executable, "-m", "oegw", *map(str, arguments), code=code)

    def application(self, text: str) -> Any:
        """What a small program says; it may ``drop()`` its rights and then ask."""
        said = self.run(sys.executable, "-c", APPLICATION + text)
        return json.loads(said.splitlines()[-1])

    def counted(self) -> tuple[int, int]:
        """Packets of TCP and UDP that asked, and those that did not, since the last time."""
        found = self._reset()
        return found["asked"], found["silent"]

    def counted_code_points(self) -> int:
        """Packets that asked by their code point, since the last time."""
        return self._reset()["coded"]

    def _reset(self) -> dict[str, int]:
        answer = json.loads(self.run("nft", "-j", "reset", "counters", "table", "inet", "counted"))
        return {
            each["counter"]["name"]: each["counter"]["packets"]
            for each in answer["nftables"]
            if "counter" in each
        }


def cgroup_mount(place: Path) -> Path:
    """Where version 2 is mounted; at ``place`` if it was not yet."""
    try:
        return cgroups.mounted()
    except cgroups.CgroupError:
        done = subprocess.run(
            ["mount", "-t", "cgroup2", "none", str(place)], capture_output=True, text=True
        )
        if done.returncode:
            pytest.skip(f"cgroup2 can't be mounted here: {done.stderr.strip()}")
        return place
