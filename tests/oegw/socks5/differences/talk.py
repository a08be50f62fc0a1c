"""One conversation with a server, octet by octet, and what is heard in it, in words.

The octets are written here and nowhere else: nothing of the server's own room is used.  Addresses
and ports become names, so that what is heard of one server can be compared with another's.
"""

from __future__ import annotations

import socket
import struct
import time
from contextlib import ExitStack
from ipaddress import ip_address

from tests.oegw.socks5.clients.bed import (
    ALICE,
    BOB,
    ECHO,
    LEAVING,
    NOBODY,
    OPEN_PORT,
    SERVER,
    WEB,
    Bed,
)  # fmt: skip

SILENCE = 2.0  # seconds after which a server has nothing to say: it is on a link of microseconds
STRANGER = "10.9.0.2"  # another address of Bob's host
NEIGHBOUR = "10.1.0.3"  # another address of Alice's host

_NAMED = {
    **{address: f"alice{family}" for family, address in ALICE.items()},
    **{address: f"in{family}" for family, address in SERVER.items()},
    **{address: f"out{family}" for family, address in LEAVING.items()},
    **{address: f"bob{family}" for family, address in BOB.items()},
    STRANGER: "stranger",
    "0.0.0.0": "any4",
    "::": "any6",
}
_PORTS = {0: "0", OPEN_PORT: "1080", ECHO: "echo", WEB: "web", NOBODY: "nobody's"}


class Over(Exception):  # noqa: N818  (it names the fact)
    """The server has ended the conversation, or says nothing any more."""


def at(host: str, port: int = 0) -> bytes:
    """ATYP, address and port: an address of either family, or a name."""
    try:
        address = ip_address(host)
    except ValueError:
        name = host.encode()
        return bytes([3, len(name)]) + name + port.to_bytes(2, "big")
    return bytes([1 if address.version == 4 else 4]) + address.packed + port.to_bytes(2, "big")


def request(command: int, host: str, port: int = 0, flag: int = 0) -> bytes:
    return bytes([5, command, flag]) + at(host, port)


