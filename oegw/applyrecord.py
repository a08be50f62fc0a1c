"""Which configuration is in use while the one in the files is on trial, or was refused.

`oegw apply --confirm` has the daemon write down, beside its state file, what was in use until then
and which configuration is on trial.  The files themselves are the operator's, and stay as they are.
Until the trial is confirmed, a gateway that starts (a crash, a reboot) goes on with what was in use
before it; so does one whose trial ended without a confirmation, until the files are changed.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from oegw import config
from oegw.configparts import Text
from oegw.keyfile import KeyFileError, write_secret
from oegw.settings import Settings

MAX_FILE = 64 * 1024 * 1024  # octets, our choice: of a configuration of several files, as JSON


class RecordError(Exception):
    """The record can't be read or written; the message names its file."""


@dataclass(frozen=True, slots=True)
class Record:
    """``digest``: of the configuration on trial.  ``before``: the files of the one in use until
    then, the main one first.  ``refused``: the trial is over, and was not confirmed.  ``since``:
    seconds since 1970."""

    digest: str
    before: tuple[Text, ...]
    refused: bool
    since: float


@dataclass(frozen=True, slots=True)
class InUse:
    """What a gateway goes by, and if that is not what stands in the files, why."""

    settings: Settings
    note: str = ""


def record_file(state: Path) -> Path:
    """The record of a gateway with this state file."""
    return state.with_name(f"{state.name}.unconfirmed")


def digest_of(texts: Sequence[Text]) -> str:
    """Tells one configuration from another, by what stands in its files and where they are."""
    octets = json.dumps([(str(path), text) for path, text in texts]).encode()
    return hashlib.sha256(octets).hexdigest()


def read(path: Path) -> Record | None:
    """The record; None if there is none.  Raises RecordError."""
    try:
        with path.open("rb") as file:
            values = json.loads(file.read(MAX_FILE))
        before = tuple((Path(name), str(text)) for name, text in values["before"])
        if not before:
            raise ValueError("it has no files")
        since = float(values["since"])
        return Record(str(values["digest"]), before, bool(values["refused"]), since)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RecordError(f"{path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise RecordError(f"{path}: is damaged, and does not count: {error!r}") from error


def write(path: Path, record: Record) -> None:
    """Write the record, as a whole or not at all.  Raises RecordError."""
    values = {
        "digest": record.digest,
        "before": [(str(name), text) for name, text in record.before],
        "refused": record.refused,
        "since": record.since,
    }
    try:
        write_secret(path, json.dumps(values).encode(), force=True)  # it has hashes of passwords
        if os.geteuid() == 0:  # a start is root's; who runs then reads and writes it as the owner
            place = path.parent.stat()
            os.chown(path, place.st_uid, place.st_gid, follow_symlinks=False)
    except KeyFileError as error:
        raise RecordError(str(error)) from error
    except OSError as error:
        raise RecordError(f"{path}: {error.strerror}") from error


def remove(path: Path) -> None:
    """No error if there is none.  Raises RecordError."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise RecordError(f"{path}: {error.strerror}") from error


def in_use(path: Path) -> InUse:
    """What the gateway of the configuration at ``path`` goes by.  Raises ConfigError."""
    settings = config.load(path)
    try:
        record = read(record_file(settings.gateway.state))
    except RecordError as error:
        return InUse(settings, str(error))
    return _by(record, settings, path)


def _by(record: Record | None, settings: Settings, path: Path) -> InUse:
    if record is None or not record.refused or record.digest != digest_of(settings.texts):
        return InUse(settings)
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(record.since))
    note = (
        f"{path} was applied on {when} and not confirmed: what was in use before it is in use "
        "again; edit the file, or take it over all the same by oegw apply"
    )
    return InUse(_with_files_of(settings, config.load_texts(record.before)), note)


def _with_files_of(settings: Settings, before: Settings) -> Settings:
    """The record belongs to a user who is not root, and root reads or gives away these files: so
    which they are, root's own file says."""
    sst, moniker = settings.sst, settings.moniker
    return replace(
        before,
        gateway=settings.gateway,
        audit=settings.audit,
        sst=replace(before.sst, private_key=sst.private_key, old_keys=sst.old_keys),
        moniker=replace(before.moniker, private_key=moniker.private_key, socket=moniker.socket),
        socks=replace(before.socks, socket=settings.socks.socket),
    )


def at_start(path: Path) -> InUse:
    """The same for a gateway that starts: a trial that it did not see the end of is refused.

    Raises ConfigError.
    """
    settings = config.load(path)
    place = record_file(settings.gateway.state)
    record: Record | None = None
    problem = ""
    try:
        record = read(place)
        if record is not None and record.digest != digest_of(settings.texts):
            remove(place)  # it is about files that are no more
        elif record is not None and not record.refused:
            record = replace(record, refused=True)
            write(place, record)
    except RecordError as error:  # on a full disk a trial is over all the same
        problem = str(error)
    found = _by(record, settings, path)
    return replace(found, note="; ".join(filter(None, (problem, found.note))))
