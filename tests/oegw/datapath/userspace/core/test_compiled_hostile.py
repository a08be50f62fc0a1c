"""Hostile input for the C with AddressSanitizer and UndefinedBehaviorSanitizer."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.amount import amount
from tests.support.compiled_core import ROOT, build

SANITIZERS = ("-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined")


def preloaded() -> str:
    """The sanitizers' libraries, which have to be there before Python's own."""
    found = []
    for name in ("libasan.so", "libubsan.so"):
        asked = subprocess.run(
            ["cc", f"-print-file-name={name}"], capture_output=True, text=True, check=True
        )
        found.append(asked.stdout.strip())
    return ":".join(found)


@pytest.fixture(scope="module")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    shared_object: Path = tmp_path_factory.mktemp("core") / "sanitized.so"
    build(shared_object, *SANITIZERS, "-U_FORTIFY_SOURCE")
    return shared_object


@pytest.mark.fuzz
@pytest.mark.parametrize(
    ("module", "inputs"),
    [
        ("compiled_hostile", amount(200_000, 40_000)),
        ("compiled_hostile_loops", amount(200_000, 10_000)),
    ],
)
@pytest.mark.parametrize("library", ["ipsec-mb", "openssl"])
def test_nothing_is_read_or_written_beyond_its_end(
    sanitized: Path, module: str, inputs: int, library: str
) -> None:
    environment = {
        **os.environ,
        "LD_PRELOAD": preloaded(),
        "ASAN_OPTIONS": "detect_leaks=0",  # Python's own are not ours to judge
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            f"tests.support.{module}",
            str(sanitized),
            "4303",
            str(inputs // 2),
            library,
        ],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert int(done.stdout.split()[0]) >= inputs // 2
