"""What each server is told, octet by octet.  A case's docstring says what it asks."""

from __future__ import annotations

import time
from collections.abc import Callable

from tests.oegw.socks5.clients.bed import (
    BOB,
    ECHO,
    LEAVING,
    NAMES,
    NOBODY,
    ONLY_4,
    OPEN_PORT,
    PASSWORD,
    PASSWORD_PORT,
    SERVER,
    USER,
)  # fmt: skip
from tests.oegw.socks5.differences.talk import (
    NEIGHBOUR,
    SILENCE,
    STRANGER,
    Datagrams,
    Talk,
    at,
    request,
)  # fmt: skip

CONNECT, BIND, UDP = 1, 2, 3
UNREACHABLE = {"4": "10.66.0.1", "6": "fd00:66::1"}  # an unreachable route of the server's
NOWHERE = {"4": "10.99.0.1", "6": "fd00:99::1"}  # a route that says that there is none
FAR = "10.88.0.1"  # behind Bob's host, with one hop too few to get there

CASES: dict[str, Callable[[Talk], None]] = {}


def case(work: Callable[[Talk], None]) -> Callable[[Talk], None]:
    CASES[work.__name__.replace("_", "-")] = work
    return work


def account(user: str, password: str, version: int = 1) -> bytes:
    name, word = user.encode(), password.encode()
    return bytes([version, len(name)]) + name + bytes([len(word)]) + word


# ------------------------------------------------------------------------ greeting


@case
def greeting_none(talk: Talk) -> None:
    """Only "no authentication" is offered."""
    talk.begin()
    talk.method()


@case
def greeting_both(talk: Talk) -> None:
    """Both methods are offered to a server that wants none."""
    talk.begin(greeting=b"\5\2\0\2")
    talk.method()


@case
def greeting_password_first(talk: Talk) -> None:
    """The same, the password first."""
    talk.begin(greeting=b"\5\2\2\0")
    talk.method()


@case
def greeting_password_only(talk: Talk) -> None:
    """Only a password is offered to a server that wants none."""
    talk.begin(greeting=b"\5\1\2")
    talk.method()
    talk.over()


@case
def greeting_gssapi_only(talk: Talk) -> None:
    """Only GSSAPI is offered."""
    talk.begin(greeting=b"\5\1\1")
    talk.method()
    talk.over()


@case
def greeting_private_method(talk: Talk) -> None:
    """Only a private method is offered."""
    talk.begin(greeting=b"\5\1\x80")
    talk.method()
    talk.over()


@case
def greeting_no_method(talk: Talk) -> None:
    """No method at all."""
    talk.begin(greeting=b"\5\0")
    talk.method()
    talk.over()


@case
def greeting_255_methods(talk: Talk) -> None:
    """255 methods, the last of which will do."""
    talk.begin(greeting=b"\5\xff" + bytes(range(3, 255)) + b"\x80\x80\0")
    talk.method()


@case
def greeting_octet_by_octet(talk: Talk) -> None:
    """Greeting and request, one octet in each segment."""
    talk.begin(greeting=b"")
    talk.send_slowly(b"\5\1\0")
    talk.method()
    talk.send_slowly(request(CONNECT, BOB["4"], ECHO))
    talk.reply()
    talk.bobs_line()


@case
def all_at_once(talk: Talk) -> None:
    """Greeting, request and what is for the destination, in one segment."""
    talk.begin(greeting=b"\5\1\0" + request(CONNECT, BOB["4"], ECHO) + b"over")
    talk.method()
    talk.reply()
    talk.bobs_line()
    talk.text(b"over")


@case
def version_4(talk: Talk) -> None:
    """SOCKS 4: a CONNECT."""
    talk.begin(greeting=b"\4\1" + ECHO.to_bytes(2, "big") + bytes([10, 2, 0, 2, 0]))
    talk.answer_of_version_4()


@case
def http(talk: Talk) -> None:
    """A request of HTTP."""
    talk.begin(greeting=b"GET / HTTP/1.0\r\n\r\n")
    talk.over()


# ------------------------------------------------------------------- authentication


@case
def password_wanted_none_offered(talk: Talk) -> None:
    """No authentication is offered to a server that wants a password."""
    talk.begin(port=PASSWORD_PORT)
    talk.method()
    talk.over()


@case
def password_right(talk: Talk) -> None:
    """The right password, and a CONNECT."""
    talk.begin(port=PASSWORD_PORT, greeting=b"\5\1\2")
    talk.method()
    talk.send(account(USER, PASSWORD))
    talk.account_answer()
    talk.send(request(CONNECT, BOB["4"], ECHO))
    talk.reply()


