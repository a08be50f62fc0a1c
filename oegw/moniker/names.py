"""What a service is called: namespace, name, version (MK-9, MK-10, MK-13, MK-25).

    [NAMESPACE::]SERVICE[@VERSIONS]        starwars   reynolds::http   http@2   http@>=1,<2

A name is 1 to 255 octets of UTF-8, compared without regard to case (as TCPMUX and DNS-SD do), with
no control character, space, ``:``, ``@``, ``/`` or ``*``.  ``-`` and ``*`` alone are no names:
they stand for the system's namespace and for "any" on the wire.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field

# Our choices.
MAX_NAME_OCTETS = 255
MAX_VERSION_OCTETS = 32
MAX_BOUNDS = 4  # of a range of versions
SYSTEM = ""  # the namespace of the system's own services

_FORBIDDEN = re.compile(r"[\s:@/*,\x00-\x1f\x7f]")
_VERSION = re.compile(r"(?:0|[1-9][0-9]{0,8})(?:\.(?:0|[1-9][0-9]{0,8})){0,3}", re.ASCII)
_BOUND = re.compile(r"(?P<relation>>=|<=|>|<|=)?(?P<version>[0-9.]+)", re.ASCII)


class MonikerError(Exception):
    """Anything that Moniker refuses or misses; the subclasses say what."""


class InvalidName(MonikerError, ValueError):  # noqa: N818  (it names the fact)
    """A name, version, range or URI can't be read; the text says which and why."""


def canonical(name: str, what: str = "service") -> str:
    """The one form in which a name is compared and sent: NFC, case folded.

    Raises InvalidName, which says ``what`` is wrong.
    """
    folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
    octets = len(folded.encode("utf-8", "surrogatepass"))
    if not folded or folded == "-":
        raise InvalidName(f"{what} {name!r}: is no name")
    if octets > MAX_NAME_OCTETS:
        raise InvalidName(f"{what}: {octets} octets, more than {MAX_NAME_OCTETS}")
    if (found := _FORBIDDEN.search(folded)) is not None:
        raise InvalidName(f"{what} {name!r}: {found[0]!r} can't be part of a name")
    if any(unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co", "Cn") for c in folded):
        raise InvalidName(f"{what} {name!r}: has a character that nobody sees")
    return folded


@dataclass(frozen=True, slots=True, order=True)
class Version:
    """One to four numbers with dots between them; ``1`` and ``1.0`` are the same version."""

    numbers: tuple[int, ...]
    text: str = field(compare=False)

    @classmethod
    def parse(cls, text: str) -> Version:
        """Raises InvalidName."""
        if len(text) > MAX_VERSION_OCTETS or not _VERSION.fullmatch(text):
            raise InvalidName(f"version {text[:40]!r}: is not of the form 1 or 1.2.3")
        numbers = [int(number) for number in text.split(".")]
        while len(numbers) > 1 and not numbers[-1]:
            numbers.pop()
        return cls(tuple(numbers), text)

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Versions:
    """Which versions will do: any (no bounds), exactly one, or a range such as ``>=1,<2``."""

    bounds: tuple[tuple[str, Version], ...] = ()

    @classmethod
    def parse(cls, text: str) -> Versions:
        """``*``, a version, or relations with commas between them.  Raises InvalidName."""
        if text == "*":
            return cls()
        parts = text.split(",")
        if len(parts) > MAX_BOUNDS or len(text) > MAX_VERSION_OCTETS * MAX_BOUNDS:
            raise InvalidName(f"versions {text[:40]!r}: more than {MAX_BOUNDS} relations")
        bounds = []
        for part in parts:
            if (found := _BOUND.fullmatch(part)) is None:
                raise InvalidName(f"versions {text!r}: {part!r} is no relation to a version")
            bounds.append((found["relation"] or "=", Version.parse(found["version"])))
        return cls(tuple(bounds))

    def __contains__(self, version: Version) -> bool:
        return all(_RELATIONS[relation](version, bound) for relation, bound in self.bounds)

    def __str__(self) -> str:
        if not self.bounds:
            return "*"
        return ",".join(f"{'' if r == '=' else r}{version}" for r, version in self.bounds)


_RELATIONS = {
    "=": lambda version, bound: version == bound,
    ">": lambda version, bound: version > bound,
    "<": lambda version, bound: version < bound,
    ">=": lambda version, bound: version >= bound,
    "<=": lambda version, bound: version <= bound,
}


@dataclass(frozen=True, slots=True)
class ServiceName:
    """What is asked for: ``namespace`` (SYSTEM: the system's), ``service``, both canonical."""

    service: str
    namespace: str = SYSTEM
    versions: Versions = Versions()

    @classmethod
    def parse(cls, text: str) -> ServiceName:
        """``[NAMESPACE::]SERVICE[@VERSIONS]``.  Raises InvalidName."""
        namespace, colons, rest = text.rpartition("::")
        service, at, versions = rest.partition("@")
        return cls(
            canonical(service),
            canonical(namespace, "namespace") if colons else SYSTEM,
            Versions.parse(versions) if at else Versions(),
        )

    def __str__(self) -> str:
        text = f"{self.namespace}::{self.service}" if self.namespace else self.service
        return f"{text}@{self.versions}" if self.versions.bounds else text
