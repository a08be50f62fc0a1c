"""The library against hosts that answer badly: an error of its own kind, soon, and nothing more.

The hosts are programs on loopback that say what a list tells them to say.
"""

from __future__ import annotations

import asyncio
import random
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from oegw import moniker
from oegw.moniker import aio
from oegw.moniker.library import errors
from oegw.moniker.library.client import answers
from tests.support.amount import amount

HOST = "127.0.0.1"
NOWHERE = Path("/nonexistent/moniker.sock")
SECONDS = 0.4  # for what never ends

Say = Callable[[str], bytes | None]  # from the question's nonce; None: nothing, for ever


class Host:
    """Answers the questions that come, each with the next of ``says``; the last one stays."""

    def __init__(self, says: Sequence[Say]) -> None:
        self._says = list(says)
        self._listening = socket.create_server((HOST, 0))
        self.port: int = self._listening.getsockname()[1]
        self.questions: list[str] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        held = []
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                break
            held.append(connection)
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()
        for connection in held:
            connection.close()

    def _answer(self, connection: socket.socket) -> None:
        try:
            line = b""
            while not line.endswith(b"\n"):
                line += connection.recv(1)
            self.questions.append(line.decode())
            say = self._says[min(len(self.questions), len(self._says)) - 1]
            words = line.decode().split()
            said = say(words[2] if len(words) > 2 else "")
            if said is not None:
                connection.sendall(said)
                connection.close()
        except (OSError, IndexError):
            pass

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join(5)


@pytest.fixture
def host() -> Iterator[Callable[..., Host]]:
    made: list[Host] = []

    def make(*says: Say) -> Host:
        made.append(Host(says))
        return made[-1]

    yield make
    for each in made:
        each.close()


Ask = Callable[..., Any]


def ask_and_wait(
    host: Host | int, service: str = "starwars", seconds: float = 5.0, **more: Any
) -> Any:
    port = host if isinstance(host, int) else host.port
    return moniker.connect(
        HOST, service, question_port=port, timeout=seconds, daemon=NOWHERE, **more
    )


def ask_asyncio(
    host: Host | int, service: str = "starwars", seconds: float = 5.0, **more: Any
) -> Any:
    port = host if isinstance(host, int) else host.port

    async def body() -> Any:
        return await aio.connect(
            HOST, service, question_port=port, timeout=seconds, daemon=NOWHERE, **more
        )

    return asyncio.run(body())


@pytest.fixture(params=[ask_and_wait, ask_asyncio], ids=["waiting", "asyncio"])
def ask(request: pytest.FixtureRequest) -> Ask:
    """Both kinds of calls; what comes of both can be closed."""
    found: Ask = request.param
    return found


def always(octets: bytes | None) -> Say:
    return lambda nonce: octets


def answer(*fields: object) -> Say:
    return lambda nonce: " ".join(["MON/1 +", nonce, *map(str, fields)]).encode() + b"\r\n"


def closed_port() -> int:
    with socket.create_server((HOST, 0)) as taken:
        return int(taken.getsockname()[1])


