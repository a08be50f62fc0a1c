"""What the operator of a gateway types."""

from __future__ import annotations

from typing import Any

from lablib.gateway import COMMAND
from lablib.stage import Missed, Stage, check_keys


def oegw(stage: Stage, step: dict[str, Any]) -> str:
    """The command ``oegw`` with ``arguments`` on host ``gateway``, as its operator would give it.

    It must end with exit code ``code`` (0), and print a line that contains ``says``.
    """
    check_keys(step, {"gateway", "arguments", "code", "says", "within"})
    lab = stage.lab
    configuration = lab.run.directory / f"{step['gateway']}.toml"
    command = [str(COMMAND), *step["arguments"], "--config", str(configuration)]
    result = lab.run.call(step["gateway"], command, step.get("within", 30))
    lines = (result.stdout + result.stderr).splitlines()
    if result.returncode != step.get("code", 0):
        raise Missed(f"exit code {result.returncode}: {' / '.join(lines)[:300]}")
    if "says" in step and not any(step["says"] in line for line in lines):
        raise Missed(" / ".join(lines)[:300])
    return lines[-1] if lines else "done"
