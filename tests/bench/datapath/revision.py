"""Another revision of this project, unpacked beside it."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

from tests.interop.processes import InteropError


def unpacked(root: Path, revision: str, folder: Path) -> Path:
    """Its files, below ``folder``; a folder in place of a revision is taken as it is.

    What has to be compiled is compiled only in a folder: an unpacked revision runs without.
    """
    if Path(revision).is_dir():
        return Path(revision).resolve()
    done = subprocess.run(
        ["git", "-C", str(root), "archive", revision, "oegw", "ike", "policy", "dnsrecords"],
        capture_output=True,
    )
    if done.returncode:
        raise InteropError(f"--before {revision}: {done.stderr.decode(errors='replace').strip()}")
    target = folder / "before"
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(target)  # ours: no stranger made it
    return target
