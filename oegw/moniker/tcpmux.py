"""The lines of TCPMUX (RFC 1078): the older protocol of port 1, which ours contains (MK-2).

    client: SERVICE CRLF                 server: +[TEXT] CRLF, and the connection is the session
                                         server: -[TEXT] CRLF, and the connection ends
    client: HELP CRLF                    server: the names of its services, one a line

Names are compared without regard to case.  Beyond the RFC a name may be written as elsewhere in
Moniker, `NAMESPACE::SERVICE@VERSIONS`.  inetd writes no CR before its LF, so we don't ask for it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from oegw.moniker.names import InvalidName, ServiceName
from oegw.moniker.wire import MAX_LINE_OCTETS, MAX_TEXT, MalformedMessage

# Specification: RFC 1078.
HELP = "help"
CRLF = "\r\n"


@dataclass(frozen=True, slots=True)
class MuxRequest:
    """``name`` None: HELP, the list of services."""

    name: ServiceName | None


@dataclass(frozen=True, slots=True)
class MuxReply:
    accepted: bool
    text: str = ""


def parse_request(line: str) -> MuxRequest:
    """A client's line, without its end.  Raises MalformedMessage."""
    line = line.strip(" \t")
    if line.casefold() == HELP:
        return MuxRequest(None)
    try:
        return MuxRequest(ServiceName.parse(line))
    except InvalidName:
        raise MalformedMessage("a service name that can't be read") from None


def request_text(request: MuxRequest) -> str:
    """The line of ``request``, with CRLF."""
    return (str(request.name) if request.name is not None else HELP.upper()) + CRLF


def parse_reply(line: str) -> MuxReply:
    """A server's line, without its end.  Raises MalformedMessage."""
    if line[:1] not in ("+", "-") or len(line) > MAX_LINE_OCTETS:
        raise MalformedMessage("neither + nor -: not a TCPMUX server's reply")
    shown = "".join(c if c.isprintable() else "?" for c in line[1 : MAX_TEXT + 1])
    return MuxReply(line[0] == "+", shown.strip())


def reply_text(reply: MuxReply) -> str:
    """The line of ``reply``, with CRLF."""
    shown = "".join(c if " " <= c <= "~" else "?" for c in reply.text[:MAX_TEXT])
    return ("+" if reply.accepted else "-") + shown + CRLF


def help_text(names: Iterable[str]) -> str:
    """The lines of an answer to HELP."""
    return "".join(name + CRLF for name in names)