UNUSABLE: dict[str, Say] = {
    "nothing": always(b""),
    "an empty line": always(b"\r\n"),
    "another protocol": always(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
    "a greeting": always(b"220 mail.example ESMTP\r\n"),
    "half a line": lambda nonce: f"MON/1 + {nonce} 40".encode(),
    "no nonce": always(b"MON/1 + 40000 tcp 1 46 60\r\n"),
    "another nonce": always(b"MON/1 + 0123456789abcdef 40000 tcp 1 46 60\r\n"),
    "port 0": answer(0, "tcp", 1, 46, 60),
    "port 65536": answer(65536, "tcp", 1, 46, 60),
    "port -1": answer(-1, "tcp", 1, 46, 60),
    "a port in other digits": answer("\u0664\u0660\u0660\u0660", "tcp", 1, 46, 60),
    "no port": answer("ssh", "tcp", 1, 46, 60),
    "a family that is none": answer(40000, "tcp", 1, 5, 60),
    "no version": answer(40000, "tcp", "one", 46, 60),
    "a lifetime of years": answer(40000, "tcp", 1, 46, 10**12),
    "a lifetime below 0": answer(40000, "tcp", 1, 46, -1),
    "an answer with a question in it": lambda nonce: f"MON/1 Q {nonce} tcp - x *\r\n".encode(),
    "a cookie": lambda nonce: f"MON/1 ? {nonce} {'0' * 32}\r\n".encode(),
    "sealed, to a question in clear": always(b"MON/1 E " + b"A" * 300 + b"\r\n"),
    "octets that are no text": always(b"MON/1 + \xff\xfe\r\n"),
    "ten megabytes without an end": always(b"MON/1 + " + b"a" * 10_000_000),
    "another transport": answer(40000, "udp", 1, 46, 60),
    "a transport that nobody knows": answer(40000, "dccp", 1, 46, 60),
    "the other family only": answer(40000, "tcp", 1, 6, 60),
}


@pytest.mark.parametrize("what", UNUSABLE)
def test_what_is_no_answer_is_an_error_of_ours(
    host: Callable[..., Host], ask: Ask, what: str
) -> None:
    """MK-11, MK-26, MK-33; nothing of it is believed, and no port is in the error (MK-5)."""
    bad = host(UNUSABLE[what])
    with pytest.raises(moniker.MonikerError) as raised:
        ask(bad, transport="tcp")
    assert isinstance(raised.value, errors.AnswerUnusable | errors.ServiceUnknown), raised.value
    assert "40000" not in str(raised.value)
    assert str(raised.value).isprintable()
    assert len(bad.questions) == 1


def test_hosts_that_are_silent_or_slow_take_no_longer_than_they_may(
    host: Callable[..., Host], ask: Ask
) -> None:
    began = time.monotonic()
    with pytest.raises(errors.TooSlow):
        ask(host(always(None)), seconds=SECONDS)
    assert time.monotonic() - began < SECONDS + 3


def test_a_host_that_trickles_octets_takes_no_longer_either(ask: Ask) -> None:
    listening = socket.create_server((HOST, 0))
    stop = threading.Event()

    def trickle() -> None:
        connection, _ = listening.accept()
        with connection:
            while not stop.wait(0.05):
                try:
                    connection.send(b"M")
                except OSError:
                    return

    thread = threading.Thread(target=trickle, daemon=True)
    thread.start()
    began = time.monotonic()
    try:
        with pytest.raises(errors.TooSlow):
            ask(listening.getsockname()[1], seconds=SECONDS)
        assert time.monotonic() - began < SECONDS + 3
    finally:
        stop.set()
        thread.join(5)
        listening.close()


REFUSALS = {
    "unknown": errors.ServiceUnknown,
    "version": errors.ServiceUnknown,
    "transport": errors.ServiceUnknown,
    "denied": errors.ServiceDenied,
    "busy": errors.ServiceBusy,
    "key": errors.KeyRefused,
    "clear": errors.KeyRefused,
    "malformed": errors.ServiceRefused,
    "gateway": errors.ServiceDenied,
    "a-code-of-next-year": errors.ServiceRefused,
}


@pytest.mark.parametrize("code", REFUSALS)
def test_mk_11_each_refusal_has_its_error(host: Callable[..., Host], ask: Ask, code: str) -> None:
    """With what the host says of it, as far as a terminal may be shown that."""
    why = "not here\x1b[2J\x07 \u202e40000"
    refusing = host(lambda nonce: f"MON/1 - {nonce} {code} {why}\r\n".encode())
    with pytest.raises(REFUSALS[code]) as raised:
        ask(refusing)
    assert "not here" in str(raised.value)
    assert str(raised.value).isprintable()


def test_mk_30_a_stale_port_is_asked_for_once_more_and_then_given_up(
    host: Callable[..., Host], ask: Ask
) -> None:
    stale = closed_port()
    restarted = host(answer(stale, "tcp", 1, 46, 60))
    with pytest.raises(errors.HostUnreachable) as raised:
        ask(restarted)
    assert len(restarted.questions) == 2
    assert str(stale) not in str(raised.value)


def test_mk_30_a_service_that_was_started_again_is_found_at_its_new_port(
    host: Callable[..., Host], ask: Ask
) -> None:
    with socket.create_server((HOST, 0)) as first, socket.create_server((HOST, 0)) as second:
        ports = first.getsockname()[1], second.getsockname()[1]
        moving = host(answer(ports[0], "tcp", 1, 46, 60), answer(ports[1], "tcp", 1, 46, 60))
        answers.forget_all()
        ask(moving, "trek").close()
        ask(moving, "trek").close()
        assert len(moving.questions) == 1, "the answer is good for a minute"
        first.close()
        ask(moving, "trek").close()
        assert len(moving.questions) == 2
        assert second.accept()[0].fileno() > 0


def test_tcpmux_hosts_that_say_yes_and_then_nothing(host: Callable[..., Host]) -> None:
    """A host of RFC 1078 that takes our question for a name, and is then asked in its own way."""
    for said in (b"", b"maybe\r\n", b"\xff" * 10, b"x" * 5000, None):
        mux = host(always(b"-no such service\r\n"), always(said))
        with pytest.raises(moniker.MonikerError):
            ask_and_wait(mux, seconds=SECONDS if said is None else 5.0)
        assert mux.questions[1] == "starwars\r\n"
    mux = host(always(b"-no such service\r\n"), always(b"+go ahead\r\nMay the Force"))
    with ask_and_wait(mux) as session:
        assert session.recv_exactly(13) == b"May the Force"


def test_random_answers_raise_nothing_else(host: Callable[..., Host]) -> None:
    rng = random.Random(33)
    good = b"MON/1 + 0123456789abcdef 40000 tcp 1 46 60 sst\r\n"

    def rubbish(nonce: str) -> bytes:
        octets = bytearray(good.replace(b"0123456789abcdef", nonce.encode()))
        for _ in range(rng.randint(2, 6)):
            octets[rng.randrange(8, len(octets))] = rng.randrange(256)
        return bytes(octets)

    lying = host(rubbish)
    errors_seen: set[str] = set()
    for _ in range(amount(1000, 100)):
        try:
            moniker.resolve(HOST, "starwars", question_port=lying.port, timeout=5.0, daemon=NOWHERE)
        except moniker.MonikerError as error:
            errors_seen.add(type(error).__name__)
    assert len(errors_seen) >= 1


def test_mk_5_nothing_of_the_library_shows_a_port(host: Callable[..., Host]) -> None:
    with socket.create_server((HOST, 0)) as there:
        port = there.getsockname()[1]
        with ask_and_wait(host(answer(port, "tcp", 1, 46, 60))) as session:
            shown = [repr(session), str(session)]
            shown += [
                repr(getattr(session, name)) for name in dir(session)
                if not name.startswith("_") and not callable(getattr(session, name))
            ]  # fmt: skip
            assert not [text for text in shown if re.search(rf"\b{port}\b", text)]
            assert session.reveal_port() == port
