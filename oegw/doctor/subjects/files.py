"""Files: the private key, the state, and who may write the configuration."""

from __future__ import annotations

from collections.abc import Iterator

from oegw.doctor.facts import Facts
from oegw.doctor.finding import PROBLEM, WARNING, Finding, Kind

KEY_MISSING = Kind(
    "key-missing",
    PROBLEM,
    "there is no private key",
    "the gateway proves with it who it is; without, it does not start",
    "oegw keygen --out {path}",
)
KEY_READABLE = Kind(
    "key-readable",
    PROBLEM,
    "others than its owner can read the private key",
    "who has read it can pass for this gateway; a start refuses such a file",
    "chmod 600 {path}",
)
KEY_UNUSABLE = Kind(
    "key-unusable",
    PROBLEM,
    "the private key can't be used",
    "the gateway does not start with it",
    "mv {path} {path}.unusable && oegw keygen --out {path}",
)
WRITABLE = Kind(
    "configuration-writable",
    WARNING,
    "others than root can change the configuration",
    "who changes it decides what is encrypted, and runs what root runs",
    "chmod go-w {path} && chown root {path}",
)
STATE_CORRUPT = Kind(
    "state-corrupt",
    WARNING,
    "the file of the state is damaged",
    "the next start sets it aside, and knows neither peers nor verdicts of before",
    "mv {path} {path}.corrupt",
)
STATE_DIRECTORY = Kind(
    "state-directory",
    PROBLEM,
    "what should be the directory of the state is none",
    "a start can't keep what must survive a crash, and fails",
    "mv {path} {path}.aside && install -d -m 700 {path}",
)
DISK_FULL = Kind(
    "disk-full",
    WARNING,
    "the file system of the state is nearly full",
    "what must survive a crash can't be written",
    "du -xah {path} | sort -h | tail -n 20",
)
KINDS = (
    KEY_MISSING, KEY_READABLE, KEY_UNUSABLE, WRITABLE, STATE_CORRUPT, STATE_DIRECTORY, DISK_FULL,
)  # fmt: skip

LITTLE = 16 * 1024 * 1024  # octets; our choice


def look(facts: Facts) -> Iterator[Finding]:
    files = facts.files()
    key = files.key
    if key.mode is None:
        yield KEY_MISSING.found(f"{key.path}: there is no such file", path=key.path)
    elif key.mode & 0o077:
        yield KEY_READABLE.found(f"{key.path} has mode {key.mode:04o}", path=key.path)
    elif files.key_fault:
        yield KEY_UNUSABLE.found(files.key_fault, path=key.path)
    ours = files.configuration
    if ours.mode is not None and (ours.mode & 0o022 or ours.owner):
        whose = f"belongs to user {ours.owner}" if ours.owner else f"has mode {ours.mode:04o}"
        yield WRITABLE.found(f"{ours.path} {whose}", path=ours.path)
    directory = files.state_directory
    if not directory.directory:
        yield STATE_DIRECTORY.found(f"{directory.path} is not a directory", path=directory.path)
    elif directory.free is not None and directory.free < LITTLE:
        left = directory.free // 1024
        yield DISK_FULL.found(f"{directory.path} has {left} KiB left", path=directory.path)
    if files.state_fault:
        what = f"{files.state.path}: {files.state_fault}"
        yield STATE_CORRUPT.found(what, path=files.state.path)
