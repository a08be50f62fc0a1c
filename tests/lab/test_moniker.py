"""The lab's means for services by name: its own client, and what it claims of captures."""

from __future__ import annotations

import socket
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address
from types import ModuleType, SimpleNamespace

import pytest

from tests.support.lab_commands import LAB

ALICE, BOB, CAROL = (IPv4Address(a) for a in ("192.1.0.65", "192.2.0.66", "192.1.1.67"))
PORT = 23456
SYN, PUSH = 2, 24


@pytest.fixture(scope="module")
def lablib() -> Iterator[ModuleType]:
    sys.path.insert(0, str(LAB.parent))
    try:
        import lablib
        import lablib.askmoniker
        import lablib.monikerfacts

        yield lablib
    finally:
        sys.path.remove(str(LAB.parent))


# ------------------------------------------------------------------------- the client


def _daemon(answer: Callable[[str], str], kind: int) -> Iterator[int]:
    """Answers questions on a port of the loopback interface until the test is over."""
    with socket.socket(socket.AF_INET, kind) as listener:
        listener.bind(("127.0.0.1", 0))
        if kind == socket.SOCK_STREAM:
            listener.listen()

        def run() -> None:
            while True:
                try:
                    if kind == socket.SOCK_STREAM:
                        connection, _ = listener.accept()
                        with connection:
                            line = connection.makefile().readline()
                            connection.sendall(f"{answer(line)}\r\n".encode())
                    else:
                        octets, place = listener.recvfrom(2000)
                        listener.sendto(answer(octets.decode()).encode(), place)
                except OSError:
                    return

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR) if kind == socket.SOCK_STREAM else None


def _order(port: int, by: str) -> dict[str, object]:
    return {"address": "127.0.0.1", "port": port, "by": by, "question": "* - http *"}


def _served(answer: Callable[[str], str], kind: int) -> tuple[Iterator[int], int]:
    daemon = _daemon(answer, kind)
    return daemon, next(daemon)


@pytest.mark.parametrize("by", ["tcp", "udp"])
def test_the_client_reads_an_answer_to_its_own_question(lablib: ModuleType, by: str) -> None:
    def answer(line: str) -> str:
        assert line.split()[3:7] == ["*", "-", "http", "*"]
        return f"MON/1 + {line.split()[2]} {PORT} tcp 2 46 60"

    kind = socket.SOCK_STREAM if by == "tcp" else socket.SOCK_DGRAM
    keep, port = _served(answer, kind)
    seen = lablib.askmoniker.once(_order(port, by))
    assert (seen["code"], seen["port"], seen["version"]) == ("+", PORT, "2")
    del keep


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ("MON/1 + 0123456789abcdef 1024 tcp 1 4 60", "error"),  # another nonce
        ("MON/1 - NONCE unknown no such service", "unknown"),
        ("+Go", "error"),
        ("MON/1 ? NONCE cookie", "error"),  # for ever
        ("MON/1 - NONCE unknown" + " " * 400, "error"),  # longer than the question
    ],
)
def test_what_the_client_makes_of_other_answers(lablib: ModuleType, answer: str, code: str) -> None:
    keep, port = _served(lambda line: answer.replace("NONCE", line.split()[2]), socket.SOCK_DGRAM)
    assert lablib.askmoniker.once(_order(port, "udp"))["code"] == code
    del keep


def test_the_client_repeats_a_question_with_the_cookie(lablib: ModuleType) -> None:
    def answer(line: str) -> str:
        words = line.split()
        if words[-1] == "crumb":
            return f"MON/1 + {words[2]} {PORT} tcp 1 4 60"
        return f"MON/1 ? {words[2]} crumb"

    keep, port = _served(answer, socket.SOCK_DGRAM)
    assert lablib.askmoniker.once(_order(port, "udp"))["port"] == PORT
    del keep


# ----------------------------------------------------------------------- the captures