@case
def password_wrong(talk: Talk) -> None:
    """A wrong password."""
    talk.begin(port=PASSWORD_PORT, greeting=b"\5\1\2")
    talk.method()
    talk.send(account(USER, "wrong"))
    talk.account_answer()
    talk.over()


@case
def password_of_nobody(talk: Talk) -> None:
    """An unknown user."""
    talk.begin(port=PASSWORD_PORT, greeting=b"\5\1\2")
    talk.method()
    talk.send(account("nobody-here", PASSWORD))
    talk.account_answer()
    talk.over()


@case
def password_with_version_5(talk: Talk) -> None:
    """The account with 5 in place of the 1 of RFC 1929."""
    talk.begin(port=PASSWORD_PORT, greeting=b"\5\1\2")
    talk.method()
    talk.send(account(USER, PASSWORD, version=5))
    talk.account_answer()
    talk.over()


@case
def password_of_no_octets(talk: Talk) -> None:
    """An empty user name and an empty password."""
    talk.begin(port=PASSWORD_PORT, greeting=b"\5\1\2")
    talk.method()
    talk.send(account("", ""))
    talk.account_answer()
    talk.over()


# ------------------------------------------------------------------------- CONNECT


def _connects(via: str, host: str) -> Callable[[Talk], None]:
    def work(talk: Talk) -> None:
        talk.greeted(via)
        talk.send(request(CONNECT, host, ECHO))
        talk.reply()
        talk.bobs_line()
        talk.send(b"over")
        talk.text(b"over")
        talk.end()
        talk.over()

    return work


for _via in "46":
    for _towards in "46":
        _work = _connects(_via, BOB[_towards])
        _work.__doc__ = f"IPv{_via} client, IPv{_towards} address; its direction is ended first."
        CASES[f"connect-{_via}{_towards}"] = _work
        _work = _connects(_via, NAMES[_towards])
        _work.__doc__ = f"IPv{_via} client, a name with an IPv{_towards} address."
        CASES[f"connect-{_via}-name-{_towards}"] = _work


def _fails(
    host: str, port: int, what: str, command: int = CONNECT, via: str = "4"
) -> Callable[[Talk], None]:
    def work(talk: Talk) -> None:
        talk.greeted(via)
        talk.send(request(command, host, port))
        talk.reply()

    work.__doc__ = what
    return work


for _family in "46":
    CASES |= {
        f"connect-refused-{_family}": _fails(
            BOB[_family], NOBODY, f"IPv{_family}: nobody listens."
        ),
        f"connect-host-unreachable-{_family}": _fails(
            UNREACHABLE[_family], ECHO, f"IPv{_family}: a route that says unreachable."
        ),
        f"connect-network-unreachable-{_family}": _fails(
            NOWHERE[_family], ECHO, f"IPv{_family}: no route."
        ),
    }
CASES |= {
    "connect-refused-66": _fails(BOB["6"], NOBODY, "IPv6 client: nobody listens.", via="6"),
    "connect-too-far": _fails(FAR, ECHO, "Farther away than the packets may go."),
    "connect-unknown-name": _fails("unknown.test", ECHO, "A name that nobody knows."),
    "connect-port-0": _fails(BOB["4"], 0, "Port 0."),
    "connect-any": _fails("0.0.0.0", ECHO, "The unspecified address."),
    "connect-loopback": _fails("127.0.0.1", OPEN_PORT, "The server's own loopback address."),
    "connect-loopback-6": _fails("::1", OPEN_PORT, "The same, IPv6."),
    "connect-loopback-name": _fails("localhost", OPEN_PORT, "The same, by name."),
    "connect-mapped": _fails("::ffff:127.0.0.1", OPEN_PORT, "The same, as a mapped address."),
    "connect-multicast": _fails("224.0.0.1", ECHO, "A multicast address."),
    "command-4": _fails(BOB["4"], ECHO, "A command that nobody has.", 4),
    "command-0": _fails(BOB["4"], ECHO, "Command 0.", 0),
    "command-resolve": _fails(NAMES["4"], 0, "Tor's RESOLVE.", 0xF0),
    "command-associate": _fails(BOB["6"], 0, "ADDRESS ASSOCIATE.", 8),
    "command-12": _fails(BOB["4"], ECHO, "The bit of ADDRESS ASSOCIATE without a command.", 12),
}


@case
def connect_own_address(talk: Talk) -> None:
    """The server's own address towards Alice, where it listens itself."""
    talk.greeted()
    talk.send(request(CONNECT, SERVER["4"], OPEN_PORT))
    talk.reply()


