"""Prefix lists in files: one CIDR a line, kept compactly.

Inside the room a prefix is one integer, its *key*: the network address shifted
left by eight bits, plus the prefix length.  Sorted keys are in pre-order: a
network stands before those that it contains.
"""

from __future__ import annotations

import stat
from array import array
from collections.abc import Iterable, Iterator, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import overload

from policy.errors import PrefixFileError, PrefixFileProblem
from policy.flow import IPNetwork

WIDTHS = {4: 32, 6: 128}

PROBLEMS_REPORTED = 20  # enough to correct a file by, few enough to read

_LOW_64 = (1 << 64) - 1
_OCTETS = {str(number): number for number in range(256)}
_LENGTHS = {4: {str(n): n for n in range(33)}, 6: {str(n): n for n in range(129)}}
_HOST_MASKS = {
    family: [(1 << width - n) - 1 for n in range(width + 1)] for family, width in WIDTHS.items()
}
_HEXADECIMAL = frozenset("0123456789abcdefABCDEF")


def key_of(network: IPNetwork) -> int:
    """The key of a network; the family is not in it."""
    return int(network.network_address) << 8 | network.prefixlen


def network_of(family: int, value: int, length: int) -> IPNetwork:
    """The network at ``value``, whose host bits are zero."""
    return IPv4Network((value, length)) if family == 4 else IPv6Network((value, length))


class PrefixList(Sequence[IPNetwork]):
    """An immutable sorted sequence of different networks, IPv4 before IPv6.

    It takes 8 octets for an IPv4 network and 17 for an IPv6 network, where an
    ``ip_network`` takes about 300.
    """

    __slots__ = ("_high", "_keys", "_lengths", "_low", "name")

    def __init__(self, networks: Iterable[IPNetwork] = (), name: str = "") -> None:
        distinct = set(networks)
        self._set(
            name,
            sorted(key_of(network) for network in distinct if network.version == 4),
            sorted(key_of(network) for network in distinct if network.version == 6),
        )

    @classmethod
    def from_keys(cls, v4: Iterable[int], v6: Iterable[int], name: str = "") -> PrefixList:
        """A list from sorted keys without duplicates."""
        self = cls.__new__(cls)
        self._set(name, v4, v6)
        return self

    def _set(self, name: str, v4: Iterable[int], v6: Iterable[int]) -> None:
        self.name = name
        self._keys = array("Q", v4)
        self._high = array("Q")
        self._low = array("Q")
        self._lengths = array("B")
        for key in v6:
            self._high.append(key >> 72)
            self._low.append(key >> 8 & _LOW_64)
            self._lengths.append(key & 0xFF)

    def keys(self, family: int) -> Iterator[int]:
        """The keys of one family, 4 or 6, in order."""
        if family == 4:
            return iter(self._keys)
        return (
            high << 72 | low << 8 | length
            for high, low, length in zip(self._high, self._low, self._lengths, strict=True)
        )

    @property
    def families(self) -> set[int]:
        """Which of 4 and 6 have a network here."""
        return {family for family, part in ((4, self._keys), (6, self._lengths)) if part}

    def __len__(self) -> int:
        return len(self._keys) + len(self._lengths)

    @overload
    def __getitem__(self, index: int) -> IPNetwork: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[IPNetwork, ...]: ...
    def __getitem__(self, index: int | slice) -> IPNetwork | tuple[IPNetwork, ...]:
        if isinstance(index, slice):
            return tuple(self[number] for number in range(*index.indices(len(self))))
        number = range(len(self))[index]
        if number < len(self._keys):
            key = self._keys[number]
            return IPv4Network((key >> 8, key & 0xFF))
        number -= len(self._keys)
        value = self._high[number] << 64 | self._low[number]
        return IPv6Network((value, self._lengths[number]))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PrefixList):
            return NotImplemented
        return (
            self._keys == other._keys
            and self._high == other._high
            and self._low == other._low
            and self._lengths == other._lengths
        )

    def __hash__(self) -> int:
        return hash((len(self._keys), len(self._lengths), *self._keys[:8], *self._low[:8]))

    def __repr__(self) -> str:
        return f"PrefixList({self.name!r}, {len(self)} prefixes)"


Prefixes = tuple[IPNetwork, ...] | PrefixList | None


def keys(prefixes: Prefixes, family: int) -> Iterable[int]:
    """The keys of a rule's source or destination in one family; ``None`` is the whole family."""
    if prefixes is None:
        return (0,)
    if isinstance(prefixes, PrefixList):
        return prefixes.keys(family)
    return {key_of(network) for network in prefixes if network.version == family}