def _packet(
    lablib: ModuleType, moment: float, ends: tuple[IPv4Address, IPv4Address],
    ports: tuple[int, int], flags: int = PUSH, content: bytes = b"",
) -> object:  # fmt: skip
    tcp = struct.pack("!HHIIBBHHH", *ports, 0, 0, 5 << 4, flags, 0, 0, 0) + content
    head = struct.pack("!BBHHHBBH", 69, 0, 20 + len(tcp), 0, 0, 64, 6, 0)
    frame = bytes(12) + b"\x08\0" + head + ends[0].packed + ends[1].packed + tcp
    padded = frame.ljust(60, b"\0")  # Ethernet's least
    packet = lablib.pcap.Packet(moment, "ipv4", padded)
    return lablib.pcap._ipv4(packet, 14)


def _asked(lablib: ModuleType, *more: tuple[object, ...]) -> SimpleNamespace:
    """Alice asks in some encrypted words, is answered, and connects at the third second."""
    packets = [
        (1.0, (ALICE, BOB), (40000, 1), SYN),
        (1.1, (ALICE, BOB), (40000, 1), PUSH, b"MON/1 E c29tZSB3b3Jkcw\r\n"),
        (1.2, (BOB, ALICE), (1, 40000), PUSH, b"MON/1 E c29tZSBvdGhlcg\r\n"),
        (3.0, (ALICE, BOB), (40001, PORT), SYN),
        (4.9, (CAROL, BOB), (40009, 1), PUSH, b"MON/1 Q 0123 * - starwars *\r\n"),
        (5.0, (BOB, CAROL), (1, 40009), PUSH, b"MON/1 + 0123 23456 tcp 1 4 60\r\n"),
        *more,
    ]
    captured = [_packet(lablib, *each) for each in packets]  # type: ignore[arg-type]
    names = {"alice": ALICE, "bob": BOB, "carol": CAROL}
    return SimpleNamespace(captured={"east": captured}, address=lambda name: names[name])


FACT = {
    "kind": "port-unseen", "link": "east", "source": "alice", "destination": "bob",
    "words": ["starwars"], "control": "carol",
}  # fmt: skip


def test_a_port_that_nobody_saw_before(lablib: ModuleType) -> None:
    assert "port 23456" in lablib.monikerfacts.unseen(_asked(lablib), FACT)


@pytest.mark.parametrize(
    "packet",
    [
        (2.0, (BOB, ALICE), (1, 40000), PUSH, b"MON/1 + 0123 23456 tcp 1 4 60\r\n"),
        (2.0, (ALICE, BOB), (40002, PORT), PUSH),
        (9.0, (BOB, ALICE), (1, 40000), PUSH, b"StarWars"),
    ],
)
def test_a_port_or_a_name_that_was_seen(lablib: ModuleType, packet: tuple[object, ...]) -> None:
    with pytest.raises(lablib.stage.Missed):
        lablib.monikerfacts.unseen(_asked(lablib, packet), FACT)


def test_a_search_that_would_find_nothing_anyway_proves_nothing(lablib: ModuleType) -> None:
    lab = _asked(lablib)
    lab.captured["east"].pop()
    with pytest.raises(lablib.stage.Missed):
        lablib.monikerfacts.unseen(lab, FACT)


def test_questions_and_connections_are_counted(lablib: ModuleType) -> None:
    fact = {k: FACT[k] for k in ("kind", "link", "source", "destination")}
    lab = _asked(lablib)
    counted = lablib.monikerfacts.asked_and_connected
    counted(lab, {**fact, "questions": 1, "sessions": 1})
    for wrong in ({"questions": 2, "sessions": 1}, {"questions": 1, "sessions": 0}):
        with pytest.raises(lablib.stage.Missed):
            counted(lab, {**fact, **wrong})


def test_a_line_in_clear_among_encrypted_ones(lablib: ModuleType) -> None:
    fact = {k: FACT[k] for k in ("kind", "link", "source", "destination")}
    lablib.monikerfacts.sealed_questions(_asked(lablib), fact)
    clear = (2.0, (ALICE, BOB), (40000, 1), PUSH, b"MON/1 Q 0123 * - starwars *\r\n")
    with pytest.raises(lablib.stage.Missed):
        lablib.monikerfacts.sealed_questions(_asked(lablib, clear), fact)
