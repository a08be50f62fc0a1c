"""The zone of exported services: which records there are, and what is said to a question.

ZONE                            SOA, NS
HOST.ZONE                       A, AAAA: this box
b._dns-sd._udp.ZONE             PTR ZONE        (RFC 6763 section 11: where to browse)
_services._dns-sd._udp.ZONE     PTR TYPE.ZONE   (section 9: all types)
_starwars._tcp.ZONE             PTR INSTANCE._starwars._tcp.ZONE
                                SRV, for those who know RFC 2782 only: the system's services,
                                the highest version first
INSTANCE._starwars._tcp.ZONE    SRV, TXT
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from dnsrecords.dnssd import (
    Address,
    Code,
    Content,
    Labels,
    Place,
    Pointer,
    Record,
    Reply,
    Server,
    Start,
    Text,
)
from dnsrecords.errors import RecordError
from oegw.moniker.discovery.naming import OVER_TCP, strings_of, type_of
from oegw.moniker.interface import Entry, IPAddress, Service
from oegw.moniker.names import SYSTEM

# Our choices.
TTL = 10  # seconds: what is registered changes with processes
MAX_TOLD = 100  # instances of one answer
MAX_ADDITIONAL_OCTETS = 32768  # of what nobody asked for, estimated

_BROWSING = ("b", "db", "lb")
_WHOLE_ZONES = ("AXFR", "IXFR")  # are not handed out; what a question asks is told record by record


class Zone:
    """``domain``: its name.  ``host``: the name of this box, in it or not.  ``addresses``: of this
    box.  ``named``: the entries by the first label of their instances.  ``serial``: grows."""

    def __init__(
        self,
        domain: Labels,
        host: Labels,
        addresses: Sequence[IPAddress],
        named: Mapping[str, Entry],
        serial: int,
    ) -> None:
        self.domain = _lower(domain)
        self._host = host
        self._sets: dict[Labels, dict[str, dict[Record, None]]] = {}
        self._names: set[Labels] = set()  # and those in between, which have no records
        self._start = Record(domain, TTL, Start(host, serial, TTL))
        self._put(domain, Start(host, serial, TTL))
        self._put(domain, Server(host))
        for address in addresses:
            self._put(host, Address(address))
        for word in _BROWSING:
            self._put((word, "_dns-sd", "_udp", *domain), Pointer(domain))
        self._put_instances(named)
        self._put_plain_places([entry.service for entry in named.values()])

    def _put(self, owner: Labels, content: Content) -> None:
        record = Record(owner, TTL, content)
        key = _lower(owner)
        self._sets.setdefault(key, {}).setdefault(record.rdtype, {})[record] = None
        while key and key not in self._names:
            self._names.add(key)
            key = key[1:]

    def _put_instances(self, named: Mapping[str, Entry]) -> None:
        types: dict[Labels, None] = {}
        for label, entry in named.items():
            service = entry.service
            kind = (*type_of(service.service, service.transport), *self.domain)
            types[kind] = None
            instance = (label, *kind)
            self._put(kind, Pointer(instance))
            self._put(instance, Place(0, service.weight, service.port, self._target(service)))
            self._put(instance, Text(strings_of(service)))
        for kind in types:
            self._put(("_services", "_dns-sd", "_udp", *self.domain), Pointer(kind))

    def _put_plain_places(self, services: Iterable[Service]) -> None:
        """SRV as RFC 2782 has it.  A priority says which version is asked first."""
        groups: dict[Labels, list[Service]] = {}
        for service in services:
            if service.namespace == SYSTEM:
                word = "_tcp" if service.transport in OVER_TCP else f"_{service.transport}"
                groups.setdefault((f"_{service.service}", word, *self.domain), []).append(service)
        for owner, group in groups.items():
            versions = sorted({service.version for service in group}, reverse=True)
            for service in group[:MAX_TOLD]:
                priority = versions.index(service.version)
                target = self._target(service)
                self._put(owner, Place(priority, service.weight, service.port, target))

    def _target(self, service: Service) -> Labels:
        """This box; or, of a service that is bound to one address, a name that has just that."""
        if service.address is None:
            return self._host
        word = "".join(each if each.isalnum() else "-" for each in str(service.address))
        name = (f"a{word}", *self.domain)
        self._put(name, Address(service.address))
        return name

    def records(self) -> list[Record]:
        """All of it, as a zone file begins: with the SOA."""
        return [
            record
            for records in self._sets.values()
            for each in records.values()
            for record in each
        ]

    def holds(self, name: Labels) -> bool:
        """Whether the name is in the zone."""
        return _lower(name)[len(name) - len(self.domain) :] == self.domain

    def reply(self, name: Labels, rdtype: str, *, brief: bool = False) -> Reply:
        """What is said to a question; about other zones, or all of ours: that we don't.

        ``brief``: without what was not asked for.
        """
        if not self.holds(name) or rdtype in _WHOLE_ZONES:
            return Reply(Code.REFUSED)
        key = _lower(name)
        sets = self._sets.get(key, {})
        found = list(sets.get(rdtype, ()))
        if rdtype == "ANY":
            found = [record for records in sets.values() for record in records]
        if found:
            answers = tuple(found[:MAX_TOLD])
            return Reply(Code.NOERROR, answers, (), () if brief else self._additional(answers))
        code = Code.NOERROR if key in self._names else Code.NXDOMAIN
        return Reply(code, (), (self._start,))

    def _additional(self, answers: Sequence[Record]) -> tuple[Record, ...]:
        """What will be asked for next (RFC 6763 section 12), while there is room."""
        added: dict[Record, None] = {}
        octets = 0
        waiting = list(answers)
        while waiting:
            content = waiting.pop(0).content
            if isinstance(content, Pointer):
                more = self._some(content.target, "SRV", "TXT")
            elif isinstance(content, Place):
                more = self._some(content.target, "A", "AAAA")
            else:
                continue
            octets += sum(map(_estimate, more))
            if octets > MAX_ADDITIONAL_OCTETS:
                break
            waiting += [record for record in more if record not in added]
            added |= dict.fromkeys(more)
        return tuple(record for record in added if record not in answers)

    def _some(self, name: Labels, *rdtypes: str) -> list[Record]:
        sets = self._sets.get(_lower(name), {})
        return [record for rdtype in rdtypes for record in sets.get(rdtype, ())]


def labels_of(text: str) -> Labels:
    """The labels of a name as it is configured.  Raises RecordError."""
    labels = tuple(text.rstrip(".").split("."))
    if not all(labels) or any(len(label.encode()) > 63 for label in labels):
        raise RecordError(f"{text[:60]!r} is not a domain name")
    return labels


def _lower(labels: Labels) -> Labels:
    return tuple(label.lower() for label in labels)


def _estimate(record: Record) -> int:
    strings = record.content.strings if isinstance(record.content, Text) else ()
    return 64 + sum(1 + len(string) for string in strings)
