"""Putting records into the DNS: dynamic update (RFC 2136), signed by TSIG (RFC 8945).

A module that talks, for commands that wait: nothing in the running gateway uses it.  dnspython
makes and reads the messages; all of them go by TCP, since keys are long.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.query
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rrset
import dns.tsig
import dns.tsigkeyring
import dns.update

from dnsrecords.outcome import IPAddress
from dnsrecords.published import PublishedRecord, TsigKey

# Our choices.
MAX_ALIASES = 8  # CNAMEs from one owner, as those of RFC 2317
MAX_SERVERS = 16  # of one zone


class UpdateError(Exception):
    """The records could not be published, or not be looked at; the message says where and why."""


@dataclass(frozen=True, slots=True)
class Zone:
    """``name`` is absolute; ``primary`` takes the updates; ``servers`` are authoritative.

    ``minimum``: seconds that a resolver may believe that there is no record (RFC 2308).
    """

    name: str
    primary: IPAddress
    servers: tuple[IPAddress, ...]
    minimum: int


@dataclass(frozen=True, slots=True)
class Absence:
    """A server that does not have a record yet."""

    server: IPAddress
    record: PublishedRecord


class Updater:
    """Finds the zones of records, changes them, and looks whether all their servers have followed.

    ``server`` is asked to change the zones in place of the one that each zone's SOA names.
    ``timeout`` in seconds is for each question; ``mark`` is set on the sockets (SO_MARK).
    """

    def __init__(
        self,
        resolvers: Sequence[IPAddress],
        *,
        server: IPAddress | None = None,
        key: TsigKey | None = None,
        mark: int | None = None,
        timeout: float = 5.0,
        port: int = 53,
    ) -> None:
        self._resolvers = resolvers
        self._server = server
        self._key = key
        self._mark = mark
        self._timeout = timeout
        self._port = port
        self._zones: dict[dns.name.Name, Zone] = {}
        self._soas: dict[dns.name.Name, dns.rrset.RRset] = {}
        self._owners: dict[str, dns.name.Name] = {}

    # What stands in the DNS.

    def zone_of(self, record: PublishedRecord) -> Zone:
        """The zone that a record belongs into.  Raises UpdateError."""
        soa = self._soa(self._owner_of(record))
        if soa.name not in self._zones:
            self._zones[soa.name] = self._describe(soa)
        return self._zones[soa.name]

    def absences(self, records: Iterable[PublishedRecord]) -> list[Absence]:
        """Which authoritative servers lack which records.  Raises UpdateError."""
        return [
            Absence(server, record)
            for record in records
            for server in self.zone_of(record).servers
            if not self._has(server, record)
        ]

    def holding_time(self, records: Iterable[PublishedRecord]) -> int:
        """Seconds that a resolver may hold on to what stood at these names before.

        The largest of the zones' SOA MINIMUM (RFC 4322 section 5.4) and of the lifetimes of the
        records that are there now.  Raises UpdateError.
        """
        longest = 0
        for record in records:
            zone = self.zone_of(record)
            longest = max(longest, zone.minimum)
            for rrset in self._authoritative(zone.primary, record):
                longest = max(longest, rrset.ttl)
        return longest

    def _soa(self, name: dns.name.Name) -> dns.rrset.RRset:
        """The SOA of the zone that ``name`` is in: in the answer, or where the denial has it."""
        if (known := self._soas.get(name)) is not None:
            return known
        response = self._ask_resolvers(name, dns.rdatatype.SOA)
        for rrset in (*response.answer, *response.authority):
            if rrset.rdtype == dns.rdatatype.SOA and name.is_subdomain(rrset.name):
                self._soas[name] = rrset
                return rrset
        raise UpdateError(f"{name}: no SOA: which zone it is in can't be found out")

    def _describe(self, soa: dns.rrset.RRset) -> Zone:
        primary = self._server
        if primary is None:
            found = self._addresses(soa[0].mname)
            if not found:
                raise UpdateError(f"zone {soa.name}: its primary {soa[0].mname} has no address")
            primary = found[0]
        servers: dict[IPAddress, None] = {}
        for rrset in self._ask_resolvers(soa.name, dns.rdatatype.NS).answer:
            for rdata in rrset if rrset.rdtype == dns.rdatatype.NS else ():
                servers |= dict.fromkeys(self._addresses(rdata.target))
        return Zone(
            str(soa.name), primary, tuple(servers)[:MAX_SERVERS] or (primary,), soa[0].minimum
        )

    def _addresses(self, name: dns.name.Name) -> list[IPAddress]:
        return [
            ip_address(str(rdata))
            for rdtype in (dns.rdatatype.A, dns.rdatatype.AAAA)
            for rrset in self._ask_resolvers(name, rdtype).answer
            if rrset.rdtype == rdtype
            for rdata in rrset
        ]

    def _owner_of(self, record: PublishedRecord) -> dns.name.Name:
        """Where the record really stands: CNAMEs followed (RFC 2317)."""
        if (known := self._owners.get(record.owner)) is not None:
            return known
        name = dns.name.from_text(record.owner)
        for _ in range(MAX_ALIASES):
            answer = self._ask_resolvers(name, dns.rdatatype.CNAME).answer
            target = next((r for r in answer if r.rdtype == dns.rdatatype.CNAME), None)
            if target is None:
                self._owners[record.owner] = name
                return name
            name = target[0].target
        raise UpdateError(f"{record.owner}: more than {MAX_ALIASES} CNAMEs")

    def _has(self, server: IPAddress, record: PublishedRecord) -> bool:
        wanted = self._rdata(record)
        return any(wanted in rrset for rrset in self._authoritative(server, record))

    def _authoritative(self, server: IPAddress, record: PublishedRecord) -> list[dns.rrset.RRset]:
        """What a server of the zone itself says is at the record's name."""
        name, rdtype = self._owner_of(record), dns.rdatatype.from_text(record.rdtype)
        query = dns.message.make_query(name, rdtype, flags=0)
        response = self._exchange(query, server, f"{name} {record.rdtype}")
        if response.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
            raise UpdateError(f"{server}: {name} {record.rdtype}: {_code(response)}")
        return [rrset for rrset in response.answer if rrset.rdtype == rdtype]

    # Changing it.

    def change(
        self,
        additions: Sequence[PublishedRecord],
        removals: Sequence[PublishedRecord] = (),
        ttl: int = 3600,
    ) -> list[Zone]:
        """Add and remove records, each zone in one step; returns the zones changed.

        What is there already, or is gone already, is no error.  Raises UpdateError; the zones
        before the one that failed have been changed then.
        """
        work: dict[str, tuple[Zone, dns.update.UpdateMessage]] = {}
        for record in (*removals, *additions):
            zone = self.zone_of(record)
            if zone.name not in work:
                work[zone.name] = zone, self._message(zone)
            message, name = work[zone.name][1], self._owner_of(record)
            if record in additions:
                message.add(name, ttl, self._rdata(record))
            else:
                message.delete(name, self._rdata(record))
        for zone, message in work.values():
            response = self._exchange(message, zone.primary, f"update of zone {zone.name}")
            if response.rcode() != dns.rcode.NOERROR:
                raise UpdateError(
                    f"{zone.primary}: update of zone {zone.name} refused: {_code(response)}"
                    + self._hint(response)
                )
            if self._key is not None and not response.had_tsig:  # RFC 8945 section 5.3.1
                raise UpdateError(
                    f"{zone.primary}: update of zone {zone.name}: the answer is not signed"
                )
        return [zone for zone, _ in work.values()]

    def _hint(self, response: dns.message.Message) -> str:
        if response.rcode() == dns.rcode.NOTIMP:
            return " (it takes no dynamic updates)"
        return "" if self._key else " (the update is not signed: there is no TSIG key)"

    def _message(self, zone: Zone) -> dns.update.UpdateMessage:
        if self._key is None:
            return dns.update.UpdateMessage(zone.name)
        name = dns.name.from_text(self._key.name)
        ring = {name: dns.tsig.Key(name, self._key.secret, self._key.algorithm)}
        return dns.update.UpdateMessage(zone.name, keyring=ring, keyname=name)

    @staticmethod
    def _rdata(record: PublishedRecord) -> dns.rdata.Rdata:
        octets, rdtype = record.rdata, dns.rdatatype.from_text(record.rdtype)
        return dns.rdata.from_wire(dns.rdataclass.IN, rdtype, octets, 0, len(octets))

    # By TCP.

    def _ask_resolvers(
        self, name: dns.name.Name, rdtype: dns.rdatatype.RdataType
    ) -> dns.message.Message:
        what = f"{name} {dns.rdatatype.to_text(rdtype)}"
        problem = "no resolver"
        for resolver in self._resolvers:
            try:
                response = self._exchange(dns.message.make_query(name, rdtype), resolver, what)
            except UpdateError as error:
                problem = str(error)
                continue
            if response.rcode() in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
                return response
            problem = f"{resolver}: {what}: {_code(response)}"
        raise UpdateError(problem)

    def _exchange(
        self, query: dns.message.Message, server: IPAddress, what: str
    ) -> dns.message.Message:
        try:
            with self._connect(server) as sock:
                return dns.query.tcp(query, str(server), self._timeout, sock=sock)
        except (OSError, EOFError, dns.exception.DNSException) as error:
            text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise UpdateError(f"{server}: {what}: {text or type(error).__name__}") from error

    def _connect(self, server: IPAddress) -> socket.socket:
        family = socket.AF_INET6 if isinstance(server, IPv6Address) else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            if self._mark is not None:
                mark = struct.pack("=I", self._mark)  # all 32 bits
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
            sock.settimeout(self._timeout)
            sock.connect((str(server), self._port))
            sock.setblocking(False)  # as dnspython wants it
        except OSError:
            sock.close()
            raise
        return sock


def _code(response: dns.message.Message) -> str:
    return dns.rcode.to_text(response.rcode())
