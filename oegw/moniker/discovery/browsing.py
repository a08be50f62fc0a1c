"""Looking for services at gateways that agreed to be asked: `oegw moniker find` (MK-20).

By TCP, for answers are longer than questions; each question and each answer is signed with the key
that both have (TSIG, RFC 8945), which hides nothing.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress

from dnsrecords.dnssd import (
    MAX_REPLY_OCTETS,
    Address,
    Code,
    Labels,
    Place,
    Pointer,
    Record,
    Reply,
    Text,
    ask,
)
from dnsrecords.errors import RecordError
from dnsrecords.published import TsigKey
from oegw.keyfile import KeyFileError, read_secret
from oegw.moniker.discovery.naming import Finding, finding_of, type_of
from oegw.moniker.discovery.zone import labels_of
from oegw.moniker.interface import IPAddress
from oegw.moniker.names import MonikerError, ServiceName
from oegw.moniker.settings import Found

# Our choices.
# For one question, connection included.  Each step has less than the one before it, so that a host
# that is silent costs its own services only, not those of all who are asked for it.
PEER_SECONDS = 4.0  # of `oegw moniker find`
GATEWAY_SECONDS = 3.0  # of a gateway that asks another for a host inside
HOST_SECONDS = 1.5  # of a gateway that asks its hosts inside: a SYN may be lost (RFC 6298: 1 s)
MAX_INSTANCES = 200  # of one peer
MAX_FOLLOWED = 16  # instances whose records did not come along, and are asked for
_TRANSPORTS = ("tcp", "udp")  # one for each of the two kinds that DNS-SD has


class PeerUnusable(MonikerError):  # noqa: N818  (it names the fact)
    """A gateway can't be asked, or what it says can't be used; the text says why."""


def key_of(found: Found) -> TsigKey:
    """The key that we have in common.  Raises PeerUnusable, which names the file."""
    try:
        return TsigKey.parse(read_secret(found.key).decode("ascii", "replace"))
    except KeyFileError as error:
        raise PeerUnusable(str(error)) from None
    except RecordError as error:
        raise PeerUnusable(f"{found.key}: {error}") from None


class Peer:
    """One of them, with its key."""

    def __init__(self, found: Found) -> None:
        """Raises PeerUnusable."""
        self.found = found
        self.key = key_of(found)
        try:
            self.zone = labels_of(found.name)
        except RecordError as error:
            raise PeerUnusable(str(error)) from None

    async def asked(
        self, name: Labels, rdtype: str, *, recursion: bool, seconds: float = PEER_SECONDS
    ) -> Reply:
        """What it says.  Raises PeerUnusable."""
        where = f"{self.found.name} ({self.found.address} port {self.found.port})"
        try:
            question = ask(name, rdtype, secrets.randbelow(1 << 16), self.key, recursion=recursion)
            async with asyncio.timeout(seconds):
                octets = await self._exchanged(question.octets)
            reply = question.read(octets)
        except TimeoutError:
            raise PeerUnusable(f"{where}: no answer within {seconds:g} seconds") from None
        except OSError as error:  # asyncio's own text has the address in it, once more
            text = os.strerror(error.errno) if error.errno else error
            raise PeerUnusable(f"{where}: {text}") from None
        except EOFError:
            raise PeerUnusable(f"{where}: connection closed") from None
        except RecordError as error:
            raise PeerUnusable(f"{where}: {error}") from None
        if reply.code is Code.REFUSED:
            raise PeerUnusable(f"{where}: REFUSED: it has another zone, or another address for us")
        if reply.code not in (Code.NOERROR, Code.NXDOMAIN):
            raise PeerUnusable(f"{where}: {reply.code.name}")
        return reply

    async def _exchanged(self, octets: bytes) -> bytes:
        reader, writer = await asyncio.open_connection(
            str(self.found.address), self.found.port, limit=MAX_REPLY_OCTETS
        )
        try:
            writer.write(len(octets).to_bytes(2, "big") + octets)
            length = int.from_bytes(await reader.readexactly(2), "big")
            return await reader.readexactly(length)
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()


async def find(peer: Peer, name: ServiceName, transport: str | None = None) -> list[Finding]:
    """The instances of a service that a peer knows.  Raises PeerUnusable.

    A name without a namespace is looked for in all: who looks for a service by its name does not
    know whose it is.
    """
    kinds = dict.fromkeys(
        type_of(name.service, each) for each in ((transport,) if transport else _TRANSPORTS)
    )
    names = [(*kind, *peer.zone) for kind in kinds]
    # Together, for somebody who is silent to one question is so to the next.
    replies = await asyncio.gather(*(peer.asked(each, "PTR", recursion=True) for each in names))
    found = [finding for reply in replies for finding in await _read(peer, reply)]
    return [finding for finding in found if wanted(finding, name, transport)]


def wanted(finding: Finding, name: ServiceName, transport: str | None = None) -> bool:
    """Whether it is what was looked for."""
    return (
        finding.service == name.service
        and (not name.namespace or finding.namespace == name.namespace)
        and (transport is None or finding.transport == transport)
        and (
            finding.version in name.versions
            if finding.version is not None
            else not name.versions.bounds
        )
    )


async def _read(peer: Peer, reply: Reply) -> list[Finding]:
    instances = dict.fromkeys(
        record.content.target for record in reply.answers if isinstance(record.content, Pointer)
    )
    records = [*reply.additional]
    known = {_lower(record.owner) for record in records}
    missing = [each for each in instances if _lower(each) not in known][:MAX_FOLLOWED]
    for instance in missing:
        for rdtype in ("SRV", "TXT"):
            more = await peer.asked(instance, rdtype, recursion=True)
            records += [*more.answers, *more.additional]
    there = Said(records)
    found = []
    for instance in list(instances)[:MAX_INSTANCES]:
        place, text = there.place(instance), there.text(instance)
        if place is None:
            continue  # gone since
        addresses = there.addresses(place.target)
        finding = finding_of(instance, place, text or Text(()), addresses, peer.found.name)
        if finding is not None:
            found.append(finding)
    return found


class Said:
    """Records by their owners."""

    def __init__(self, records: Iterable[Record]) -> None:
        self._records: dict[Labels, list[Record]] = {}
        for record in records:
            self._records.setdefault(_lower(record.owner), []).append(record)

    def place(self, owner: Labels) -> Place | None:
        return next((c for c in self._contents(owner) if isinstance(c, Place)), None)

    def text(self, owner: Labels) -> Text | None:
        return next((c for c in self._contents(owner) if isinstance(c, Text)), None)

    def addresses(self, owner: Labels) -> list[IPAddress]:
        return [c.address for c in self._contents(owner) if isinstance(c, Address)]

    def _contents(self, owner: Labels) -> list[object]:
        return [record.content for record in self._records.get(_lower(owner), ())]


async def ask_all(
    peers: Sequence[Peer], name: ServiceName, transport: str | None = None
) -> tuple[list[Finding], list[str]]:
    """What all of them know, and why some could not be asked.

    The same instance told by several is one; the best version and priority come first.
    """
    results = await asyncio.gather(
        *(find(peer, name, transport) for peer in peers), return_exceptions=True
    )
    found: dict[tuple[str, str, int, str], Finding] = {}
    problems: list[str] = []
    for result in results:
        if isinstance(result, PeerUnusable):
            problems.append(str(result))
        elif isinstance(result, BaseException):
            raise result
        else:
            for finding in result:
                place = (finding.host, finding.transport, finding.port, finding.namespace)
                found.setdefault(place, finding)
    return sorted(found.values(), key=_best_first), problems


def _best_first(finding: Finding) -> tuple[object, ...]:
    numbers = finding.version.numbers if finding.version is not None else ()
    return (
        finding.service,
        tuple(-number for number in numbers),
        finding.priority,
        -finding.weight,
        finding.host,
        finding.instance,
    )


# --------------------------------------------------- for questions that others ask us


class Neighbours:
    """Whom the responder asks in turn, if the question wants recursion.

    Questions of gateways outside go to our hosts inside; questions of hosts inside go to the
    gateways outside, which then ask their hosts, and to the other hosts inside.  To hosts inside
    they go without recursion, so that there is no circle.
    """

    def __init__(self, peers: Sequence[Peer], dropped: Callable[[str], None]) -> None:
        self._peers = tuple(peers)
        self._dropped = dropped

    def of_key(self, key: str, source: IPAddress) -> Peer | None:
        """Who signed a question: the key is known by the address as well, for a signed question
        that was overheard can be sent again (RFC 8945 section 10)."""
        return next(
            (peer for peer in self._peers if peer.key.name == key and peer.found.address == source),
            None,
        )

    async def asked(self, asker: Peer, zone: Labels, name: Labels, rdtype: str) -> Reply | None:
        """What they say of a name in ``zone``, which is ours, or in one of theirs.

        None: nobody else is to be asked.
        """
        others = [
            peer
            for peer in self._peers
            if peer is not asker and (peer.found.inside or asker.found.inside)
        ]
        questions: Mapping[Peer, Labels] = {
            peer: moved for peer in others if (moved := _moved(name, zone, peer.zone)) is not None
        }
        replies = await asyncio.gather(
            *(self._asked(peer, moved, rdtype) for peer, moved in questions.items())
        )
        answers: dict[Record, None] = {}
        additional: dict[Record, None] = {}
        for peer, reply in zip(questions, replies, strict=True):
            if reply is None:
                continue
            for record in reply.answers[:MAX_INSTANCES]:
                if (told := _told(record, peer.zone, zone, name)) is not None:
                    answers[told] = None
            additional |= dict.fromkeys(
                record
                for record in reply.additional
                if not isinstance(record.content, Pointer)
                and _speaks_of(record.owner, peer.zone, zone)
            )
        return Reply(Code.NOERROR, tuple(answers), (), tuple(additional)) if questions else None

    async def _asked(self, peer: Peer, name: Labels, rdtype: str) -> Reply | None:
        inside = peer.found.inside
        seconds = HOST_SECONDS if inside else GATEWAY_SECONDS
        try:
            return await peer.asked(name, rdtype, recursion=not inside, seconds=seconds)
        except PeerUnusable as error:
            self._dropped(str(error))
            return None


def _moved(name: Labels, ours: Labels, theirs: Labels) -> Labels | None:
    """A name of our zone as it is in theirs; one that is in theirs stays.  None: in neither."""
    for zone in (theirs, ours):
        if _within(name, zone) and len(name) > len(zone):
            return (*name[: len(name) - len(zone)], *theirs)
    return None


def _told(record: Record, theirs: Labels, ours: Labels, name: Labels) -> Record | None:
    """Their record as our answer: types are ours, instances stay theirs.  None: not to this
    question, or about what is in our own zone, of which only we speak."""
    content = record.content
    if isinstance(content, Pointer):
        target = content.target
        if len(target) == len(theirs) + 2 and _within(target, theirs):
            return Record(name, record.ttl, Pointer((*target[:2], *ours)))
        told = Record(name, record.ttl, content)
        return told if _speaks_of(target, theirs, ours) else None
    asked = _lower(record.owner) == _lower(name)
    return record if asked and _speaks_of(name, theirs, ours) else None


def _speaks_of(name: Labels, theirs: Labels, ours: Labels) -> bool:
    """Of what is in our zone only we speak, and who has a zone below it of what is in that."""
    below = len(theirs) > len(ours) and _within(name, theirs)
    return below or not _within(name, ours)


def _within(name: Labels, zone: Labels) -> bool:
    return len(name) >= len(zone) and _lower(name[len(name) - len(zone) :]) == _lower(zone)


def _lower(labels: Labels) -> Labels:
    return tuple(label.lower() for label in labels)
