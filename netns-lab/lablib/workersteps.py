"""Steps about the processes that move a gateway's packets, and about what they keep of its SAs.

Of the gateway's own memory nothing is known here but what `oegw/datapath/userspace/record.py` says
of its layout: records of SAs in a memfd, one behind the other.
"""

from __future__ import annotations

import mmap
import os
import random
import signal
import struct
import time
from pathlib import Path
from typing import Any

from lablib.errors import LabError
from lablib.lab import Lab
from lablib.programs import await_progress
from lablib.stage import Stage, check_keys
from lablib.waiting import wait_until

KINDS = ("sealing", "opening")
MEMORY = "/memfd:oegw-sa "
_CHUNK, _RECORD, _RING = 1 << 20, 64, 36
_SEQUENCE_AND_PACKETS = struct.Struct("=QQ")
_LAST = 2**64 - 1
_SOFT = _LAST - _LAST // 16  # then a replacement is asked for


def workers(gateway: int, kind: str) -> list[int]:
    """The processes of this kind that process ``gateway`` started."""
    found = []
    for task in Path(f"/proc/{gateway}/task").iterdir():
        for pid in map(int, (task / "children").read_text().split()):
            try:
                command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            except OSError:  # it ended meanwhile
                continue
            if f"oegw.datapath.userspace.{kind}".encode() in command:
                found.append(pid)
    return found


def _pid(lab: Lab, gateway: str) -> int:
    process = lab.gateways[gateway].process
    if process is None:
        raise LabError(f"{gateway} does not run")
    return process.pid


def kill_workers(stage: Stage, step: dict[str, Any]) -> str:
    """SIGKILL to workers of ``gateways``, ``times`` in all, of either kind in turn, at random
    moments; each time ``transfers`` must go on, by ``more`` octets, before the next."""
    check_keys(step, {"gateways", "times", "transfers", "more", "seed"})
    dice = random.Random(step.get("seed", 1))
    for number in range(step["times"]):
        gateway = _pid(stage.lab, dice.choice(step["gateways"]))
        kind = KINDS[number % 2]
        time.sleep(dice.uniform(0, 0.1))
        before = workers(gateway, kind)
        if not before:
            raise LabError(f"no {kind} worker")
        os.kill(dice.choice(before), signal.SIGKILL)
        wait_until(
            f"another {kind} worker",
            lambda gateway=gateway, kind=kind, before=before: (
                len(now := workers(gateway, kind)) == len(before) and set(now) != set(before)
            ),
            10.0,
        )
        for name in step["transfers"]:
            await_progress(stage, {"name": name, "more": step["more"], "within": 20})
    return f"{step['times']} killed"


def age_sas(stage: Stage, step: dict[str, Any]) -> str:
    """All SAs of ``gateways`` that carried something are ``left`` packets from where a replacement
    is asked for: those that send have sent so many, and those that receive have received them."""
    check_keys(step, {"gateways", "left"})
    changed = 0
    for gateway in step["gateways"]:
        pid = _pid(stage.lab, gateway)
        folder = Path(f"/proc/{pid}/fd")
        found = [one for one in folder.iterdir() if str(one.readlink()).startswith(MEMORY)]
        files = {one.stat().st_ino: one for one in found}  # there may be copies of a descriptor
        if len(files) != 1:
            raise LabError(f"{gateway} has {len(files)} memories of SAs")
        with files.popitem()[1].open("r+b") as file:
            size = os.fstat(file.fileno()).st_size
            with mmap.mmap(file.fileno(), size) as memory:
                for offset in _records(memory):
                    if _SEQUENCE_AND_PACKETS.unpack_from(memory, offset)[1]:
                        struct.pack_into("=Q", memory, offset, _SOFT - step["left"])
                        changed += 1
    if not changed:
        raise LabError("no SA carried anything")
    return f"{changed} SAs"


def _records(memory: mmap.mmap) -> list[int]:
    """Where they begin."""
    found, offset = [], 0
    while offset + _RECORD <= len(memory):
        (ring,) = struct.unpack_from("=I", memory, offset + _RING)
        found.append(offset)
        offset += _RECORD + (max(ring // 8, _RECORD) if ring else 0)
    return found
