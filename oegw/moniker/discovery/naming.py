"""How a registered service is called in DNS-SD (RFC 6763), and read again from there.

    INSTANCE._starwars._tcp.ZONE        SRV  priority weight port host
                                        TXT  txtvers=1 version=2 [namespace=..] transport=tcp ...

A name of Moniker is the label of the service as it is; one that has no room in a label (62 octets)
is not told.  DNS-SD has `_tcp` and, for all other transports, `_udp` (section 7).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from dnsrecords.dnssd import Labels, Place, Text
from oegw.moniker.interface import Entry, IPAddress, Service
from oegw.moniker.names import SYSTEM, InvalidName, ServiceName, Version, Versions, canonical
from oegw.moniker.uri import MonikerUri

# Specification.
MAX_LABEL = 63  # octets (RFC 1035 section 2.3.4)
MAX_STRING = 255  # octets of one string (RFC 6763 section 6.1)
TXTVERS = "txtvers=1"  # section 6.7: our layout of the keys below, always the first

# Our choices.
MAX_TEXT = 1300  # octets of all strings: section 6.2 says that more does not fit one packet
OVER_TCP = ("tcp", "mptcp")


def type_of(service: str, transport: str) -> Labels:
    """The two labels of a type: ``("_starwars", "_tcp")``."""
    return f"_{service}", "_tcp" if transport in OVER_TCP else "_udp"


def tellable(service: Service) -> bool:
    """Whether its name has room in a label."""
    return len(f"_{service.service}".encode()) <= MAX_LABEL


def strings_of(service: Service) -> tuple[bytes, ...]:
    """The TXT record: our keys first, for of a key that comes twice the first counts (6.4)."""
    own = [TXTVERS, f"version={service.version}", f"transport={service.transport}"]
    if service.namespace != SYSTEM:
        own.append(f"namespace={service.namespace}")
    if service.sst:
        own.append("sst")
    strings, octets = [], 0
    for text in (*own, *service.text):
        string = text.encode("utf-8", "surrogateescape")
        octets += 1 + len(string)
        if octets > MAX_TEXT:
            break
        if 0 < len(string) <= MAX_STRING:
            strings.append(string)
    return tuple(strings)


def _title(service: Service, host: str) -> str:
    """What a person reads: ``reynolds::http 2 on bob``."""
    space = f"{service.namespace}::" if service.namespace != SYSTEM else ""
    return f"{space}{service.service} {service.version} on {host}"


def _cut(text: str, octets: int) -> str:
    """As many whole characters as have room."""
    return text.encode()[:octets].decode("utf-8", "ignore")


class Instances:
    """The first label of each instance, the same for as long as it is registered.

    Of several with the same title the later ones have a number.
    """

    def __init__(self, host: str) -> None:
        self._host = host
        self._labels: dict[int, str] = {}

    def named(self, entries: Iterable[Entry]) -> dict[str, Entry]:
        """The entries by their labels; the labels of all others are forgotten."""
        entries = sorted(entries, key=lambda entry: entry.number)
        there = {entry.number for entry in entries}
        self._labels = {n: label for n, label in self._labels.items() if n in there}
        taken = {label.lower() for label in self._labels.values()}
        for entry in entries:
            if entry.number not in self._labels:
                label = self._free(_title(entry.service, self._host), taken)
                taken.add(label.lower())
                self._labels[entry.number] = label
        return {self._labels[entry.number]: entry for entry in entries}

    @staticmethod
    def _free(title: str, taken: set[str]) -> str:
        label, number = _cut(title, MAX_LABEL), 1
        while label.lower() in taken:
            number += 1
            suffix = f" ({number})"
            label = _cut(title, MAX_LABEL - len(suffix)) + suffix
        return label


# ------------------------------------------------------------------ read again


@dataclass(frozen=True, slots=True)
class Finding:
    """A service somewhere.  ``host``: its name; ``addresses``: of it, as the gateway says.

    ``gateway``: the name of the zone in which it was found, empty: here.
    """

    service: str
    version: Version | None
    namespace: str
    transport: str
    host: str
    addresses: tuple[IPAddress, ...]
    port: int
    priority: int
    weight: int
    text: tuple[str, ...]
    instance: str
    gateway: str

    def uri(self, host: str | None = None) -> str:
        """With no port: who uses it asks the host's daemon (MK-5)."""
        versions = Versions() if self.version is None else Versions((("=", self.version),))
        name = ServiceName(self.service, self.namespace, versions)
        return str(MonikerUri(name, host or self.host))

    def says(self, wanted: Iterable[str]) -> bool:
        """Whether it has all of these strings ``key=value``; keys without regard to case (6.4)."""
        own = {_folded(text) for text in self.text}
        return all(_folded(text) in own for text in wanted)


def _folded(text: str) -> str:
    key, equals, value = text.partition("=")
    return key.lower() + equals + value


def finding_of(
    instance: Labels, place: Place, text: Text, addresses: Iterable[IPAddress], gateway: str
) -> Finding | None:
    """What the records of an instance come to; None: nothing that we could use (section 6.4 has
    strange strings ignored, not refused)."""
    if len(instance) < 3 or not instance[1].startswith("_") or not place.port:
        return None
    pairs: dict[str, str] = {}
    strings = [string.decode("utf-8", "backslashreplace") for string in text.strings if string]
    for string in strings:
        key, _, value = string.partition("=")
        pairs.setdefault(key.lower(), value)
    try:
        service = canonical(instance[1][1:])
        namespace = canonical(pairs["namespace"], "namespace") if pairs.get("namespace") else SYSTEM
        version = Version.parse(pairs["version"]) if pairs.get("version") else None
        transport = canonical(pairs.get("transport") or instance[2].removeprefix("_"), "transport")
        host = ".".join(canonical(label, "host") for label in place.target)
        uri = MonikerUri.parse(f"x://{host}")  # "." as target: not available (RFC 2782)
    except InvalidName:
        return None
    if uri.host != host:
        return None
    return Finding(
        service,
        version,
        namespace,
        transport,
        host,
        tuple(dict.fromkeys(addresses)),
        place.port,
        place.priority,
        place.weight,
        tuple(strings),
        instance[0],
        gateway,
    )
