"""Steps with programs that go on running: started, listened to, talked to, killed."""

from __future__ import annotations

import os
import re
import signal
from typing import Any

from lablib.errors import LabError
from lablib.programs import filled_in, words
from lablib.run import Process
from lablib.stage import Missed, Stage, check_keys
from lablib.waiting import wait_until


def start(stage: Stage, step: dict[str, Any]) -> str:
    """``host`` runs ``command`` under ``name``, as ``user`` if given, until a step or the end.

    The step ends when it has printed what matches ``says``, or at once.
    """
    check_keys(step, {"host", "name", "command", "says", "user", "within"})
    lab, name = stage.lab, step["name"]
    begin(stage, name, step["host"], lab.as_user(step.get("user", ""), words(lab, step["command"])))
    return listen(stage, step) if "says" in step else "under way"


def begin(stage: Stage, name: str, host: str, command: list[str]) -> Process:
    """Start a program that can be listened to and talked to."""
    pipe = stage.lab.run.directory / f"{name}.input"
    if not pipe.exists():
        os.mkfifo(pipe, 0o600)
    heard = os.open(pipe, os.O_RDWR)  # the program keeps it open, so that it never sees an end
    try:
        process = stage.lab.run.start(f"program-{name}", host, command, heard)
    finally:
        os.close(heard)
    stage.read[name] = 0 if name not in stage.read else process.log.stat().st_size
    stage.background[name] = process
    return process


def listen(stage: Stage, step: dict[str, Any]) -> str:
    """Wait until a program has printed, since the last step about it, what matches ``says``."""
    check_keys(step, {"host", "name", "command", "line", "says", "user", "within"})
    name, process = step["name"], stage.background[step["name"]]
    pattern = re.compile(filled_in(stage.lab, step["says"]).encode(), re.MULTILINE)

    def said() -> re.Match[bytes] | None:
        found = pattern.search(process.log.read_bytes(), stage.read[name])
        if found is None and not process.running:
            raise Missed(f"it ended: {process.text()[-400:]}")
        return found

    try:
        found = wait_until(f"{name} saying {step['says']}", said, step.get("within", 10))
    except LabError as error:
        raise Missed(f"{error}; it said: {process.text()[-300:]}") from error
    assert found is not None
    stage.read[name] = found.end()
    return found[0].decode(errors="replace").strip() or "it did"


def say(stage: Stage, step: dict[str, Any]) -> str:
    """A program gets ``line`` on its input; then it must print what matches ``says``."""
    check_keys(step, {"name", "line", "says", "within"})
    pipe = os.open(stage.lab.run.directory / f"{step['name']}.input", os.O_WRONLY | os.O_NONBLOCK)
    try:
        os.write(pipe, f"{step['line']}\n".encode())
    finally:
        os.close(pipe)
    return listen(stage, step)


def kill(stage: Stage, step: dict[str, Any]) -> str:
    """SIGKILL to a program in the background."""
    check_keys(step, {"name"})
    process = stage.background.pop(step["name"])
    process.send(signal.SIGKILL)
    wait_until(f"end of {process.name}", lambda: not process.running, 5.0)
    return f"SIGKILL to process {process.pid}"