class Talk:
    """``heard``: what was, in order."""

    def __init__(self, bed: Bed) -> None:
        """In a thread on Alice's host."""
        self.bed = bed
        self.heard: list[str] = []
        self._stack = ExitStack()
        self._ports = dict(_PORTS)
        self._stream: socket.socket

    def close(self) -> None:
        self._stack.close()

    # ----------------------------------------------------------------- said

    def begin(self, via: str = "4", port: int = OPEN_PORT, greeting: bytes = b"\5\1\0") -> None:
        try:
            self._stream = self._keep(socket.create_connection((SERVER[via], port), 10))
        except ConnectionRefusedError:
            self.note("no such listener")
            raise Over from None
        self._stream.settimeout(SILENCE)
        self._ports[self._stream.getsockname()[1]] = "client's"
        if greeting:
            self.send(greeting)

    def send(self, octets: bytes) -> None:
        try:
            self._stream.sendall(octets)
        except OSError:
            self._over("ended", b"")

    def send_slowly(self, octets: bytes) -> None:
        """One octet in each segment."""
        self._stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for each in octets:
            self.send(bytes([each]))
            time.sleep(0.02)

    def end(self) -> None:
        """Of our direction only."""
        self._stream.shutdown(socket.SHUT_WR)

    def hang_up(self) -> None:
        self._stream.close()

    # ---------------------------------------------------------------- heard

    def note(self, words: str) -> None:
        self.heard.append(words)

    def method(self) -> None:
        version, method = self._exactly(2)
        self.note(f"method {method:02x}" + ("" if version == 5 else f" version {version}"))

    def greeted(self, via: str = "4") -> None:
        """A conversation up to its request; not noted, for other cases are about that."""
        self.begin(via)
        self._exactly(2)

    def answer_of_version_4(self) -> None:
        octets = self._exactly(2)
        if octets[0] != 0:
            self.note(f"octets {octets.hex()}")
            self.over()
        self._exactly(6)
        self.note(f"SOCKS 4: {'granted' if octets[1] == 0x5A else 'rejected'}")

    def account_answer(self) -> None:
        version, status = self._exactly(2)
        self.note(f"account {'accepted' if status == 0 else 'refused'}, version {version}")

    def reply(self) -> tuple[str, int]:
        """The place in it.  A refusal is the last that is said; then the server ends the
        conversation, or does not."""
        version, code, flag, kind = self._exactly(4)
        host, port, words = self._place(kind)
        more = f", version {version}" if version != 5 else ""
        self.note(f"reply {code:02x} {words}{f', flag {flag:02x}' if flag else ''}{more}")
        if code != 0:
            self.over()
        return host, port

    def text(self, wanted: bytes) -> None:
        """Octets of the destination's."""
        found = self._exactly(len(wanted))
        self.note(f"hears {found.decode().strip()}" if found == wanted else f"hears {found!r}")

    def bobs_line(self) -> None:
        """What Bob's echo says first: the address that he sees."""
        line = b""
        while not line.endswith(b"\n"):
            line += self._exactly(1)
        self.note(f"seen from {self._called(line.decode().strip())}")

    def over(self) -> None:
        """What else comes, as octets, and whether the server ends the conversation."""
        found = b""
        how = "silence"
        try:
            while octets := self._stream.recv(1000):
                found += octets
            how = "ended"
        except TimeoutError:
            pass
        except OSError:
            how = "ended"
        self._over(how, found)

    def _exactly(self, number: int) -> bytes:
        found = b""
        while len(found) < number:
            try:
                octets = self._stream.recv(number - len(found))
            except TimeoutError:
                self._over("silence", found)
            except OSError:
                self._over("ended", found)
            if not octets:
                self._over("ended", found)
            found += octets
        return found

    def _over(self, how: str, found: bytes) -> None:
        if found:
            self.note(f"octets {found.hex()}")
        self.note(how)
        raise Over(how)

    def _place(self, kind: int) -> tuple[str, int, str]:
        match kind:
            case 1 | 4:
                host = str(ip_address(self._exactly(4 if kind == 1 else 16)))
            case 3:
                host = self._exactly(self._exactly(1)[0]).decode(errors="backslashreplace")
            case 8:
                host = "an ID " + self._exactly(4).hex()
            case _:
                self.note(f"type {kind}")
                raise Over
        port = int.from_bytes(self._exactly(2), "big")
        return host, port, f"{self._called(host)} {self._port(port)}"

    def _called(self, host: str) -> str:
        return "an ID" if host.startswith("an ID ") else _NAMED.get(host, host)

    def _port(self, port: int) -> str:
        return self._ports.get(port, "port")

    # ------------------------------------------------------------- datagrams

    def datagrams(self, via: str = "4", source: str = "") -> Datagrams:
        """A UDP socket of Alice's."""
        family = socket.AF_INET if via == "4" else socket.AF_INET6
        sock = self._keep(socket.socket(family, socket.SOCK_DGRAM))
        sock.bind((source or ALICE[via], 0))
        return Datagrams(self, sock)

    def associated(self, host: str, port: int, via: str = "4", flag: int = 0) -> Datagrams:
        """An association for what is declared; its relay is where the datagrams go."""
        self.greeted(via)
        made = self.datagrams(via)
        self.send(request(3, host, made.port if port < 0 else port, flag))
        relay = self.reply()
        made.relay = (SERVER[via], relay[1])
        return made

    def bobs_datagrams(self, address: str) -> socket.socket:
        """A UDP socket on Bob's host."""

        def made() -> socket.socket:
            sock = socket.socket(
                socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM
            )
            sock.bind((address, 0))
            sock.settimeout(SILENCE)
            return sock

        return self._keep(self.bed.at_bob(made))

    # ------------------------------------------------------------------- bob

    def bob_comes(self, place: tuple[str, int], source: str = "") -> socket.socket | None:
        """A connection of Bob's host to where the server listens."""

        def made() -> socket.socket:
            bound = (source, 0) if source else None
            return socket.create_connection(place, SILENCE, bound)

        try:
            peer = self._keep(self.bed.at_bob(made))
        except OSError as error:
            self.note(f"the peer is told {type(error).__name__}")
            return None
        self._ports[peer.getsockname()[1]] = "peer's"
        return peer

    def peer_hears(self, peer: socket.socket, wanted: bytes) -> None:
        peer.settimeout(SILENCE)
        try:
            found = peer.recv(100)
        except TimeoutError:
            self.note("the peer hears nothing")
        except OSError:
            self.note("the peer is cut off")
        else:
            self.note(f"the peer hears {found.decode()}" if found else "the peer is cut off")
            assert not found or found == wanted

    def _keep(self, sock: socket.socket) -> socket.socket:
        return self._stack.enter_context(sock)


class Datagrams:
    """A UDP socket of Alice's and the server's relay."""

    def __init__(self, talk: Talk, sock: socket.socket) -> None:
        self._talk = talk
        self._sock = sock
        self.relay = ("", 0)
        self.port: int = sock.getsockname()[1]

    def send(
        self, host: str, payload: bytes, port: int = ECHO, fragment: int = 0, reserved: int = 0
    ) -> None:
        header = struct.pack("!HB", reserved, fragment)
        self._sock.sendto(header + at(host, port) + payload, self.relay)

    def send_octets(self, octets: bytes) -> None:
        self._sock.sendto(octets, self.relay)

    def hear(self) -> None:
        """One datagram, or none."""
        self._sock.settimeout(SILENCE)
        try:
            octets, _ = self._sock.recvfrom(65535)
        except (TimeoutError, OSError):
            self._talk.note("no datagram")
            return
        kind, body = octets[3], octets[4:]
        if kind == 3:
            host, body = body[1 : 1 + body[0]].decode(), body[1 + body[0] :]
        else:
            size = {1: 4, 4: 16, 8: 4}[kind]
            host, body = body[:size], body[size:]
            host = "an ID " if kind == 8 else str(ip_address(host))
        port, text = int.from_bytes(body[:2], "big"), body[2:].decode()
        seen, _, payload = text.rpartition(" ")
        if len(payload) > 100:
            payload = f"{len(payload)} octets"
        place = f"{self._talk._called(host)} {self._talk._port(port)}"
        self._talk.note(
            f"datagram from {place}, {payload}"
            + (f" seen from {self._talk._called(seen)}" if seen else "")
        )
