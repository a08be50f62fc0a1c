"""Two gateways with a rough road between them; and what it takes to see what came of it.

    alice -- gwa -- road -- gwb -- bob

Host ``road`` stands between the gateways as a cable does, and harms what passes
(`netns-lab/lablib/roughroad.py`).  All interfaces outside show packets as they are on a wire.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.datapath_lab import ROOT, Lab, end, link_add, run
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

ROAD = ROOT / "netns-lab" / "lablib" / "roughroad.py"
STREAMS = ROOT / "tests" / "support" / "datapath_streams.py"
KERNEL = ROOT / "tests" / "support" / "refusing_kernel.py"
PORT = 5001
_WITNESS = struct.Struct("!II8sQ")  # as the road writes it

Key = list[Any]
"""Direction, SPI, destination: an SA's name in JSON's types."""
Tunnel = tuple[list[dict[str, Any]], list[dict[str, Any]]]
"""A's SAs and B's."""


def wait_for(condition: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.02)


class Conversation:
    """A program in a namespace that is asked in lines, and answers in JSON, a line for each."""

    def __init__(self, namespace: str, *command: str, lacking: str = "") -> None:
        """``lacking``: what the kernel seems to lack, see `tests/support/refusing_kernel.py`."""
        kernel = [sys.executable, "-I", str(KERNEL), lacking] if lacking else []
        self.process = subprocess.Popen(
            [
                str(shutil.which("nsenter")),
                f"--net=/run/netns/{namespace}",
                *kernel,
                sys.executable,
                *command,
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
        )
        self._rest = b""

    def tell(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def line(self, seconds: float = 60) -> str:
        assert self.process.stdout is not None
        deadline = time.monotonic() + seconds
        while b"\n" not in self._rest:
            left = deadline - time.monotonic()
            assert left > 0, f"no answer within {seconds} s"
            if select.select([self.process.stdout], [], [], left)[0]:
                octets = os.read(self.process.stdout.fileno(), 1 << 16)
                assert octets, f"it ended: {self.process.args}"
                self._rest += octets
        line, self._rest = self._rest.split(b"\n", 1)
        return line.decode()

    def read(self, key: str, seconds: float = 60) -> Any:
        """The next line that has ``key``."""
        while key not in (said := json.loads(self.line(seconds))):
            pass
        return said

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


class RefusedError(Exception):
    """The datapath's words."""


class Subject(Conversation):
    """A `tests.support.datapath_subject` at work.  ``events`` are those heard so far."""

    def __init__(self, namespace: str, settings: dict[str, Any], lacking: str) -> None:
        module = "tests.support.datapath_subject"
        super().__init__(namespace, "-m", module, json.dumps(settings), lacking=lacking)
        self._number = 0
        self._answers: dict[int, dict[str, Any]] = {}  # that nobody waited for yet
        self.events: list[dict[str, Any]] = []
        self.capability: dict[str, Any] = self.answer(0)

    def begin(self, verb: str, argument: Any = None) -> int:
        """Ask, and do not wait: `answer` does."""
        self._number += 1
        self.tell(json.dumps([self._number, verb, argument]))
        return self._number

    def answer(self, number: int, seconds: float = 60) -> Any:
        while number not in self._answers:
            said = json.loads(self.line(seconds))
            if "event" in said:
                self.events.append(said)
            else:
                self._answers[said["number"]] = said
        said = self._answers.pop(number)
        if "refusal" in said:
            raise RefusedError(said["refusal"])
        assert "error" not in said, said["error"]
        return said["answer"]

    def ask(self, verb: str, argument: Any = None, seconds: float = 60) -> Any:
        return self.answer(self.begin(verb, argument), seconds)

    def heard(self, event: str) -> list[dict[str, Any]]:
        """Events of this kind so far."""
        self.ask("nothing")
        return [each for each in self.events if each["event"] == event]

    def counters(self) -> Counter[str]:
        return Counter(self.ask("counters"))

    def workers(self) -> dict[int, str]:
        """The processes that it started, and their command lines."""
        found: dict[int, str] = {}
        for task in Path(f"/proc/{self.process.pid}/task").iterdir():
            for pid in (task / "children").read_text().split():
                command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")
                if b"oegw.datapath.userspace" in command:
                    found[int(pid)] = command.decode()
        return found


