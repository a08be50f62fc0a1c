"""Steps about services by name."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from pathlib import Path
from typing import Any

from lablib import askmoniker, badmoniker, tcp
from lablib.errors import LabError
from lablib.moniker import answering, socket_of
from lablib.stage import Missed, Stage, check_keys
from lablib.waiting import patient

MONIKER_PORT = 1


def _question(step: dict[str, Any]) -> str:
    """TRANSPORT NAMESPACE SERVICE VERSIONS, of a name such as ``postel::http@1``."""
    namespace, colons, rest = step["name"].rpartition("::")
    service, _, versions = rest.partition("@")
    transport, namespace = step.get("transport", "*"), namespace if colons else "-"
    return f"{transport} {namespace} {service} {versions or '*'}"


def ask(stage: Stage, step: dict[str, Any]) -> str:
    """``host`` asks the daemon of ``to`` for ``name``, in clear, ``by`` tcp or udp.

    ``answer``: ``+``, or the code of a refusal (or silent, refused); ``version`` that it must have.
    ``within``: until then the answer must have become that, else it must be the first one.
    ``remember``: the port is called so from now on; ``other_than``, ``same_as`` compare it.
    ``at``: by this address of ``to``.  ``patience``: seconds after which it is silent.
    """
    check_keys(
        step,
        {"host", "to", "at", "name", "by", "transport", "answer", "version", "within", "remember",
         "other_than", "same_as", "patience"},
    )  # fmt: skip
    lab, wanted = stage.lab, step["answer"]
    order: dict[str, Any] = {
        "address": str(lab.address(step.get("at", step["to"]))),
        "port": MONIKER_PORT, "by": step.get("by", "tcp"), "question": _question(step),
    }  # fmt: skip
    if "patience" in step:
        order["patience"] = patient(step["patience"])
    if "within" in step:
        order |= {"until": wanted, "seconds": patient(step["within"])}
    program = [sys.executable, "-IS", str(Path(askmoniker.__file__)), json.dumps(order)]
    result = lab.run.call(step["host"], program, order.get("seconds", 0) + 15)
    if result.returncode:
        raise LabError(f"asking: {result.stderr.strip()[-300:]}")
    answer = json.loads(result.stdout)
    seen = f"{answer['answer'] or answer['code']}, after {answer['ms']} ms"
    if answer["code"] != wanted or step.get("version", answer.get("version")) != answer.get(
        "version"
    ):
        raise Missed(seen)
    _compare(stage, step, answer.get("port", 0), seen)
    return seen


def _compare(stage: Stage, step: dict[str, Any], port: int, seen: str) -> None:
    ports = stage.lab.ports
    if "other_than" in step and port == ports[step["other_than"]]:
        raise Missed(f"{seen}: the same port")
    if "same_as" in step and port != ports[step["same_as"]]:
        raise Missed(f"{seen}: not port {ports[step['same_as']]}")
    if "remember" in step:
        ports[step["remember"]] = port


def reach(stage: Stage, step: dict[str, Any]) -> str:
    """``host`` connects by TCP to ``port`` of ``to``: a number, or a port that was remembered.

    ``result``: open, refused, prohibited (by ICMP), or silent for ``patience`` seconds.  ``plus``:
    not that port but one so far from it.  ``at``: by this address of it.  ``within``: so many
    seconds it may take until that is the result.
    """
    check_keys(step, {"host", "to", "at", "port", "plus", "result", "patience", "within"})
    lab, port = stage.lab, step["port"]
    number = (lab.ports[port] if isinstance(port, str) else port) + step.get("plus", 0)
    seconds = patient(step.get("patience", 5.0 if step["result"] == "open" else 0.4))
    address = str(lab.address(step.get("at", step["to"])))
    words = [str(Path(tcp.__file__)), "connect", address, str(number), str(seconds)]
    began = time.monotonic()
    while True:
        result = lab.run.call(step["host"], [sys.executable, "-IS", *words], seconds + 15)
        seen = result.stdout.strip()
        if result.returncode:
            raise LabError(f"connect: {result.stderr.strip()[-300:]}")
        if seen == step["result"]:
            return f"port {number}: {seen}"
        if time.monotonic() - began > patient(step.get("within", 0)):
            raise Missed(f"port {number}: {seen}")
        time.sleep(0.05)


def memory(stage: Stage, step: dict[str, Any]) -> str:
    """How much memory the daemon of ``host`` has; ``growth``: at most so many MB more than the
    last time."""
    check_keys(step, {"host", "growth"})
    process = stage.lab.monikers[step["host"]].process
    assert process is not None
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text())
    assert found is not None
    now, key = int(found[1]) / 1024, f"memory of {step['host']}"
    before = stage.memory.get(key, now)
    stage.memory[key] = now
    seen = f"{now:.1f} MB, {now - before:+.1f} MB"
    if now - before > step.get("growth", now):
        raise Missed(seen)
    return seen


def bad_questions(stage: Stage, step: dict[str, Any]) -> str:
    """``host`` sends to the daemon of ``to`` what `badmoniker` knows by the name ``what``.

    ``claimed``: the host whose address is in spoofed questions, for ``name``.  ``fate``: what must
    become of each connection.
    """
    check_keys(step, {"host", "to", "what", "count", "claimed", "name", "fate"})
    lab = stage.lab
    words = [step["what"], str(lab.address(step["to"])), str(step["count"])]
    if step["what"] == "spoofed":
        words += [str(lab.address(step["claimed"])), step["name"]]
    program = [sys.executable, "-IS", str(Path(badmoniker.__file__)), *words]
    if step["what"] == "slow":
        process = lab.run.start("bad-slow", step["host"], program)
        stage.background["bad-slow"] = process
        process.await_text("begun")
        return process.text().strip()
    result = lab.run.call(step["host"], program, 60)
    if result.returncode:
        raise LabError(f"bad questions: {result.stderr.strip()[-300:]}")
    said = result.stdout.strip()
    if "fate" in step and not re.fullmatch(rf"{{'{step['fate']}': \d+}}", said):
        raise Missed(said)
    return said


def kill_child(stage: Stage, step: dict[str, Any]) -> str:
    """SIGKILL to the daemon for services by name that ``gateway`` started."""
    check_keys(step, {"gateway"})
    process = stage.lab.gateways[step["gateway"]].process
    pid = answering(socket_of(stage.lab.run, step["gateway"]))
    if not pid or process is None or pid == process.pid:
        raise Missed(f"it has none of its own: process {pid}")
    os.kill(pid, signal.SIGKILL)
    return f"SIGKILL to process {pid}"


def daemon(stage: Stage, step: dict[str, Any]) -> str:
    """The daemon of ``host``: ``stop`` (SIGTERM), ``kill``, ``start``, ``restart``, ``reload``.

    ``append``: to its configuration, before.
    """
    check_keys(step, {"host", "what", "append"})
    one, what = stage.lab.monikers[step["host"]], step["what"]
    if "append" in step:
        one.configuration.write_text(one.configuration.read_text() + step["append"])
    if what == "reload":
        assert one.process is not None
        one.process.send(signal.SIGHUP)
        return "SIGHUP"
    if what in ("stop", "restart"):
        one.end(signal.SIGTERM)
    if what == "kill":
        one.end(signal.SIGKILL)
    if what in ("start", "restart"):
        one.begin()
        one.ready()
    return f"process {one.process.pid}" if one.process is not None else "ended"
