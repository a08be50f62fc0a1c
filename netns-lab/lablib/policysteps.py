"""Steps about policy: decision points, firewalls, and what becomes of a TCP connection."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from lablib import decisionserver, tcp, whole
from lablib.errors import LabError
from lablib.stage import Missed, Stage, check_keys
from lablib.waiting import patient


def decision_server(stage: Stage, step: dict[str, Any]) -> str:
    """A decision point on ``host``, at ``port``, that answers from ``answers``.

    In these, ``local`` and ``remote`` are names of hosts.
    """
    check_keys(step, {"host", "port", "answers"})
    lab, host, port = stage.lab, step["host"], step["port"]
    rows = [
        {k: str(lab.address(v)) if k in ("local", "remote") else v for k, v in row.items()}
        for row in step["answers"]
    ]
    table = lab.run.directory / f"decisions-{host}-{port}.json"
    table.write_text(json.dumps(rows))
    name = f"decisions-{host}-{port}"
    arguments = [str(Path(decisionserver.__file__)), str(lab.address(host)), str(port), str(table)]
    server = lab.run.start(name, host, [sys.executable, "-I", *arguments])
    server.await_text("deciding")
    stage.background[name] = server
    return f"{len(rows)} answers"


def asked(stage: Stage, step: dict[str, Any]) -> str:
    """What the decision point on ``host`` at ``port`` was asked: ``count`` questions.

    Only those of ``role``, and about ``remote``, are counted, if these are given.
    """
    check_keys(step, {"host", "port", "role", "remote", "count"})
    server = stage.background[f"decisions-{step['host']}-{step['port']}"]
    questions = [json.loads(line) for line in server.text().splitlines() if line.startswith("{")]
    wanted = {k: step[k] for k in ("role",) if k in step}
    if "remote" in step:
        wanted["remote"] = str(stage.lab.address(step["remote"]))
    found = [q for q in questions if all(q.get(k) == v for k, v in wanted.items())]
    if len(found) != step["count"]:
        raise Missed(f"{len(found)}; all questions: {questions}")
    return f"{len(found)} asked"


def write(stage: Stage, step: dict[str, Any]) -> str:
    """``content`` into ``file``, beside the configurations of the gateways."""
    check_keys(step, {"file", "content"})
    file = stage.lab.run.directory / step["file"]
    whole.put(file, step["content"])
    return f"{len(step['content'].splitlines())} lines"


def tcp_connect(stage: Stage, step: dict[str, Any]) -> str:
    """TCP from ``host`` to ``port`` of ``to``, where something listens; it must end in ``result``.

    ``open``, ``refused``, ``prohibited`` (by ICMP) or ``silent`` (for ``patience`` seconds).
    """
    check_keys(step, {"host", "to", "port", "result", "patience"})
    lab, to, port = stage.lab, step["to"], step["port"]
    address, program = str(lab.address(to)), str(Path(tcp.__file__))
    name = f"tcp-{to}-{port}"
    if name not in stage.background:
        arguments = [sys.executable, "-I", program, "listen", address, str(port)]
        listener = lab.run.start(name, to, arguments)
        listener.await_text("listening")
        stage.background[name] = listener
    seconds = patient(step.get("patience", 1.5))
    command = [sys.executable, "-I", program, "connect", address, str(port), str(seconds)]
    result = lab.run.call(step["host"], command, seconds + 30)
    seen = result.stdout.strip()
    if result.returncode:
        raise LabError(f"connect: {result.stderr.strip()[-300:]}")
    if seen != step["result"]:
        raise Missed(seen)
    return seen


def firewall(stage: Stage, step: dict[str, Any]) -> str:
    """``rules``, in the nft language, on ``host``, beside those of its gateway."""
    check_keys(step, {"host", "rules"})
    file = stage.lab.run.directory / f"{step['host']}.nft"
    file.write_text(step["rules"])
    result = stage.lab.run.call(step["host"], ["nft", "-f", str(file)])
    if result.returncode:
        raise LabError(f"nft: {result.stderr.strip()}")
    return f"{len(step['rules'].splitlines())} lines"


def firewall_count(stage: Stage, step: dict[str, Any]) -> str:
    """How many packets counter ``name`` of table ``user`` on ``host`` saw: from ``least`` on.

    Without ``least``: none.  ``family`` of the table: inet.
    """
    check_keys(step, {"host", "name", "least", "family"})
    command = ["nft", "list", "counter", step.get("family", "inet"), "user", step["name"]]
    result = stage.lab.run.call(step["host"], command)
    found = re.search(r"packets (\d+)", result.stdout)
    if found is None:
        raise LabError(f"nft: {result.stderr.strip()}")
    seen, least = int(found[1]), step.get("least", 0)
    if seen < least or (seen and not least):
        raise Missed(f"{seen} packets")
    return f"{seen} packets"
