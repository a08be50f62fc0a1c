"""Reading one table of a configuration with all its faults collected.

A `Section` is asked for its keys one by one.  A value that is wrong is noted
under its key path and the default is returned in its place, so that reading
goes on and the operator sees every fault at once.  ``end`` complains about the
keys that nobody asked for.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from pathlib import Path
from typing import Any, Protocol, TypeVar

from policy.flow import IPAddress, IPNetwork
from policy.prefixes import WIDTHS, network_of, parse_prefix

MAX_PROBLEMS = 100  # enough to correct a file by
MAX_SHOWN = 60  # characters of a value that go into a message
MAX_SOCKET_PATH = 107  # unix(7): sun_path has 108 octets, one of them for the end

_INTERFACE = re.compile(r"[A-Za-z0-9_.@-]{1,15}", re.ASCII)  # what the kernel takes, less oddities

ValueT = TypeVar("ValueT")


class ConfigError(Exception):
    """A configuration that can't be used: ``problems`` says all that is wrong with it."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class Places(Protocol):
    """Which key of a configuration of several files is from which of them."""

    def place(self, path: str) -> tuple[Path | None, str]: ...


class Problems:
    """The faults found so far in one configuration, whose main file is ``file``."""

    def __init__(self, file: str, origins: Places | None = None) -> None:
        self.file = file
        self._origins = origins
        self._lines: dict[str, None] = {}  # in order, each once
        self._unreported = 0

    def add(self, path: str, reason: str) -> None:
        """Note a fault at a key path; an empty path is the whole file."""
        place = self.place(path)
        if len(self._lines) < MAX_PROBLEMS:
            self._lines[f"{place}: {reason}"] = None
        else:
            self._unreported += 1

    def place(self, path: str) -> str:
        """A key path with its file in front; elements count from 1 in each file."""
        if not path:
            return self.file
        file, path = self._origins.place(path) if self._origins is not None else (None, path)
        return f"{file or self.file}: {path}"

    def directory(self, path: str, main: Path) -> Path:
        """Where relative paths at a key path start; ``main``: those of the main file."""
        file = self._origins.place(path)[0] if self._origins is not None else None
        return main if file is None or file == Path(self.file) else file.parent

    def __len__(self) -> int:
        return len(self._lines) + self._unreported

    def lines(self) -> tuple[str, ...]:
        """The faults as text, the first ``MAX_PROBLEMS`` of them."""
        more = [f"{self.file}: and {self._unreported} more"] if self._unreported else []
        return (*self._lines, *more)


class BadValue(ValueError):  # noqa: N818  (it names the fact)
    """A value that its key can't have; the text says why."""