@case
def connect_and_associate(talk: Talk) -> None:
    """CONNECT + ADDRESS ASSOCIATE."""
    talk.greeted()
    talk.send(request(9, BOB["6"], ECHO))
    talk.reply()
    talk.bobs_line()


@case
def connect_by_unknown_id(talk: Talk) -> None:
    """CONNECT by an ADDRESS ID that nobody was given."""
    talk.greeted()
    talk.send(b"\5\1\0" + b"\x08\0\1\2\3" + ECHO.to_bytes(2, "big"))
    talk.reply()


@case
def connect_flag_10(talk: Talk) -> None:
    """FLAG 0x10 from an IPv4 client to an IPv6 address: the family of the destination."""
    talk.greeted()
    talk.send(request(CONNECT, BOB["6"], ECHO, flag=0x10))
    talk.reply()
    talk.bobs_line()


@case
def connect_flag_unknown(talk: Talk) -> None:
    """FLAG 0xEA: bits that nobody has defined."""
    talk.greeted()
    talk.send(request(CONNECT, BOB["4"], ECHO, flag=0xEA))
    talk.reply()
    talk.bobs_line()


@case
def connect_type_2(talk: Talk) -> None:
    """Address type 2."""
    talk.greeted()
    talk.send(b"\5\1\0\2" + bytes(6))
    talk.reply()


@case
def connect_empty_name(talk: Talk) -> None:
    """A name of no octets."""
    talk.greeted()
    talk.send(b"\5\1\0\3\0" + ECHO.to_bytes(2, "big"))
    talk.reply()


@case
def connect_name_with_nul(talk: Talk) -> None:
    """A name with a NUL behind a good one."""
    talk.greeted()
    talk.send(request(CONNECT, f"{NAMES['4']}\0.evil", ECHO))
    talk.reply()


@case
def connect_name_not_utf8(talk: Talk) -> None:
    """A name of octets that are no text."""
    talk.greeted()
    talk.send(b"\5\1\0\3\4\xff\xfe\xfd\xfc" + ECHO.to_bytes(2, "big"))
    talk.reply()


@case
def connect_name_with_dot(talk: Talk) -> None:
    """A name with a dot at its end."""
    talk.greeted()
    talk.send(request(CONNECT, f"{NAMES['4']}.", ECHO))
    talk.reply()


@case
def connect_name_is_address(talk: Talk) -> None:
    """An IPv4 address written as a name."""
    talk.greeted()
    literal = BOB["4"].encode()
    talk.send(b"\5\1\0\3" + bytes([len(literal)]) + literal + ECHO.to_bytes(2, "big"))
    talk.reply()
    talk.bobs_line()


@case
def connect_name_is_address_6(talk: Talk) -> None:
    """An IPv6 address written as a name."""
    talk.greeted()
    literal = BOB["6"].encode()
    talk.send(b"\5\1\0\3" + bytes([len(literal)]) + literal + ECHO.to_bytes(2, "big"))
    talk.reply()
    talk.bobs_line()


@case
def connect_name_half_silent(talk: Talk) -> None:
    """A name with an IPv6 address that is silent, and an IPv4 address that answers."""
    talk.greeted()
    talk.send(request(CONNECT, "half.test", ECHO))
    talk.reply()
    talk.bobs_line()


@case
def connect_name_half_refused(talk: Talk) -> None:
    """A name with addresses of both families; the port is open at the IPv4 one only."""
    talk.greeted()
    talk.send(request(CONNECT, "both.test", ONLY_4))
    talk.reply()
    talk.bobs_line()


@case
def connect_name_of_255_octets(talk: Talk) -> None:
    """A name of 255 octets, with labels longer than the DNS has them."""
    talk.greeted()
    talk.send(b"\5\1\0\3\xff" + b"a" * 255 + ECHO.to_bytes(2, "big"))
    talk.reply()


@case
def connect_and_leave(talk: Talk) -> None:
    """The client ends its direction right behind the request, and what is for the destination."""
    talk.greeted()
    talk.send(request(CONNECT, BOB["4"], ECHO) + b"over")
    talk.end()
    talk.reply()
    talk.bobs_line()
    talk.text(b"over")
    talk.over()


@case
def request_version_4(talk: Talk) -> None:
    """A request with version 4 behind a greeting with 5."""
    talk.greeted()
    talk.send(b"\4" + request(CONNECT, BOB["4"], ECHO)[1:])
    talk.reply()


# ---------------------------------------------------------------------------- BIND


