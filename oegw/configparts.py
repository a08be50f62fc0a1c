"""The files of one configuration, merged: the main one, and those of the directory beside it.

Beside ``oegw.toml`` it is ``oegw.d``, whose ``*.toml`` are read in the order of their names.
Tables are merged, arrays of tables appended; any other key may stand in one of the files only.
"""

from __future__ import annotations

import errno
import os
import re
import select
import stat
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

from oegw.configfile import ConfigError, key_name

# Our choices.
MAX_FILE = 16 * 1024 * 1024  # octets; long lists of prefixes belong into files of their own
PIPE_PATIENCE = 5.0  # seconds that what stands in a pipe may take to come

Text = tuple[Path, str]
"""A file and what stands in it."""

_ELEMENT = re.compile(r"([^\[\]]+)\[([0-9]+)\](.*)")
_HEADER = re.compile(r"\s*\[\[?\s*([^\[\]]+?)\s*\]\]?\s*(?:#.*)?")
_KEY = re.compile(r"""\s*([A-Za-z0-9_."'-]+?)\s*=""")


@dataclass(frozen=True, slots=True)
class Part:
    """One file, and the tables in it."""

    path: Path
    text: str
    values: dict[str, Any]


@dataclass(slots=True)
class Origins:
    """Which key of the merged tables comes from which file."""

    _keys: dict[str, Path] = field(default_factory=dict)
    _arrays: dict[str, list[tuple[Path, int]]] = field(default_factory=dict)  # and how many

    def place(self, path: str) -> tuple[Path | None, str]:
        """The file of a key path, None for the main one, and the path within that file."""
        if (element := _ELEMENT.fullmatch(path)) is not None and element[1] in self._arrays:
            name, number, rest = element[1], int(element[2]), element[3]
            runs = self._arrays[name]
            for (file, count), last in zip(
                runs, accumulate(count for _, count in runs), strict=True
            ):
                if number <= last:
                    return file, f"{name}[{number - last + count}]{rest}"
        key = path.partition("[")[0]
        while key and key not in self._keys:
            key = key.rpartition(".")[0]
        return self._keys.get(key), path

    def merge(self, values: dict[str, Any], part: Part) -> tuple[str, ...]:
        """Put the tables of one more file into ``values``; returns the keys that are there twice,
        and what else does not fit."""
        faults: list[str] = []
        self._merge(values, part.values, "", part, faults)
        return tuple(faults)

    def _merge(
        self, into: dict[str, Any], new: dict[str, Any], above: str, part: Part, faults: list[str]
    ) -> None:
        for key, value in new.items():
            path = f"{above}.{key_name(key)}" if above else key_name(key)
            there = into.get(key)
            if isinstance(value, dict) and (there is None or isinstance(there, dict)):
                self._keys.setdefault(path, part.path)
                self._merge(into.setdefault(key, {}), value, path, part, faults)
            elif _of_tables(value) and (there is None or _of_tables(there)):
                self._keys.setdefault(path, part.path)
                self._arrays.setdefault(path, []).append((part.path, len(value)))
                into[key] = [*(there or ()), *value]
            elif there is None:
                self._keys[path] = part.path
                into[key] = value
            elif path != "version" or there != value:
                faults.append(path)

    def first(self, path: str) -> Path:
        """The file that has had a key first."""
        return self._keys[path]


def _of_tables(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, dict) for v in value)


def directory_of(path: Path) -> Path:
    """Where the other files of the configuration at ``path`` are."""
    return path.with_suffix(".d") if path.suffix == ".toml" else path.with_name(f"{path.name}.d")


def parts_of(path: Path) -> list[Path]:
    """The other files, in the order of their names.  Raises ConfigError."""
    directory = directory_of(path)
    try:
        names = sorted(
            each.name
            for each in directory.iterdir()
            if each.suffix == ".toml" and not each.name.startswith(".")
        )
    except (FileNotFoundError, NotADirectoryError):
        return []
    except (OSError, ValueError) as error:
        raise ConfigError([f"{directory}: {getattr(error, 'strerror', None) or error}"]) from error
    return [directory / name for name in names]


def read_texts(path: Path) -> tuple[Text, ...]:
    """The files of the configuration at ``path``, that one first.  Raises ConfigError."""
    main = (path, _read(path))
    return (main, *((each, _read(each)) for each in parts_of(path)))


def _read(path: Path) -> str:
    try:
        with os.fdopen(_opened(path), "rb") as file:
            octets = file.read(MAX_FILE + 1)
    except (OSError, ValueError) as error:  # a path with a null in it is a ValueError
        raise ConfigError([f"{path}: {getattr(error, 'strerror', None) or error}"]) from error
    if len(octets) > MAX_FILE:
        raise ConfigError([f"{path}: is longer than {MAX_FILE} octets"])
    try:
        return octets.decode("utf-8-sig")  # some editors write a byte order mark
    except UnicodeDecodeError as error:
        line = octets[: error.start].count(b"\n") + 1
        raise ConfigError([f"{path}: line {line} is not UTF-8 text"]) from error


def _opened(path: Path) -> int:
    """Open a file; a pipe, as ``<(command)`` in a shell is one, when something is in it.

    One into which nobody writes would keep us, and a gateway that reloads, waiting for ever.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            if not poll.poll(PIPE_PATIENCE * 1000):
                raise OSError(errno.ETIMEDOUT, "is a pipe, and nobody writes into it")
        os.set_blocking(descriptor, True)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def merged(parts: list[Part]) -> tuple[dict[str, Any], Origins]:
    """All tables, and where each is from; the main file is the first.  Raises ConfigError."""
    values: dict[str, Any] = {}
    origins = Origins()
    problems: list[str] = []
    main = parts[0]
    for part in parts:
        if part is not main and "version" not in main.values:
            part.values.pop("version", None)  # it is the main file that has to say it
        for path in origins.merge(values, part):
            first = next(each for each in parts if each.path == origins.first(path))
            there = f"{first.path}{_line(first, path)}"
            problems.append(f"{part.path}: {path}{_line(part, path)}: stands in {there} too")
    if problems:
        raise ConfigError(problems)
    return values, origins


def _line(part: Part, path: str) -> str:
    number = line_of(part.text, path)
    return f", line {number}" if number else ""


def line_of(text: str, path: str) -> int | None:
    """The line in which a key stands, or its table begins; None if it is written otherwise than
    most people do."""
    above = ""
    for number, line in enumerate(text.splitlines(), 1):
        if (header := _HEADER.fullmatch(line)) is not None:
            above = header[1]
            if above == path:
                return number
        elif (key := _KEY.match(line)) is not None and path == (
            f"{above}.{key[1]}" if above else key[1]
        ):
            return number
    return None