class Section:
    """One table and its place in the file (``path``, as ``rule[2]``)."""

    def __init__(self, values: Any, path: str, problems: Problems) -> None:
        self.path = path
        self._problems = problems
        self._known: list[str] = []
        self._values: dict[str, Any] = {}
        if isinstance(values, dict):
            self._values = values
        else:
            problems.add(path, f"must be a table, not {kind_of(values)}")

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def __len__(self) -> int:
        return len(self._values)

    def keys(self) -> set[str]:
        """The keys that the table has."""
        return set(self._values)

    def raw(self, key: str, default: Any = None) -> Any:
        """The value as TOML has it; from now on the key is a known one."""
        self._known.append(key)
        return self._values.get(key, default)

    def wrong(self, key: str, reason: str) -> None:
        """Note a fault of a key."""
        self._problems.add(self._path_of(key), reason)

    def end(self) -> None:
        """Note the keys that are in the table and that no reader asked for."""
        for key in self._values:
            if key not in self._known:
                self.wrong(key, "unknown key" + suggestion(key, self._known))

    def _path_of(self, key: str) -> str:
        name = key_name(key)
        return f"{self.path}.{name}" if self.path else name

    # ----------------------------------------------------------------- values

    def integer(self, key: str, default: int, low: int, high: int) -> int:
        """A whole number from ``low`` to ``high``."""
        value = self.raw(key, default)
        if not isinstance(value, int) or isinstance(value, bool):
            self.wrong(key, f"must be a whole number, not {kind_of(value)}")
        elif not low <= value <= high:
            self.wrong(key, f"{shown_number(value)} is not within {low} to {high}")
        else:
            return value
        return default

    def seconds(self, key: str, default: float, low: float, high: float) -> float:
        """A number of seconds, whole or not."""
        value = self.raw(key, default)
        if not isinstance(value, int | float) or isinstance(value, bool):
            self.wrong(key, f"must be a number of seconds, not {kind_of(value)}")
        elif not low <= value <= high or not math.isfinite(value):
            self.wrong(key, f"{shown_number(value)} seconds are not within {low:g} to {high:g}")
        else:
            return float(value)
        return default

    def truth(self, key: str, default: bool) -> bool:
        value = self.raw(key, default)
        if isinstance(value, bool):
            return value
        self.wrong(key, f"must be true or false, not {kind_of(value)}")
        return default

    def text(self, key: str) -> str | None:
        """A text of printable characters, not empty; None without the key."""
        value = self.raw(key)
        if value is None:
            return None
        try:
            return text_of(value)
        except BadValue as error:
            self.wrong(key, str(error))
            return None

    def choice(self, key: str, default: ValueT, choices: dict[str, ValueT]) -> ValueT:
        """One of a few words."""
        word = self.text(key)
        if word is None:
            return default
        if word not in choices:
            names = " or ".join(f'"{name}"' for name in choices)
            self.wrong(key, f"{shown(word)} is not {names}" + suggestion(word, choices))
            return default
        return choices[word]

    def path_relative_to(self, directory: Path, key: str, default: Path | None) -> Path | None:
        """A path; a relative one starts at ``directory``, that of the main file, or at the
        directory of the file that it stands in."""
        name = self.text(key)
        if name is None:
            return default
        return self._problems.directory(self._path_of(key), directory) / name

    def paths_relative_to(self, directory: Path, key: str) -> tuple[Path, ...]:
        """A path or a list of them; empty without the key."""
        directory = self._problems.directory(self._path_of(key), directory)
        return tuple(directory / name for _, name in self.texts(key) or ())

    def socket_path(self, directory: Path, key: str, default: Path) -> Path:
        """The path of a Unix socket."""
        path = self.path_relative_to(directory, key, default) or default
        if len(str(path).encode()) > MAX_SOCKET_PATH:
            self.wrong(key, f"the path is longer than {MAX_SOCKET_PATH} octets")
        return path

    def interface(self, key: str) -> str | None:
        """The name of an interface."""
        word = self.text(key)
        if word is not None and not is_interface(word):
            self.wrong(key, f"{shown(word)} is not the name of an interface")
            return None
        return word

    def interfaces(self, key: str) -> tuple[str, ...]:
        """The name of an interface or a list of them; empty without the key."""
        found = []
        for place, word in self.texts(key) or ():
            if is_interface(word):
                found.append(word)
            else:
                self.wrong_place(place, f"{shown(word)} is not the name of an interface")
        return tuple(dict.fromkeys(found))

    def texts(self, key: str) -> list[tuple[str, str]] | None:
        """A text or a list of them, each with its key (``"source[2]"``); None without the key.

        Elements that are no text are noted and left out.
        """
        value = self.raw(key)
        if value is None:
            return None
        if not isinstance(value, list):
            text = self.text(key)
            return [] if text is None else [(key, text)]
        if not value:
            self.wrong(key, "the list is empty; leave the key out instead")
        found: list[tuple[str, str]] = []
        for number, element in enumerate(value, 1):
            try:
                text = text_of(element)
            except BadValue as error:
                self.wrong_at(key, number, str(error))
                continue
            if any(text == other for _, other in found):
                self.wrong_at(key, number, f"{shown(text)} is in the list before")
            found.append((f"{key}[{number}]", text))
        return found

    def wrong_at(self, key: str, number: int, reason: str) -> None:
        """Note a fault of one element of a list; elements count from 1."""
        self._problems.add(f"{self._path_of(key)}[{number}]", reason)

    def wrong_place(self, place: str, reason: str) -> None:
        """Note a fault at a place that `texts` gave."""
        self._problems.add(f"{self.path}.{place}" if self.path else place, reason)

    def address(self, key: str) -> IPAddress | None:
        word = self.text(key)
        if word is None:
            return None
        try:
            return address_of(word)
        except BadValue as error:
            self.wrong(key, str(error))
            return None

    def addresses(
        self, key: str, read: Callable[[str], IPAddress] | None = None
    ) -> tuple[IPAddress, ...]:
        """An address or a list of them; empty without the key.  ``read`` raises BadValue."""
        found: list[IPAddress] = []
        for place, word in self.texts(key) or ():
            try:
                found.append((read or address_of)(word))
            except BadValue as error:
                self.wrong_place(place, str(error))
        return tuple(dict.fromkeys(found))

    def networks(self, key: str) -> tuple[IPNetwork, ...] | None:
        """A prefix or a list of them; an address is its /32 or /128.  None without the key."""
        words = self.texts(key)
        if words is None:
            return None
        found: list[IPNetwork] = []
        for place, word in words:
            try:
                found.append(network_from(word))
            except BadValue as error:
                self.wrong_place(place, str(error))
        return tuple(dict.fromkeys(found))

    def subsection(self, key: str) -> Section:
        """The table under a key, an empty one without it; whoever takes it ends it."""
        return Section(self.raw(key, {}), self._path_of(key), self._problems)

    def tables(self, key: str, read: Callable[[Section], ValueT | None]) -> tuple[ValueT, ...]:
        """What ``read`` makes of each table of ``[[key]]``; those with faults are left out."""
        values = self.raw(key, [])
        path = self._path_of(key)
        if not isinstance(values, list):
            reason = f"must be written [[{path}]], in double brackets, not {kind_of(values)}"
            self.wrong(key, reason)
            return ()
        found = []
        for number, each in enumerate(values, 1):
            faults = len(self._problems)
            table = Section(each, f"{path}[{number}]", self._problems)
            if not isinstance(each, dict):
                continue
            one = read(table)
            table.end()
            if one is not None and len(self._problems) == faults:
                found.append(one)
        return tuple(found)