def _binds(via: str, towards: str) -> Callable[[Talk], None]:
    def work(talk: Talk) -> None:
        talk.greeted(via)
        talk.send(request(BIND, BOB[towards]))
        _, port = talk.reply()
        peer = talk.bob_comes((LEAVING[towards], port))
        talk.reply()
        assert peer is not None
        peer.sendall(b"from bob")
        talk.text(b"from bob")
        talk.send(b"from alice")
        talk.peer_hears(peer, b"from alice")

    work.__doc__ = f"IPv{via} client, a peer with an IPv{towards} address, which comes."
    return work


CASES |= {f"bind-{via}{towards}": _binds(via, towards) for via in "46" for towards in "46"}


@case
def bind_any(talk: Talk) -> None:
    """Whoever comes is welcome: 0.0.0.0."""
    talk.greeted()
    talk.send(request(BIND, "0.0.0.0"))
    _, port = talk.reply()
    talk.bob_comes((LEAVING["4"], port))
    talk.reply()


@case
def bind_and_a_stranger(talk: Talk) -> None:
    """Somebody else than the named peer comes."""
    talk.greeted()
    talk.send(request(BIND, BOB["4"]))
    _, port = talk.reply()
    stranger = talk.bob_comes((LEAVING["4"], port), source=STRANGER)
    if stranger is not None:
        stranger.sendall(b"from a stranger")
        talk.peer_hears(stranger, b"")
    talk.reply()


# ----------------------------------------------------------------------------- UDP


def _datagrams(via: str, host: str, declared: str) -> Callable[[Talk], None]:
    def work(talk: Talk) -> None:
        made = talk.associated(declared, 0, via)
        made.send(host, b"over")
        made.hear()

    return work


for _via in "46":
    for _towards in "46":
        _work = _datagrams(_via, BOB[_towards], "0.0.0.0" if _via == "4" else "::")
        _work.__doc__ = f"IPv{_via} client that declares nothing, to an IPv{_towards} address."
        CASES[f"udp-{_via}{_towards}"] = _work
    _work = _datagrams("4", NAMES[_via], "0.0.0.0")
    _work.__doc__ = f"A datagram to a name with an IPv{_via} address."
    CASES[f"udp-name-{_via}"] = _work
_work = _datagrams("6", BOB["6"], "0.0.0.0")
_work.__doc__ = "IPv6 client that declares 0.0.0.0, port 0."
CASES["udp-6-declares-any4"] = _work
_work = _datagrams("4", BOB["4"], "::")
_work.__doc__ = "IPv4 client that declares ::, port 0."
CASES["udp-4-declares-any6"] = _work


def _told_twice(talk: Talk, made: Datagrams) -> None:
    made.send(BOB["4"], b"over")
    made.hear()


@case
def udp_declared_port(talk: Talk) -> None:
    """The client declares its port, by 0.0.0.0."""
    _told_twice(talk, talk.associated("0.0.0.0", -1))


@case
def udp_flag_4(talk: Talk) -> None:
    """The same with FLAG 0x04, as dante-client of old sends it."""
    _told_twice(talk, talk.associated("0.0.0.0", -1, flag=0x04))


@case
def udp_declares_the_destination(talk: Talk) -> None:
    """The client declares where it will send to, in place of itself."""
    _told_twice(talk, talk.associated(BOB["4"], ECHO))


@case
def udp_wrong_port(talk: Talk) -> None:
    """A datagram from another port than the declared one."""
    made = talk.associated("0.0.0.0", -1)
    other = talk.datagrams()
    other.relay = made.relay
    other.send(BOB["4"], b"over")
    other.hear()


@case
def udp_second_port(talk: Talk) -> None:
    """Nothing declared: after the first datagram one from another port."""
    made = talk.associated("0.0.0.0", 0)
    _told_twice(talk, made)
    other = talk.datagrams()
    other.relay = made.relay
    other.send(BOB["4"], b"other")
    other.hear()


@case
def udp_wrong_address(talk: Talk) -> None:
    """A datagram from another host than the client's."""
    made = talk.associated("0.0.0.0", 0)
    other = talk.datagrams(source=NEIGHBOUR)
    other.relay = made.relay
    other.send(BOB["4"], b"over")
    other.hear()


@case
def udp_fragment(talk: Talk) -> None:
    """FRAG 1; then a whole one."""
    made = talk.associated("0.0.0.0", 0)
    made.send(BOB["4"], b"piece", fragment=1)
    made.send(BOB["4"], b"whole")
    made.hear()


