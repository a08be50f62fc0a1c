"""What became of a scenario, as one process tells it to another."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

AS_EXPECTED, NOT_AS_EXPECTED, NOT_RUN = 0, 1, 2  # the exit codes of `lab run`


@dataclass(slots=True)
class Outcome:
    """``failed``: what was not as expected; ``drawing``: of its matrix, if it has one."""

    name: str
    code: int
    seconds: float = 0.0
    failed: list[str] = field(default_factory=list)
    drawing: list[str] = field(default_factory=list)

    @property
    def verdict(self) -> str:
        return "ok" if self.code == AS_EXPECTED else "FAILED"

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)))