def key_name(key: str) -> str:
    """A key as part of a key path."""
    return key if key.isidentifier() and key.isascii() else shown(key)


def is_interface(word: str) -> bool:
    return _INTERFACE.fullmatch(word) is not None and word not in (".", "..")


_BROADCAST = IPv4Address("255.255.255.255")


def address_of(word: str) -> IPAddress:
    """Raises BadValue for what is no plain address."""
    try:
        address = IPv6Address(word) if ":" in word else IPv4Address(word)
    except AddressValueError:
        raise BadValue(f"{shown(word)} is not an IP address") from None
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        raise BadValue(f"{shown(word)} names an interface")
    return address


def host_of(word: str) -> IPAddress:
    """Raises BadValue for what is no address that a host has, or has on one link only."""
    address = address_of(word)
    if (
        address.is_unspecified or address.is_multicast or address.is_loopback
        or address.is_link_local or address == _BROADCAST
    ):  # fmt: skip
        raise BadValue(f"{shown(word)} is not the address of one host")
    return address


def network_from(word: str) -> IPNetwork:
    """Raises BadValue for what is neither a prefix without host bits nor an address."""
    if "/" not in word:
        try:
            address = address_of(word)
        except BadValue as error:
            raise BadValue(f"{error}, nor a prefix") from None
        return network_of(address.version, int(address), WIDTHS[address.version])
    try:
        family, key = parse_prefix(word)
    except ValueError as error:
        raise BadValue(str(error)) from None
    return network_of(family, key >> 8, key & 0xFF)


def text_of(value: object) -> str:
    """Raises BadValue for what is no text, empty, or has characters that no terminal shows."""
    if not isinstance(value, str):
        raise BadValue(f"must be a text in quotes, not {kind_of(value)}")
    if not value:
        raise BadValue("is empty")
    if not value.isprintable():
        raise BadValue(f"{shown(value)} has characters that can't be printed")
    return value


def shown(text: str) -> str:
    """A text from the file, in quotes, short enough for a message."""
    return ascii(text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 3] + "...")


def shown_number(value: float) -> str:
    if isinstance(value, int) and value.bit_length() > 128:
        return "a number of more than 128 bits"
    return repr(value)


_KINDS = ((bool, "a truth value"), (int, "a number"), (float, "a number"), (str, "a text"),
          (list, "a list"), (dict, "a table"))  # fmt: skip


def kind_of(value: object) -> str:
    """What TOML calls a value."""
    for kind, name in _KINDS:
        if isinstance(value, kind):
            if kind in (list, dict):
                return name
            text = shown_number(value) if isinstance(value, int | float) else shown(str(value))
            return f"the {name[2:]} {text.lower() if kind is bool else text}"
    return "a date or time"


def suggestion(word: str, known: Iterable[str]) -> str:
    """``"; did you mean "name"?"`` if there is something near, else nothing."""
    near = get_close_matches(word[:MAX_SHOWN].lower(), list(known), n=1, cutoff=0.6)
    return f'; did you mean "{near[0]}"?' if near else ""
