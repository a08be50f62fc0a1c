"""Commands that mend: which words they need on this box.  Pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from oegw.doctor.finding import Shell
from oegw.settings import DEFAULT_CONFIG

UNIT = "oegw.service"


@dataclass(frozen=True, slots=True)
class Mending:
    """``text``: the configuration's.  ``number``, ``unit``: of the daemon that runs, if one does;
    ``installed``: systemd is there to start one."""

    path: Path = DEFAULT_CONFIG
    text: str = ""
    number: int = 0
    unit: str = ""
    installed: bool = False

    def oegw(self, command: str) -> Shell:
        """A command of ours about this configuration."""
        option = "" if self.path == DEFAULT_CONFIG else f" --config {shlex.quote(str(self.path))}"
        return Shell(f"oegw {command}{option}")

    @property
    def start(self) -> Shell:
        return Shell(f"systemctl start {UNIT}") if self.installed else self.oegw("run")

    @property
    def restart(self) -> Shell:
        """Starts it if it does not run."""
        if self.unit:
            return Shell(f"systemctl restart {self.unit}")
        if not self.number:
            return self.start
        # Two gateways at the same time are refused: wait for the end of the first.
        return Shell(f"kill {self.number}; tail --pid={self.number} -f /dev/null; {self.start}")

    def setting(self, table: str, values: Mapping[str, str]) -> Shell:
        """Give keys of a table these values (as TOML has them), in the file as it is now."""
        lines = self.text.splitlines()
        head = re.compile(rf"\s*\[\s*{re.escape(table)}\s*\]\s*(#.*)?$")
        begins = next((n for n, line in enumerate(lines) if head.match(line)), None)
        file = shlex.quote(str(self.path))
        if begins is None:
            keys = [f"{key} = {value}" for key, value in values.items()]
            return self.appending("\n".join((f"[{table}]", *keys)))
        ends = next(
            (n for n in range(begins + 1, len(lines)) if lines[n].lstrip().startswith("[")),
            len(lines),
        )
        edits = []
        for key, value in values.items():
            there = next(
                (n for n in range(begins + 1, ends) if re.match(rf"\s*{key}\s*=", lines[n])), None
            )
            edit = f"{begins + 1}a {key} = {value}" if there is None else (
                f"{there + 1}c {key} = {value}"
            )  # fmt: skip
            edits.append(f"-e {shlex.quote(edit)}")
        return Shell(f"sed -i {' '.join(edits)} {file}")

    def appending(self, text: str) -> Shell:
        """Add these lines to the end of the configuration."""
        words = " ".join(shlex.quote(line) for line in ("", *text.splitlines()))
        return Shell(f"printf '%s\\n' {words} >> {shlex.quote(str(self.path))}")
