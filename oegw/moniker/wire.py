"""The messages between a client and a daemon: one line each, over TCP, UDP or sealed.

    MON/1 Q NONCE TRANSPORT|KIND|* NAMESPACE|- SERVICE VERSIONS|*  [COOKIE] [padding]
    MON/1 + NONCE PORT TRANSPORT VERSION FAMILIES TTL [sst]
    MON/1 - NONCE CODE [TEXT]
    MON/1 ? NONCE COOKIE            ask again with this cookie (UDP only: the source is not proven)
    MON/1 E SEALED                  a question or an answer, encrypted (`sealedquery`)

A line is UTF-8, has single spaces between its fields, and any number of them at its end as padding.
Over TCP it ends with CRLF, and a lone LF is taken for it.  NONCE is 16 to 32 hexadecimal digits of
the client's; an answer carries it (MK-33).  Over UDP no answer is longer than its question (MK-27):
questions are padded with spaces.  Any other TCP line is TCPMUX (`tcpmux`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from oegw.moniker.names import (
    MAX_BOUNDS,
    MAX_NAME_OCTETS,
    MAX_VERSION_OCTETS,
    SYSTEM,
    InvalidName,
    MonikerError,
    ServiceName,
    Version,
    Versions,
    canonical,
)

# Specification (ours).
PROTOCOL = "MON/1"
DEFAULT_PORT = 1  # that of TCPMUX, whose superset this is
MAX_LINE_OCTETS = 1536
MAX_TTL = 86400
NO_NONCE = "0" * 16  # of the answer to what has no nonce that could be read
SYSTEM_FIELD = "-"
ANY_FIELD = "*"

# Our choices.
QUESTION_OCTETS = 256  # a datagram with a question is padded to a multiple of them
MAX_TEXT = 120  # characters of a refusal's text
MAX_COOKIE = 64
assert MAX_LINE_OCTETS > 160 + 2 * MAX_NAME_OCTETS + MAX_BOUNDS * (MAX_VERSION_OCTETS + 3)

_NONCE = re.compile(r"[0-9A-Fa-f]{16,32}", re.ASCII)
_COOKIE = re.compile(r"[0-9A-Za-z_-]{8,64}", re.ASCII)
_TRANSPORT = re.compile(r"[a-z][a-z0-9-]{0,15}", re.ASCII)
_NUMBER = re.compile(r"0|[1-9][0-9]{0,5}", re.ASCII)
_FLAG = re.compile(r"[a-z][a-z0-9=.-]{0,31}", re.ASCII)
_UNPRINTABLE = re.compile(r"[^ -~]+", re.ASCII)
_FAMILIES = ("4", "6", "46")


class Code(Enum):
    """Why a question has no other answer; ``value`` is on the wire."""

    UNKNOWN = "unknown"  # no such service here
    VERSION = "version"  # the service is here, no version that will do
    TRANSPORT = "transport"  # the service is here, not over that transport
    DENIED = "denied"  # policy
    BUSY = "busy"  # too many questions, leases or connections: later
    KEY = "key"  # sealed to a key that the daemon doesn't have
    CLEAR = "clear"  # only encrypted questions are answered
    MALFORMED = "malformed"
    GATEWAY = "gateway"  # the gateway in front did not open the port
    OTHER = "other"  # what a stranger's daemon says that is none of these

    @classmethod
    def of(cls, text: str) -> Code:
        """The code that ``text`` names, OTHER if none has that name."""
        return next((code for code in cls if code.value == text), cls.OTHER)


class MalformedMessage(MonikerError, ValueError):  # noqa: N818  (it names the fact)
    """A line can't be read as a message; the text says why, without the line's own octets.

    ``nonce``: the question's, where that at least could be read.
    """

    def __init__(self, text: str, nonce: str | None = None) -> None:
        super().__init__(text)
        self.nonce = nonce


@dataclass(frozen=True, slots=True)
class Query:
    """``transport``: a name of `transports` (``tcp``, ``udp``, ...), or a kind of them (``stream``,
    ``datagram``), or None for any."""

    nonce: str
    name: ServiceName
    transport: str | None = None
    cookie: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """``families``: ``"4"``, ``"6"`` or ``"46"``, on which the service listens (MK-29).

    ``ttl``: seconds for which the client may use the port without asking again.  ``sst``: the
    service wants its connections with encrypted ports.
    """

    nonce: str
    port: int
    transport: str
    version: Version
    families: str
    ttl: int
    sst: bool = False


@dataclass(frozen=True, slots=True)
class Refusal:
    """``text`` is for people: printable ASCII, at most MAX_TEXT characters once it is sent."""

    nonce: str
    code: Code
    text: str = ""


@dataclass(frozen=True, slots=True)
class Retry:
    nonce: str
    cookie: str


@dataclass(frozen=True, slots=True)
class Sealed:
    """``body``: base64url without padding; `sealedquery` reads it."""

    body: str


Message = Query | Answer | Refusal | Retry | Sealed


def decoded(octets: bytes) -> str:
    """The line that ``octets`` are, with or without CRLF or LF.  Raises MalformedMessage."""
    if octets.endswith(b"\n"):
        octets = octets[:-1].removesuffix(b"\r")
    if len(octets) > MAX_LINE_OCTETS:
        raise MalformedMessage(f"a line of more than {MAX_LINE_OCTETS} octets")
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError:
        raise MalformedMessage("a line that is not UTF-8") from None


def is_ours(line: str) -> bool:
    """Whether a line is one of these messages, readable or not; else it is TCPMUX."""
    return line[:4].upper() == "MON/"


def padded(line: str, octets: int) -> str:
    """``line`` with as many spaces as make it ``octets`` octets; unchanged if it has them."""
    return line + " " * (octets - len(line.encode("utf-8")))


# ------------------------------------------------------------------------- written


def text(message: Message) -> str:
    """The line of ``message``, without CRLF and padding.  `parse` is its reverse."""
    match message:
        case Query(nonce, name, transport, cookie):
            fields = [
                *("Q", nonce, transport or ANY_FIELD),
                *(name.namespace or SYSTEM_FIELD, name.service, str(name.versions)),
                *([cookie] if cookie else []),
            ]
        case Answer():
            fields = [
                *("+", message.nonce, str(message.port), message.transport, str(message.version)),
                *(message.families, str(message.ttl)),
                *(["sst"] if message.sst else []),
            ]
        case Refusal(nonce, code, why):
            why = _UNPRINTABLE.sub("?", why)[:MAX_TEXT].strip()
            fields = ["-", nonce, code.value, *([why] if why else [])]
        case Retry(nonce, cookie):
            fields = ["?", nonce, cookie]
        case Sealed(body):
            fields = ["E", body]
    return " ".join([PROTOCOL, *fields])


# ---------------------------------------------------------------------------- read


def parse(line: str) -> Message:
    """The message of a line without CRLF.  Raises MalformedMessage."""
    protocol, _, rest = line.rstrip(" ").partition(" ")
    if protocol != PROTOCOL:
        raise MalformedMessage(f"a message that is not {PROTOCOL}")
    kind, _, rest = rest.partition(" ")
    match kind:
        case "E":
            return _sealed(rest)
        case "Q" | "+" | "-" | "?":
            pass
        case _:
            raise MalformedMessage("a message of no known kind")
    nonce, _, rest = rest.partition(" ")
    if not _NONCE.fullmatch(nonce):
        raise MalformedMessage("a nonce that is not 16 to 32 hexadecimal digits")
    try:
        match kind:
            case "Q":
                return _query(nonce, rest.split(" "))
            case "+":
                return _answer(nonce, rest.split(" "))
            case "-":
                return _refusal(nonce, rest)
            case _:
                return Retry(nonce, _matching(_COOKIE, rest, "a cookie"))
    except InvalidName as error:
        raise MalformedMessage(_without_the_name(error), nonce) from None
    except MalformedMessage as error:
        raise MalformedMessage(str(error), nonce) from None


def _query(nonce: str, fields: list[str]) -> Query:
    if len(fields) not in (4, 5):
        raise MalformedMessage("a question without its four fields, or with more than a cookie")
    transport, namespace, service, versions = fields[:4]
    name = ServiceName(
        canonical(service),
        SYSTEM if namespace == SYSTEM_FIELD else canonical(namespace, "namespace"),
        Versions.parse(versions),
    )
    return Query(
        nonce,
        name,
        None if transport == ANY_FIELD else _matching(_TRANSPORT, transport, "a transport"),
        _matching(_COOKIE, fields[4], "a cookie") if len(fields) > 4 else None,
    )


def _answer(nonce: str, fields: list[str]) -> Answer:
    if len(fields) < 5 or len(fields) > 9:
        raise MalformedMessage("an answer without its five fields")
    port, transport, version, families, ttl, *flags = fields
    if families not in _FAMILIES:
        raise MalformedMessage("families that are none of 4, 6 and 46")
    for flag in flags:  # those that we don't know are a newer daemon's
        _matching(_FLAG, flag, "a flag")
    return Answer(
        nonce,
        _number(port, 1, 65535, "a port"),
        _matching(_TRANSPORT, transport, "a transport"),
        Version.parse(version),
        families,
        _number(ttl, 0, MAX_TTL, "a lifetime"),
        "sst" in flags,
    )


def _refusal(nonce: str, rest: str) -> Refusal:
    code, _, why = rest.partition(" ")
    _matching(_FLAG, code, "a code")
    return Refusal(nonce, Code.of(code), _UNPRINTABLE.sub("?", why)[:MAX_TEXT].strip())


def _sealed(body: str) -> Sealed:
    if not re.fullmatch(r"[0-9A-Za-z_-]+", body, re.ASCII):
        raise MalformedMessage("a sealed message that is not base64url")
    return Sealed(body)


def _matching(form: re.Pattern[str], field: str, what: str) -> str:
    if not form.fullmatch(field):
        raise MalformedMessage(f"{what} that can't be read")
    return field


def _number(field: str, least: int, most: int, what: str) -> int:
    if not _NUMBER.fullmatch(field) or not least <= int(field) <= most:
        raise MalformedMessage(f"{what} that is not a number from {least} to {most}")
    return int(field)


def _without_the_name(error: InvalidName) -> str:
    """What is wrong, without the stranger's own characters."""
    return f"a {str(error).partition(' ')[0].rstrip(':')} that can't be read"
