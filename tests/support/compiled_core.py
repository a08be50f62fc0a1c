"""Builds the compiled core from the sources and with the options that ``pyproject.toml`` names.

``python -m tests.support.compiled_core`` builds it in its place, in a second: what an installation
does, for whoever works on the C.
"""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PLACE = ROOT / "oegw/datapath/userspace/core"
BUILT = PLACE / "_core.abi3.so"


def _said() -> dict[str, Any]:
    with (ROOT / "pyproject.toml").open("rb") as file:
        modules = tomllib.load(file)["tool"]["setuptools"]["ext-modules"]
    return next(module for module in modules if module["name"].endswith("core._core"))


def sources() -> list[Path]:
    said = _said()
    return [ROOT / name for name in (*said["sources"], *said["depends"])]


def build(target: Path, *options: str, compiler: str = "cc") -> None:
    """Compile the shared object ``target``; ``options`` come last.  Raises CalledProcessError."""
    said = _said()
    command = [compiler, "-shared", "-fPIC", "-g", "-DNDEBUG", *said["extra-compile-args"]]
    command += [*options, "-o", str(target), *(str(ROOT / name) for name in said["sources"])]
    command += [*said["extra-link-args"], *(f"-l{name}" for name in said["libraries"])]
    subprocess.run(command, check=True)


if __name__ == "__main__":
    build(Path(sys.argv[1]) if len(sys.argv) > 1 else BUILT, *sys.argv[2:])
