"""What is registered on this host, and by whom (MK-1, MK-8, MK-9, MK-21, MK-22).

An entry belongs to the process that registered it: that process alone changes it, and it ends with
the process.  Several entries may have one name: other versions, and instances of one version, of
which the weight decides.  A look-up costs what the instances of one name cost, however many
names there are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from oegw.moniker.interface import Entry, IPAddress, Owner, Service
from oegw.moniker.names import MonikerError, ServiceName, canonical
from oegw.moniker.transports import suits
from oegw.moniker.wire import Code

# Specification: TXT strings of DNS-SD (RFC 6763 section 6).
MAX_TEXT_OCTETS = 255  # of one string

# Our choices.
MAX_TEXTS = 16
MAX_TEXTS_OCTETS = 1024  # of all strings of one entry
MAX_WEIGHT = 1000
MAX_SERVICES = 65536  # of all users
MAX_INSTANCES = 256  # of one name, in all versions: what one look-up may cost
FAMILIES = ("4", "6", "46")

Choose = Callable[[int], int]  # a random number below the one given, each as likely


class RegistrationRefused(MonikerError):  # noqa: N818  (it names the fact)
    """Nothing was registered or changed.

    ``code``: ``malformed`` (the registration itself), ``denied`` (it may not), ``limit`` (too
    many), ``unknown`` (no such entry of the caller's).
    """

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


class NotFound(MonikerError):  # noqa: N818  (it names the fact)
    """No entry will do: ``code`` is UNKNOWN, VERSION or TRANSPORT."""

    def __init__(self, code: Code, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True, slots=True)
class Limits:
    """``services``: of one user; root has no limit of his own.  ``all``: of all users."""

    services: int = 256
    all: int = MAX_SERVICES
    instances: int = MAX_INSTANCES


_Key = tuple[str, str]  # namespace and service


class Registry:
    """All entries of a host.  Not safe for threads; the daemon has one."""

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._entries: dict[int, Entry] = {}
        self._named: dict[_Key, dict[int, Entry]] = {}
        self._of_process: dict[int, set[int]] = {}
        self._of_user: Counter[int] = Counter()
        self._last = 0

    def __len__(self) -> int:
        return len(self._entries)

    # -------------------------------------------------------------------- written

    def register(self, service: Service, owner: Owner, now: float) -> Entry:
        """Who may use which name is decided before (`rules.namespace_for`).

        Raises RegistrationRefused.
        """
        service = _checked(service)
        key = (service.namespace, service.service)
        if len(self._entries) >= self._limits.all:
            raise RegistrationRefused("limit", f"{self._limits.all} services are registered")
        if owner.uid and self._of_user[owner.uid] >= self._limits.services:
            raise RegistrationRefused(
                "limit", f"user {owner.user} has {self._limits.services} services already"
            )
        if len(self._named.get(key, ())) >= self._limits.instances:
            raise RegistrationRefused(
                "limit", f"{service.service} has {self._limits.instances} instances already"
            )
        self._last += 1
        entry = Entry(self._last, service, owner, now)
        self._set(entry)
        self._of_process.setdefault(owner.pid, set()).add(entry.number)
        self._of_user[owner.uid] += 1
        return entry

    def update(
        self,
        number: int,
        owner: Owner,
        *,
        weight: int | None = None,
        exported: bool | None = None,
        text: tuple[str, ...] | None = None,
    ) -> Entry:
        """What is None stays.  Raises RegistrationRefused."""
        entry = self._own(number, owner)
        old = entry.service
        service = replace(
            old,
            weight=old.weight if weight is None else weight,
            exported=old.exported if exported is None else exported,
            text=old.text if text is None else text,
        )
        entry = replace(entry, service=_checked(service))
        self._set(entry)
        return entry

    def unregister(self, number: int, owner: Owner) -> Entry:
        """The entry that is no more.  Raises RegistrationRefused."""
        return self._remove(self._own(number, owner))

    def remove(self, number: int) -> Entry | None:
        """The daemon's own word, when a connection ended; None if there is no such entry."""
        entry = self._entries.get(number)
        return self._remove(entry) if entry is not None else None

    def process_ended(self, pid: int) -> list[Entry]:
        """The entries that ended with the process, in the order of their registration."""
        return [self._remove(self._entries[n]) for n in sorted(self._of_process.get(pid, ()))]

    # ----------------------------------------------------------------------- read

    def find(
        self,
        name: ServiceName,
        transport: str | None,
        choose: Choose,
        *,
        at: IPAddress | None = None,
        family: str | None = None,
        tcpmux: bool = False,
    ) -> Entry:
        """Of the highest version that will do one instance at random, by weight.

        ``transport``: a name or a kind (`transports.Kind`), None for any.  ``at``: only those that
        are told at this address of the host.  ``family`` (``"4"`` or ``"6"``): instances that
        listen on it come before all others.  ``tcpmux``: only those to which the daemon may hand
        connections.  Raises NotFound.
        """
        named = self._named.get((name.namespace, name.service), {}).values()
        found = [e for e in named if at is None or e.service.address in (None, at)]
        if not found:
            raise NotFound(Code.UNKNOWN, "no such service")
        found = [e for e in found if transport is None or suits(e.service.transport, transport)]
        found = [e for e in found if e.service.tcpmux or not tcpmux]
        if not found:
            raise NotFound(Code.TRANSPORT, "the service is not to be had this way")
        found = [e for e in found if e.service.version in name.versions]
        if not found:
            raise NotFound(Code.VERSION, "no version of the service that will do")
        if family is not None:
            found = [e for e in found if family in e.service.families] or found
        highest = max(e.service.version for e in found)
        return _weighted([e for e in found if e.service.version == highest], choose)

    def entry(self, number: int) -> Entry | None:
        return self._entries.get(number)

    def entries(self) -> tuple[Entry, ...]:
        """In the order of their registration."""
        return tuple(self._entries.values())

    def of_user(self, uid: int) -> int:
        """How many entries a user has."""
        return self._of_user[uid]

    # ---------------------------------------------------------------------- inside

    def _own(self, number: int, owner: Owner) -> Entry:
        """The same answer for what there is not and what is another's."""
        entry = self._entries.get(number)
        if entry is None or (entry.owner.pid, entry.owner.uid) != (owner.pid, owner.uid):
            raise RegistrationRefused("unknown", "the caller has registered no such service")
        return entry

    def _set(self, entry: Entry) -> None:
        self._entries[entry.number] = entry
        key = (entry.service.namespace, entry.service.service)
        self._named.setdefault(key, {})[entry.number] = entry

    def _remove(self, entry: Entry) -> Entry:
        del self._entries[entry.number]
        key = (entry.service.namespace, entry.service.service)
        del self._named[key][entry.number]
        if not self._named[key]:
            del self._named[key]
        numbers = self._of_process[entry.owner.pid]
        numbers.discard(entry.number)
        if not numbers:
            del self._of_process[entry.owner.pid]
        self._of_user[entry.owner.uid] -= 1
        if not self._of_user[entry.owner.uid]:
            del self._of_user[entry.owner.uid]
        return entry


def _weighted(entries: list[Entry], choose: Choose) -> Entry:
    left = choose(sum(entry.service.weight for entry in entries))
    for entry in entries:
        left -= entry.service.weight
        if left < 0:
            return entry
    raise AssertionError("a number that is not below the one given")


def _checked(service: Service) -> Service:
    """``service`` with canonical names.  Raises RegistrationRefused."""
    try:
        names = (
            canonical(service.service),
            service.namespace and canonical(service.namespace, "namespace"),
        )
    except ValueError as error:
        raise RegistrationRefused("malformed", str(error)) from None
    if not 1 <= service.port <= 65535:
        raise RegistrationRefused("malformed", "the socket is not bound to a port")
    if service.families not in FAMILIES:
        raise RegistrationRefused("malformed", "the socket is of no family of the Internet's")
    if not 1 <= service.weight <= MAX_WEIGHT:
        raise RegistrationRefused("malformed", f"weight: is not within 1 to {MAX_WEIGHT}")
    _check_text(service.text)
    return replace(service, service=names[0], namespace=names[1])


def _check_text(text: Iterable[str]) -> None:
    try:  # octets that are not UTF-8 are told as they came (PEP 383)
        octets = [len(each.encode("utf-8", "surrogateescape")) for each in text]
    except UnicodeEncodeError:
        raise RegistrationRefused("malformed", "text: half of a character") from None
    if any(not 1 <= each <= MAX_TEXT_OCTETS for each in octets):
        raise RegistrationRefused("malformed", f"text: a string is not 1 to {MAX_TEXT_OCTETS} long")
    if len(octets) > MAX_TEXTS or sum(octets) > MAX_TEXTS_OCTETS:
        raise RegistrationRefused(
            "limit", f"text: more than {MAX_TEXTS} strings or {MAX_TEXTS_OCTETS} octets"
        )
