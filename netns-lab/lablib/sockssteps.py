"""Steps with the SOCKS server of a gateway."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from pathlib import Path
from typing import Any

from lablib import asksocks, background, echo
from lablib.errors import LabError
from lablib.lab import Lab
from lablib.programs import HOST_WORD
from lablib.socks import PORT, server_of
from lablib.stage import Missed, Stage, check_keys
from lablib.waiting import patient, wait_until

ASKED = {
    *("command", "target", "port", "with_id", "combined", "flag", "preference", "user", "password"),
    *("words", "patience"),
}

JUDGED = {
    *("host", "by", "door", "code", "kind", "bound", "heard", "header", "peer", "at", "seconds"),
    *("within", "remember", "reached"),
}


def _echo(stage: Stage, host: str, port: int) -> None:
    """Something to talk with, at a port of a host."""
    name = f"echo-{host}-{port}"
    if name not in stage.background:
        command = [sys.executable, "-IS", str(Path(echo.__file__)), str(port)]
        server = stage.lab.run.start(name, host, command)
        server.await_text("listening")
        stage.background[name] = server


def echo_server(stage: Stage, step: dict[str, Any]) -> str:
    """``host`` echoes what it hears at ``ports``, by TCP and UDP and both families."""
    check_keys(step, {"host", "ports"})
    for port in step["ports"]:
        _echo(stage, step["host"], port)
    return f"at {', '.join(map(str, step['ports']))}"


def _order(stage: Stage, step: dict[str, Any]) -> dict[str, Any]:
    """What `asksocks` is to do; ``@bob.6`` is an address, ``id:x`` an ADDRESS ID that was
    remembered, else a destination is a name."""
    lab = stage.lab
    order = {key: step[key] for key in ASKED if key in step}
    by = step["by"]
    order["proxy"] = str(lab.address(by)) if by in lab.topology.hosts else by
    if HOST_WORD.fullmatch(order["target"]):
        order["target"] = str(lab.address(order["target"][1:]))
    kind, colon, name = order["target"].partition(":")
    if (kind, colon) == ("id", ":"):
        order["target"] = f"id:{stage.ids[name]}"
    order["at"] = step.get("door", PORT)
    order["patience"] = patient(step.get("patience", 5.0))
    return order


def program(order: dict[str, Any]) -> list[str]:
    return [sys.executable, "-IS", str(Path(asksocks.__file__)), json.dumps(order)]


def socks(stage: Stage, step: dict[str, Any]) -> str:
    """``host`` asks the SOCKS server at address ``by``, port ``door`` (1080), for ``command``: see
    `asksocks`.

    ``code``: the REP that it must get (0), or silent, refused, closed.  ``kind``: what the reply
    must name (4, 6, name, id); ``bound``: the address or name itself (``@sg-a`` is SG-A's).
    ``heard``: a pattern for what came back.  ``header``: octets of the UDP header of that.
    ``peer``: the host that connects to what BIND listens at, ``at`` this address if it is not what
    the reply says; it hears nothing if ``reached`` is false.  ``seconds``: until the answer, at
    most.  ``within``: until so many seconds have passed it is asked again.  ``remember``: the
    ADDRESS ID of the reply is called so from now on.
    """
    check_keys(step, ASKED | JUDGED)
    deadline = time.monotonic() + patient(step.get("within", 0))
    while True:
        try:
            return _once(stage, step)
        except Missed:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def _once(stage: Stage, step: dict[str, Any]) -> str:
    lab, order = stage.lab, _order(stage, step)
    if "peer" in step:
        seen = _bound(stage, step, order)
    else:
        result = lab.run.call(step["host"], program(order), 3 * order["patience"] + 15)
        if result.returncode:
            raise LabError(f"asking: {result.stderr.strip()[-300:]}")
        seen = json.loads(result.stdout)
    _judge(lab, step, seen)
    if "remember" in step:
        stage.ids[step["remember"]] = seen["id"]
    return _shown(seen)


def _shown(seen: dict[str, Any]) -> str:
    words = [f"{seen['code']} after {seen['ms']} ms"]
    words += [f"{key} {seen[key]}" for key in ("bound", "port", "kind", "header") if seen.get(key)]
    return ", ".join([*words, *([f"heard {seen['heard']!r}"] if seen.get("heard") else [])])


def _judge(lab: Lab, step: dict[str, Any], seen: dict[str, Any]) -> None:
    wanted = {"code": step.get("code", 0)}
    wanted |= {key: step[key] for key in ("kind", "header") if key in step}
    if "bound" in step:
        bound = step["bound"]
        wanted["bound"] = str(lab.address(bound[1:])) if HOST_WORD.fullmatch(bound) else bound
    amiss = {key: value for key, value in wanted.items() if seen.get(key) != value}
    if amiss:
        raise Missed(f"not {amiss}: {seen}")
    pattern = re.sub(
        r"@[a-z][a-z0-9.-]*", lambda m: str(lab.address(m[0][1:])), step.get("heard", "")
    )
    if not re.search(pattern, seen.get("heard", "")):
        raise Missed(f"heard {seen.get('heard')!r}, not {pattern!r}")
    if "seconds" in step and seen["ms"] > 1000 * patient(step["seconds"]):
        raise Missed(f"too late: {_shown(seen)}")


def _bound(stage: Stage, step: dict[str, Any], order: dict[str, Any]) -> dict[str, Any]:
    """BIND: the peer connects to what the first reply says, speaks first, and is answered."""
    lab = stage.lab
    number = sum(name.startswith("socks-bind") for name in stage.background)
    asking = lab.run.start(f"socks-bind-{number}", step["host"], program(order))
    stage.background[asking.name] = asking
    asking.await_text("listening")
    _, address, port = re.findall(r"(listening) (\S+) (\d+)", asking.text())[-1]
    address = str(lab.address(step["at"])) if "at" in step else address
    reached = step.get("reached", True)
    seconds = str(patient(5.0 if reached else 1.2))
    call = [sys.executable, "-IS", str(Path(echo.__file__)), "call", address, port, seconds]
    answer = lab.run.call(step["peer"], [*call, "it is me"], 20)
    if not reached:
        asking.end()
        if "timed out" not in answer.stderr:
            raise Missed(f"the peer: {(answer.stdout + answer.stderr).strip()[-300:]!r}")
        return {"code": 0, "ms": 0}
    if f"{step['words']}: it is me" not in answer.stdout:
        raise Missed(f"the peer heard {(answer.stdout + answer.stderr).strip()[-300:]!r}")
    wait_until("end of the client of BIND", lambda: not asking.running, 10)
    seen: dict[str, Any] = json.loads(asking.text().strip().splitlines()[-1])
    return seen


def talk(stage: Stage, step: dict[str, Any]) -> str:
    """``host`` connects by the server ``by`` and stays, under ``name``: see `background.say`."""
    check_keys(step, ASKED | {"host", "by", "door", "name"})
    name = step["name"]
    order = _order(stage, {**step, "command": "talk"})
    process = background.begin(stage, name, step["host"], program(order))

    def answered() -> bool:
        return "\n" in process.text()

    wait_until(f"{name} being answered", answered, order["patience"] + 5)
    seen = json.loads(process.text().splitlines()[0])
    if seen["code"] != 0:
        raise Missed(str(seen))
    return _shown({"ms": 0, **seen})


def kill_server(stage: Stage, step: dict[str, Any]) -> str:
    """SIGKILL to the SOCKS server of ``gateway``; its successor must listen within ``within``."""
    check_keys(step, {"gateway", "within"})
    lab, gateway = stage.lab, step["gateway"]
    pid = server_of(lab.run, gateway)
    if not pid:
        raise Missed("there is none")
    os.kill(pid, signal.SIGKILL)
    wait_until("a new server", lambda: server_of(lab.run, gateway) not in (0, pid), step["within"])
    return f"SIGKILL to process {pid}; process {server_of(lab.run, gateway)} listens"