def read_prefixes(path: str | Path) -> PrefixList:
    """Read a list of one CIDR a line.  ``#`` starts a comment; blank lines are allowed.

    Raises PrefixFileError, which names the file and each bad line: not a CIDR,
    host bits set, or written before.
    """
    name = str(path)
    found: dict[int, list[int]] = {4: [], 6: []}
    lines = {4: array("Q"), 6: array("Q")}
    problems: list[tuple[int, str]] = []
    try:
        if stat.S_IFMT(Path(path).stat().st_mode) not in (stat.S_IFREG, stat.S_IFDIR):
            # A pipe could keep us waiting for ever, and /dev/zero has no end.
            raise OSError(0, "is not a regular file")
        with Path(path).open(encoding="utf-8-sig", errors="replace") as file:
            for number, line in enumerate(file, 1):
                text = line.partition("#")[0].strip()
                if not text:
                    continue
                try:
                    family, key = parse_prefix(text)
                except ValueError as error:
                    problems.append((number, str(error)))
                    continue
                found[family].append(key)
                lines[family].append(number)
    except OSError as error:
        reason = error.strerror or str(error)
        raise PrefixFileError([PrefixFileProblem(name, 0, reason)]) from error
    for family in (4, 6):
        if len(set(found[family])) != len(found[family]):
            problems.extend(_duplicates(family, found[family], lines[family]))
    if problems:
        problems.sort()
        reported = [PrefixFileProblem(name, *problem) for problem in problems[:PROBLEMS_REPORTED]]
        raise PrefixFileError(reported, len(problems) - len(reported))
    for family in (4, 6):
        found[family].sort()
    return PrefixList.from_keys(found[4], found[6], name)


def _duplicates(
    family: int, found: Iterable[int], lines: Iterable[int]
) -> Iterator[tuple[int, str]]:
    first: dict[int, int] = {}
    for key, line in zip(found, lines, strict=True):
        before = first.setdefault(key, line)
        if before != line:
            network = network_of(family, key >> 8, key & 0xFF)
            yield line, f"{network} is already in line {before}"


def parse_prefix(text: str) -> tuple[int, int]:
    """The family and the key of a CIDR.

    Usual spellings are read here, because ``ip_network`` takes ten times as
    long; it judges all others.  Raises ValueError with the reason.
    """
    address, slash, length_text = text.partition("/")
    family = 6 if ":" in address else 4
    length = _LENGTHS[family].get(length_text)
    if length is None:
        raise ValueError(_unlike_cidr(text, slash))
    value = _parse_ipv4(address) if family == 4 else _parse_ipv6(address)
    if value is None:
        if "%" in text:
            raise ValueError(f"{_shown(text)} names an interface")
        try:
            value = int(ip_network(text, strict=False).network_address)
            value = int(ip_network(f"{address}/{WIDTHS[family]}").network_address)
        except ValueError as error:
            raise ValueError(_unlike_cidr(text, slash)) from error
    if value & _HOST_MASKS[family][length]:
        network = network_of(family, value & ~_HOST_MASKS[family][length], length)
        raise ValueError(f"{_shown(text)} has host bits set; the network is {network}")
    return family, value << 8 | length


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")


def _unlike_cidr(text: str, slash: str) -> str:
    wanted = "an address, a slash and a prefix length" if slash else "a prefix length after a slash"
    return f"{_shown(text)} is not a CIDR: it needs {wanted}"


def _parse_ipv4(text: str) -> int | None:
    try:
        a, b, c, d = text.split(".")
        return _OCTETS[a] << 24 | _OCTETS[b] << 16 | _OCTETS[c] << 8 | _OCTETS[d]
    except (ValueError, KeyError):
        return None


def _parse_ipv6(text: str) -> int | None:
    head, gap, tail = text.partition("::")
    front = head.split(":") if head else []
    back = tail.split(":") if tail else []
    absent = 8 - len(front) - len(back)
    if absent < 0 or bool(absent) != bool(gap):
        return None
    value = 0
    for part in front:
        if not 0 < len(part) < 5 or not _HEXADECIMAL.issuperset(part):
            return None
        value = value << 16 | int(part, 16)
    value <<= 16 * absent
    for part in back:
        if not 0 < len(part) < 5 or not _HEXADECIMAL.issuperset(part):
            return None
        value = value << 16 | int(part, 16)
    return value
