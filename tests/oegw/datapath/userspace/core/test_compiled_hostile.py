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


@pytest.mark.fuzz
def test_nothing_is_read_or_written_beyond_its_end(tmp_path: Path) -> None:
    shared_object = tmp_path / "sanitized.so"
    build(shared_object, *SANITIZERS, "-U_FORTIFY_SOURCE")
    environment = {
        **os.environ,
        "LD_PRELOAD": preloaded(),
        "ASAN_OPTIONS": "detect_leaks=0",  # Python's own are not ours to judge
        "PYTHONPATH": str(ROOT),
    }
    inputs = amount(200_000, 40_000)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.support.compiled_hostile",
            str(shared_object),
            "4303",
            str(inputs),
        ],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert int(done.stdout.split()[0]) >= inputs
