"""The commands of `finding`, carried out by calls that wait."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any, TypeVar

from oegw.moniker import tcpmux
from oegw.moniker.library.errors import (
    AnswerUnusable,
    HostUnreachable,
    ServiceUnknown,
    TransportUnavailable,
)
from oegw.moniker.library.finding import (
    Ask,
    Command,
    FindKey,
    LookUpHost,
    Open,
    OpenByTcpmux,
    Place,
    Steps,
)
from oegw.moniker.library.holding import opened
from oegw.moniker.names import MonikerError
from oegw.moniker.transports import TCP
from oegw.moniker.wire import MAX_LINE_OCTETS, Code, decoded
from oegw.sst.asking.option import SstUnavailable, enable

_Outcome = TypeVar("_Outcome")

KeyOf = Callable[[str, Any, float], bytes | None]


def run(steps: Steps[_Outcome], key_of: KeyOf) -> _Outcome:
    """What the steps come to.  ``key_of``: `HostKeys.find`."""
    try:
        command = next(steps)
        while True:
            try:
                outcome = _done(command, key_of)
            except (OSError, MonikerError) as error:
                command = steps.throw(error)
            else:
                command = steps.send(outcome)
    except StopIteration as end:
        found: _Outcome = end.value
        return found


def _done(command: Command, key_of: KeyOf) -> Any:
    match command:
        case LookUpHost(host):
            return places_of(host, _addresses(host))
        case FindKey(host, address, seconds):
            return key_of(host, address, seconds)
        case Ask():
            return _answer(command)
        case Open(place, port, _, _, seconds):
            sock = prepared(command)
            return _connected(sock, place, port, seconds)
        case OpenByTcpmux():
            return _by_tcpmux(command)


def _addresses(host: str) -> list[Any]:
    try:
        return socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise no_address(host, error) from None


def _answer(ask: Ask) -> str:
    until = time.monotonic() + ask.seconds
    handshake = ask.seconds if ask.handshake is None else min(ask.seconds, ask.handshake)
    with _connected(opened(TCP, ask.place.family), ask.place, ask.port, handshake) as sock:
        sock.settimeout(_left(until))
        sock.sendall(ask.line.encode("utf-8") + b"\r\n")
        received = bytearray()
        while not complete(received):
            sock.settimeout(_left(until))
            octets = sock.recv(MAX_LINE_OCTETS)
            if not octets:
                break
            received += octets
    return line_of(received)


def _by_tcpmux(command: OpenByTcpmux) -> socket.socket:
    until = time.monotonic() + command.seconds
    sock = opened(TCP, command.place.family)
    sock = _connected(sock, command.place, command.port, command.seconds)
    try:
        sock.settimeout(_left(until))
        sock.sendall(tcpmux.request_text(tcpmux.MuxRequest(command.name)).encode("utf-8"))
        received = bytearray()
        while not complete(received):
            sock.settimeout(_left(until))
            octets = sock.recv(1)  # what follows the line is the service's
            if not octets:
                break
            received += octets
        accepted_by(command, received)
        sock.settimeout(None)
    except BaseException:
        sock.close()
        raise
    return sock


def _connected(sock: socket.socket, place: Place, port: int, seconds: float) -> socket.socket:
    try:
        sock.settimeout(seconds)
        sock.connect(address_of(place, port))
        sock.settimeout(None)
    except BaseException:
        sock.close()
        raise
    return sock


def _left(until: float) -> float:
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError("timed out")
    return left


# --------------------------------------------------------- shared with those of asyncio


def places_of(host: str, found: list[Any]) -> list[Place]:
    """The places in what getaddrinfo gives, each once and in its order.  Raises HostUnreachable."""
    places: dict[Place, None] = {}
    for family, _, _, _, address in found:
        if family in (socket.AF_INET, socket.AF_INET6):
            scope = address[3] if family == socket.AF_INET6 else 0
            places[Place(ip_address(address[0].partition("%")[0]), scope)] = None
    if not places:
        raise HostUnreachable(f"{host}: has no address")
    return list(places)


def no_address(host: str, error: Exception) -> HostUnreachable:
    why = error.strerror if isinstance(error, OSError) else "it is no name of a host"
    return HostUnreachable(f"{host}: has no address that can be found: {why}")


def address_of(place: Place, port: int) -> tuple[Any, ...]:
    if place.address.version == 4:
        return str(place.address), port
    return str(place.address), port, 0, place.scope


def prepared(command: Open) -> socket.socket:
    """A socket for it, not connected.  Raises TransportUnavailable, SstUnavailable."""
    sock = opened(command.transport, command.place.family)
    try:
        if command.sst is not False:
            enable(sock)
    except SstUnavailable as error:
        if command.sst:
            sock.close()
            raise TransportUnavailable(error.errno, str(error)) from None
    except BaseException:
        sock.close()
        raise
    return sock


def complete(received: bytearray) -> bool:
    """A line, or more than one may have."""
    return b"\n" in received or len(received) > MAX_LINE_OCTETS


def line_of(received: bytearray) -> str:
    """Raises AnswerUnusable, MalformedMessage."""
    if not received:
        raise AnswerUnusable("the daemon gave no answer")
    return decoded(bytes(received.partition(b"\n")[0]).removesuffix(b"\r"))


def accepted_by(command: OpenByTcpmux, received: bytearray) -> None:
    """Raises ServiceUnknown if the server of RFC 1078 said no."""
    reply = tcpmux.parse_reply(line_of(received))
    if not reply.accepted:
        raise ServiceUnknown(Code.UNKNOWN, f"{command.name}: {reply.text or 'not available'}")