class RoughLab(Lab):
    """``with RoughLab() as lab``: as `Lab`; the road is good until `harm` says otherwise."""

    def __init__(self, seed: int = 1, together: bool = False) -> None:
        """``together``: what arrives at B is put together again, as by a card that can (GRO)."""
        super().__init__()
        self._seed = seed
        self._together = together
        self.lacking = ""  # of the gateways' kernels, as of those that are started from now on
        self.road = self.gwa.removesuffix("gwa") + "road"
        self.names.append(self.road)
        self._files = tempfile.TemporaryDirectory(prefix="oegwrough")
        self.witness = Path(self._files.name) / "witness"
        self._programs: list[Conversation] = []
        self._cable: Conversation | None = None

    def __enter__(self) -> RoughLab:
        super().__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        for program in self._programs:
            program.end()
        super().__exit__(*error)
        self._files.cleanup()

    def subjects(self, **settings: Any) -> tuple[Subject, Subject]:
        return self.subject("a", **settings), self.subject("b", **settings)

    def subject(self, side: str, **settings: Any) -> Subject:
        subject = Subject({"a": self.gwa, "b": self.gwb}[side], settings, self.lacking)
        self._programs.append(subject)
        return subject

    def program(self, where: str, *words: str) -> Conversation:
        """One of `tests/support/datapath_streams.py`."""
        program = Conversation(where, "-I", str(STREAMS), *words)
        self._programs.append(program)
        return program

    def harm(self, **conduct: Any) -> None:
        """How the road is from now on: the fields of its `Conduct`."""
        assert self._cable is not None
        self._cable.tell(json.dumps(conduct))

    def counts(self) -> dict[str, Any]:
        """What the road did: ``roads`` from A and from B, ``watched``, ``overrun``, ``unsent``."""
        assert self._cable is not None
        self._cable.tell("counts")
        counts: dict[str, Any] = self._cable.read("roads")
        counts["roads"] = [Counter(road) for road in counts["roads"]]
        return counts

    def on_the_wire(self) -> Iterator[tuple[int, int, bytes, int]]:
        """SPI, sequence number, IV and nanoseconds of each ESP packet that a gateway sent.  Ends
        the road."""
        assert self._cable is not None
        assert self._cable.process.stdin is not None
        self._cable.process.stdin.close()
        self._cable.process.wait(20)
        return _WITNESS.iter_unpack(self.witness.read_bytes())

    def no_nonce_twice(self) -> int:
        """How many ESP packets were on the wire; asserts that each pair of SPI and IV was once.
        Ends the road."""
        seen: set[tuple[int, bytes]] = set()
        count = 0
        for spi, number, iv, _ in self.on_the_wire():
            assert (spi, iv) not in seen, f"SPI {spi:#x}, IV {iv.hex()} twice: number {number}"
            seen.add((spi, iv))
            count += 1
        return count

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Bob talks with whoever calls."""
        server = self.program(self.bob, "serve", str(PORT))
        assert server.line() == "ready"
        yield
        server.end()

    def talk(self, octets: int = 0, target: str = B4) -> Conversation:
        """Alice talks with Bob; see `tests/support/datapath_streams.py`."""
        return self.program(self.alice, "talk", target, str(PORT), str(octets))

    def _cables_outside(self) -> list[str]:
        return [
            link_add(self.gwa, "out0", self.road, "left"),
            link_add(self.gwb, "out0", self.road, "right"),
        ]

    def _addresses_outside(self) -> dict[str, list[str]]:
        return {**super()._addresses_outside(), self.road: [*end("left"), *end("right")]}

    def _build(self) -> None:
        super()._build()
        self.inside(self.road, "sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1")
        for name, device in ((self.gwa, "left"), (self.gwb, "right")):
            for where, one in ((name, "out0"), (self.road, device)):
                features = ("tx", "gso", "tso", "tx-udp-segmentation", "gro")
                words = [word for feature in features for word in (feature, "off")]
                self.inside(where, "ethtool", "-K", one, *words)
        if self._together:
            join_arrivals(self, self.gwb)
        self._cable = Conversation(
            self.road, "-I", str(ROAD), "left", "right", "--seed", str(self._seed),
            "--witness", str(self.witness),
            *(word for address in (A4, B4, A6, B6) for word in ("--watch", address)),
        )  # fmt: skip
        self._programs.append(self._cable)
        assert self._cable.line() == "ready"


def join_arrivals(lab: Lab, gateway: str) -> None:
    """What arrives outside is joined as by a card under load (GRO), whoever sent it."""
    lab.inside(gateway, "ethtool", "-K", "out0", "gro", "on", "rx-udp-gro-forwarding", "off")
    waits = "echo 300000 > gro_flush_timeout; echo 1 > napi_defer_hard_irqs"  # nanoseconds
    run("ip", "netns", "exec", gateway, "sh", "-c", f"cd /sys/class/net/out0; {waits}")


def tunnel(
    number: int = 0, family: int = 4, inner: int = 4, udp: bool = True, **fields: Any
) -> Tunnel:
    """A's and B's SAs of one tunnel between Alice and Bob, both ways, in JSON's types.

    ``family`` is of the outer addresses, ``inner`` of Alice's and Bob's.  Both SPIs of tunnel
    ``number`` are its own."""
    outer_a, outer_b = (GATEWAY_A4, GATEWAY_B4) if family == 4 else (GATEWAY_A6, GATEWAY_B6)
    alice, bob = (A4, B4) if inner == 4 else (A6, B6)
    there = {
        "spi": 0x10000 + number,
        "source": outer_a,
        "destination": outer_b,
        "inner": [alice, bob],
        "udp": [4500, 4500] if udp else None,
        **fields,
    }
    back = there | {
        "spi": 0x20000 + number,
        "source": outer_b,
        "destination": outer_a,
        "inner": [bob, alice],
    }
    out, arriving = {"direction": "out"}, {"direction": "in"}
    return [there | out, back | arriving], [there | arriving, back | out]


def connected(lab: RoughLab, *tunnels: Tunnel, **settings: Any) -> tuple[Subject, Subject]:
    """Both gateways at work, with these tunnels."""
    gwa, gwb = lab.subjects(**settings)
    for at_a, at_b in tunnels:
        gwa.ask("install", at_a)
        gwb.ask("install", at_b)
    return gwa, gwb


def keys_of(sas: list[dict[str, Any]]) -> list[Key]:
    return [[sa["direction"], sa["spi"], sa["destination"]] for sa in sas]


def of_kind(subject: Subject, kind: str) -> list[int]:
    return [pid for pid, command in subject.workers().items() if kind in command]


def progress(talk: Conversation) -> int:
    talk.tell("progress")
    count: int = talk.read("progress")["progress"]
    return count


def await_progress(talk: Conversation, octets: int = 1 << 18) -> None:
    """Alice goes on hearing Bob, who goes on hearing her, or TCP would have stopped."""
    before = progress(talk)
    wait_for(lambda: progress(talk) > before + octets)


def successor(subject: Subject, kind: str, dead: int) -> int:
    """The worker that took the place of ``dead``."""
    found: list[int] = []

    def is_there() -> bool:
        found[:] = [pid for pid in of_kind(subject, kind) if pid != dead]
        return bool(found)

    wait_for(is_there)
    return found[-1]
