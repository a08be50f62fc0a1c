"""The messages of the lease protocol: what a host asks of its gateway, and the reverse.

    host -> gateway                          gateway -> host
    OpenPort    a lease, with a tag          Opened     with the tag: port, seconds
                                             NotOpened  with the tag: code, text
    EndPort     the service has ended
    Told        with a tag: an answer        Question   with a tag: a client's question (MK-14)
    Alive       every few seconds            Alive      as an answer to one

Each is a JSON object, with ``is`` for its kind.  The tag is the asking end's own number.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from oegw.moniker.firewall.book import plain
from oegw.moniker.firewall.handshake import LeaseProtocolError
from oegw.moniker.interface import IPAddress, Lease
from oegw.moniker.names import SYSTEM, InvalidName, canonical
from oegw.moniker.wire import MAX_LINE_OCTETS

# Our choices.
MAX_TAG = 1 << 53  # what JSON's numbers carry without loss
MAX_SECONDS = 86400
MAX_WORDS = 200


@dataclass(frozen=True, slots=True)
class OpenPort:
    tag: int
    lease: Lease


@dataclass(frozen=True, slots=True)
class EndPort:
    """``host`` None: the port of all addresses of the host that says it."""

    host: IPAddress | None
    transport: str
    port: int


@dataclass(frozen=True, slots=True)
class Opened:
    tag: int
    port: int
    seconds: int


@dataclass(frozen=True, slots=True)
class NotOpened:
    """``code``: one of `wire.Code`'s values."""

    tag: int
    code: str
    text: str


@dataclass(frozen=True, slots=True)
class Question:
    """``line``: as it would come over TCP.  ``host``: the address of the host that the service is
    to be reached at.  ``encrypted``: so it came to the gateway."""

    tag: int
    client: IPAddress
    host: IPAddress
    line: str
    encrypted: bool = False


@dataclass(frozen=True, slots=True)
class Told:
    tag: int
    line: str


@dataclass(frozen=True, slots=True)
class Alive:
    """Nothing new."""


Message = OpenPort | EndPort | Opened | NotOpened | Question | Told | Alive


def serialize(message: Message) -> bytes:
    """`parse` is its reverse."""
    match message:
        case OpenPort(tag, lease):
            fields: dict[str, Any] = {
                "is": "open",
                "tag": tag,
                "client": str(plain(lease.client)),
                "host": str(plain(lease.host)),
                "transport": lease.transport,
                "port": lease.port,
                "seconds": lease.seconds,
                "service": lease.service,
                "namespace": lease.namespace,
                "encrypted": lease.encrypted,
            }
        case EndPort(ended, transport, port):
            fields = {"is": "end", "transport": transport, "port": port}
            if ended is not None:
                fields["host"] = str(plain(ended))
        case Opened(tag, port, seconds):
            fields = {"is": "opened", "tag": tag, "port": port, "seconds": seconds}
        case NotOpened(tag, code, text):
            text = text[:MAX_WORDS]
            fields = {"is": "refused", "tag": tag, "code": code, "text": text}
        case Question(tag, client, host, line, encrypted):
            fields = {
                "is": "question",
                "tag": tag,
                "client": str(plain(client)),
                "host": str(plain(host)),
                "line": line,
                "encrypted": encrypted,
            }
        case Told(tag, line):
            fields = {"is": "told", "tag": tag, "line": line}
        case Alive():
            fields = {"is": "alive"}
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()


def parse(octets: bytes) -> Message:
    """Raises LeaseProtocolError."""
    try:
        fields = json.loads(octets)
    except (ValueError, RecursionError):
        raise _malformed("a message that is not JSON") from None
    if not isinstance(fields, dict):
        raise _malformed("a message that is no object")
    match fields.get("is"):
        case "open":
            return OpenPort(_tag(fields), _lease(fields))
        case "end":
            host = _address(fields, "host") if "host" in fields else None
            return EndPort(host, _text(fields, "transport", 16), _port(fields))
        case "opened":
            seconds = _number(fields, "seconds", 1, MAX_SECONDS)
            return Opened(_tag(fields), _port(fields), seconds)
        case "refused":
            code, text = _text(fields, "code", 16), _text(fields, "text", MAX_WORDS)
            return NotOpened(_tag(fields), code, text)
        case "question":
            client, asked = _address(fields, "client"), _address(fields, "host")
            line = _text(fields, "line", MAX_LINE_OCTETS)
            return Question(_tag(fields), client, asked, line, _truth(fields, "encrypted"))
        case "told":
            return Told(_tag(fields), _text(fields, "line", MAX_LINE_OCTETS))
        case "alive":
            return Alive()
    raise _malformed("a message of no known kind")


def _lease(fields: dict[str, Any]) -> Lease:
    namespace = _text(fields, "namespace", MAX_LINE_OCTETS)
    try:
        return Lease(
            _address(fields, "client"),
            _address(fields, "host"),
            _text(fields, "transport", 16),
            _port(fields),
            _number(fields, "seconds", 1, MAX_SECONDS),
            canonical(_text(fields, "service", MAX_LINE_OCTETS)),
            canonical(namespace, "namespace") if namespace else SYSTEM,
            _truth(fields, "encrypted"),
        )
    except InvalidName:
        raise _malformed("a name that is none") from None


def _address(fields: dict[str, Any], name: str) -> IPAddress:
    """Without a scope: that would be one of the other end's interfaces."""
    text = _text(fields, name, 45)
    try:
        if "%" in text:
            raise ValueError
        return ip_address(text)
    except ValueError:
        raise _malformed(f"{name}: no address") from None


def _tag(fields: dict[str, Any]) -> int:
    return _number(fields, "tag", 0, MAX_TAG)


def _port(fields: dict[str, Any]) -> int:
    return _number(fields, "port", 1, 65535)


def _number(fields: dict[str, Any], name: str, least: int, most: int) -> int:
    value = fields.get(name)
    if type(value) is not int or not least <= value <= most:
        raise _malformed(f"{name}: no number from {least} to {most}")
    return value


def _text(fields: dict[str, Any], name: str, most: int) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or len(value) > most:
        raise _malformed(f"{name}: no text of at most {most} characters")
    return value


def _truth(fields: dict[str, Any], name: str) -> bool:
    value = fields.get(name, False)
    if not isinstance(value, bool):
        raise _malformed(f"{name}: neither true nor false")
    return value


def _malformed(text: str) -> LeaseProtocolError:
    return LeaseProtocolError("lease_malformed", text)