@case
def udp_reserved(talk: Talk) -> None:
    """The reserved octets are not 0."""
    made = talk.associated("0.0.0.0", 0)
    made.send(BOB["4"], b"over", reserved=0x0102)
    made.hear()


@case
def udp_empty(talk: Talk) -> None:
    """A datagram without payload: Bob's answer has none but his line."""
    made = talk.associated("0.0.0.0", 0)
    made.send(BOB["4"], b"")
    made.hear()


@case
def udp_large(talk: Talk) -> None:
    """A datagram of 20,000 octets."""
    made = talk.associated("0.0.0.0", 0)
    made.send(BOB["4"], b"x" * 20000)
    made.hear()


@case
def udp_to_nobody(talk: Talk) -> None:
    """A datagram to a port where nobody listens, which ICMP says; then one to Bob's."""
    made = talk.associated("0.0.0.0", 0)
    made.send(BOB["4"], b"first", port=NOBODY)
    time.sleep(SILENCE / 20)
    made.send(BOB["4"], b"second")
    made.hear()


@case
def udp_garbage(talk: Talk) -> None:
    """Three octets, then a header without an end, then one of an unknown type; then a good one."""
    made = talk.associated("0.0.0.0", 0)
    for octets in bytes(3), b"\0\0\0\4\1\2", b"\0\0\0\7" + bytes(20):
        made.send_octets(octets)
    made.send(BOB["4"], b"good")
    made.hear()


@case
def udp_unknown_name(talk: Talk) -> None:
    """A datagram to a name that nobody knows; then one to Bob."""
    made = talk.associated("0.0.0.0", 0)
    made.send("unknown.test", b"first")
    made.send(BOB["4"], b"second")
    made.hear()


@case
def udp_two_destinations(talk: Talk) -> None:
    """Both of Bob's addresses by one association."""
    made = talk.associated("0.0.0.0", 0)
    for family in "46":
        made.send(BOB[family], b"over")
        made.hear()


@case
def udp_to_loopback(talk: Talk) -> None:
    """A datagram to the server's loopback address; then one to Bob."""
    made = talk.associated("0.0.0.0", 0)
    made.send("127.0.0.1", b"over", port=9)
    made.send(BOB["4"], b"second")
    made.hear()


@case
def udp_from_a_stranger(talk: Talk) -> None:
    """Somebody whom the client has not sent to sends to the port that Bob knows."""
    made = talk.associated("0.0.0.0", 0)
    bob, stranger = talk.bobs_datagrams(BOB["4"]), talk.bobs_datagrams(STRANGER)
    made.send(BOB["4"], b"first", port=bob.getsockname()[1])
    _, known = bob.recvfrom(100)
    stranger.sendto(b"unasked", known)
    bob.sendto(b"asked", known)
    made.hear()
    made.hear()


@case
def udp_from_another_port(talk: Talk) -> None:
    """The same from another port of Bob's."""
    made = talk.associated("0.0.0.0", 0)
    bob, other = talk.bobs_datagrams(BOB["4"]), talk.bobs_datagrams(BOB["4"])
    made.send(BOB["4"], b"first", port=bob.getsockname()[1])
    _, known = bob.recvfrom(100)
    other.sendto(b"unasked", known)
    bob.sendto(b"asked", known)
    made.hear()
    made.hear()


@case
def udp_after_the_end(talk: Talk) -> None:
    """The TCP connection has ended: so has its association."""
    made = talk.associated("0.0.0.0", 0)
    _told_twice(talk, made)
    talk.hang_up()
    time.sleep(SILENCE / 4)
    _told_twice(talk, made)


@case
def udp_control_channel(talk: Talk) -> None:
    """INTERFACE DATA on the TCP connection of an association."""
    talk.associated("0.0.0.0", 0)
    talk.send(b"\0\1\0" + at(BOB["6"], ECHO))
    talk.reply()


@case
def udp_and_associate(talk: Talk) -> None:
    """UDP ASSOCIATE + ADDRESS ASSOCIATE."""
    talk.greeted()
    talk.send(request(11, BOB["6"], 0))
    talk.reply()


@case
def id_instead_of_an_address(talk: Talk) -> None:
    """ADDRESS ASSOCIATE for an IPv6 address, then CONNECT by what it gave, on one connection."""
    talk.greeted()
    talk.send(request(8, BOB["6"], 0))
    host, _ = talk.reply()
    if host.startswith("an ID "):
        realid = bytes.fromhex(host.removeprefix("an ID "))
        talk.send(b"\5\1\0\x08" + realid + ECHO.to_bytes(2, "big"))
    talk.reply()
    talk.bobs_line()
