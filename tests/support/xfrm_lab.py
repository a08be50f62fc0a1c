"""The four namespaces of `datapath_lab`, with gateways that are told each step.

Runs where the kernel has IPsec: in User-Mode Linux.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from tests.support.datapath_lab import ROOT, Lab, run
from tests.support.datapath_sas import A4, B4, GATEWAY_A4, GATEWAY_A6, GATEWAY_B4, GATEWAY_B6

OUTER = {4: (GATEWAY_A4, GATEWAY_B4), 6: (GATEWAY_A6, GATEWAY_B6)}


def wait_for(condition: Callable[[], object], seconds: float = 10, what: str = "") -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"it did not come true: {what}"
        time.sleep(0.05)


class Control:
    """A `tests.support.xfrm_gateway` at work."""

    def __init__(self, namespace: str, kind: str = "kernel") -> None:
        self.namespace = namespace
        self.process = subprocess.Popen(
            [
                str(shutil.which("nsenter")),
                *(f"--net=/run/netns/{namespace}", sys.executable),
                *("-m", "tests.support.xfrm_gateway", kind),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        self.events: list[dict[str, Any]] = []
        self._answers: list[dict[str, Any]] = []
        self._news = threading.Condition()
        threading.Thread(target=self._read, daemon=True).start()
        assert self._answer() == {"answer": kind}

    def ask(self, do: str, **order: Any) -> Any:
        """The answer; the text of a refusal."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": do, **order}) + "\n")
        self.process.stdin.flush()
        answer = self._answer()
        return answer["answer"] if "answer" in answer else answer["refused"]

    def install(self, *sas: dict[str, Any]) -> None:
        assert self.ask("install", sas=sas) is None

    def named(self, event: str, **fields: Any) -> list[dict[str, Any]]:
        """The events of a name that have these fields."""
        return [
            each
            for each in self.events
            if each["event"] == event and all(each[name] == fields[name] for name in fields)
        ]

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            message = json.loads(line)
            with self._news:
                (self.events if "event" in message else self._answers).append(message)
                self._news.notify()

    def _answer(self) -> dict[str, Any]:
        with self._news:
            assert self._news.wait_for(lambda: self._answers, 40), "no answer"
            return self._answers.pop(0)


class XfrmLab(Lab):
    """``lab.start("kernel", "userspace")``: gateways of these kinds in gwa and gwb."""

    def __init__(self) -> None:
        super().__init__()
        self.controls: list[Control] = []

    def __exit__(self, *_: object) -> None:
        for control in self.controls:
            control.kill()
        super().__exit__()

    def begin(self, a: str = "kernel", b: str = "kernel") -> tuple[Control, Control]:
        return self.begin_one(self.gwa, a), self.begin_one(self.gwb, b)

    def begin_one(self, namespace: str, kind: str = "kernel") -> Control:
        control = Control(namespace, kind)
        self.controls.append(control)
        return control

    def xfrm(self, namespace: str, what: str = "state") -> str:
        return self.inside(namespace, "ip", "xfrm", what)

    def echoes(self) -> int:
        """Echo requests that reached bob, of both families, by his own count."""
        text = self.inside(self.bob, "nstat", "-az", "IcmpInEchos", "Icmp6InEchos")
        lines = [line.split() for line in text.splitlines() if "InEchos" in line]
        return sum(int(fields[1]) for fields in lines)


def tunnel(
    a: Control | None,
    b: Control | None,
    *,
    family: int = 4,
    inner: tuple[str, str] = (A4, B4),
    algorithm: str = "gcm-128",
    spi: int = 0x1000,
    udp: bool = False,
    protocol: int = 0,
    port: int = 0,
    **fields: Any,
) -> None:
    """An SA each way between gwa and gwb, installed on both, receivers first.

    ``port``: bob's.  A given ``spi`` is A's outbound one, B's is 0x10000 higher.
    """
    ends = OUTER[family]
    there = {
        "algorithm": algorithm, "spi": spi, "source": ends[0], "destination": ends[1],
        "inner": [[inner[0], protocol, 0], [inner[1], protocol, port]], **fields,
    }  # fmt: skip
    back = {
        "algorithm": algorithm, "spi": spi + 0x10000, "source": ends[1], "destination": ends[0],
        "inner": [[inner[1], protocol, port], [inner[0], protocol, 0]], **fields,
    }  # fmt: skip
    for each in (there, back):
        if udp:
            each["udp"] = [4500, 4500]
    for control, sa in ((b, there), (a, back)):
        if control is not None:
            control.install(sa | {"inbound": True})
    for control, sa in ((a, there), (b, back)):
        if control is not None:
            control.install(sa)


__all__ = ["OUTER", "Control", "XfrmLab", "run", "tunnel", "wait_for"]
