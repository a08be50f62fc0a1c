"""The shell of decision points, against a server on loopback."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import subprocess
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from oegw import decisionpoint
from oegw.decision import (
    LONGEST_REPLY,
    DecisionPoint,
    NoAnswer,
    Opinion,
    PointError,
    Question,
    Reply,
    Role,
)
from oegw.decisionpoint import DecisionPoints
from policy.flow import IPAddress
from policy.rule import ANY_PORT, Category
from tests.support.playbook import CountingTrace

QUESTION = Question(Role.INITIATOR, "r", "192.1.0.65", "192.2.0.66", None, ANY_PORT, ANY_PORT)
PERMIT = b'{"version": 1, "decision": "permit", "ttl": 20}'


def http(body: bytes, status: str = "200 OK", *more: str) -> bytes:
    head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *more]
    return "\r\n".join([*head, "", ""]).encode() + body


class Server:
    """Answers each request with the same octets, after a while, and keeps what it was sent."""

    def __init__(
        self, answer: bytes, delay: float = 0.0, tls: ssl.SSLContext | None = None
    ) -> None:
        self.answer, self.delay, self.tls = answer, delay, tls
        self.requests: list[bytes] = []
        self.port = 0

    async def __aenter__(self) -> Server:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self.tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(
                int(line.split(b":")[1])
                for line in head.split(b"\r\n")
                if line.lower().startswith(b"content-length")
            )
            self.requests.append(head + await reader.readexactly(length))
            await asyncio.sleep(self.delay)
            writer.write(self.answer)
            await writer.drain()
        finally:
            writer.close()

    def point(self, name: str = "it", **more: Any) -> DecisionPoint:
        return DecisionPoint(name, f"http://127.0.0.1:{self.port}/decide", **more)


async def no_names(name: str) -> Sequence[IPAddress]:
    return ()


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Shell:
    """Points with a trace that counts; ``ask`` gives the replies alone."""

    def __init__(
        self,
        *points: DecisionPoint,
        names: Callable[[str], Awaitable[Sequence[IPAddress]]] = no_names,
        mark: int = 0,
    ) -> None:
        self.trace, self.clock = CountingTrace(), Clock()
        self.said: list[str] = []
        self.points = DecisionPoints(points, mark, names, self.trace, self.clock, self.said.append)

    async def ask(self, question: Question = QUESTION) -> list[Reply]:
        return [reply for _, reply in await self.points.ask(question)]

    async def __aenter__(self) -> Shell:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.points.close()


def test_question_is_posted_and_the_answer_kept_for_its_time() -> None:
    async def body() -> None:
        async with Server(http(PERMIT)) as server, Shell(server.point()) as shell:
            assert await shell.ask() == [Opinion(Category.PERMIT, ttl=20.0)]
            head, _, sent = server.requests[0].partition(b"\r\n\r\n")
            assert head.startswith(b"POST /decide HTTP/1.1\r\n")
            assert b"application/json" in head
            assert json.loads(sent) == QUESTION.document()
            shell.clock.now += 15
            assert await shell.ask() == [Opinion(Category.PERMIT, ttl=5.0)]
            assert len(server.requests) == 1
            await shell.ask(replace(QUESTION, remote="192.2.0.67"))
            assert len(server.requests) == 2
            shell.points.forget()
            await shell.ask()
            assert len(server.requests) == 3
            shell.clock.now += 20
            await shell.ask()
            assert len(server.requests) == 4
            asked = [event for _, event, _ in shell.trace.lines]
            assert (asked.count("asked"), asked.count("answered")) == (4, 5)

    asyncio.run(body())


@pytest.mark.parametrize(
    ("answer", "trigger"),
    [
        (http(b"", "500 Oops"), "status"),
        (http(PERMIT, "404 Not Found"), "status"),
        (http(PERMIT, "302 Found", "Location: http://127.0.0.1:1/"), "status"),
        (http(b"permit"), "malformed"),
        (http(PERMIT.ljust(LONGEST_REPLY + 1)), "malformed"),
        (http(PERMIT, "200 OK", "Content-Encoding: gzip"), None),  # not unpacked: no bombs
        (b"", "unreachable"),
        (b"SMTP ready\r\n", "unreachable"),
        (http(PERMIT)[:-5], "unreachable"),
        (http(b"", "204 No Content"), None),
    ],
)
def test_what_is_no_answer_is_counted_under_its_name(answer: bytes, trigger: str | None) -> None:
    async def body() -> None:
        async with Server(answer) as server, Shell(server.point()) as shell:
            [reply] = await shell.ask()
            if trigger is None:
                assert isinstance(reply, Opinion)
                return
            assert isinstance(reply, NoAnswer)
            assert reply.trigger == trigger
            assert shell.trace.drops == {trigger: 1}

    asyncio.run(body())


def test_endless_answer_is_cut_off() -> None:
    async def body() -> None:
        endless = b"HTTP/1.1 200 OK\r\n\r\n" + b"[" * 1_000_000
        async with Server(endless) as server, Shell(server.point()) as shell:
            [reply] = await shell.ask()
            assert isinstance(reply, NoAnswer)
            assert reply.trigger == "malformed"

    asyncio.run(body())


def test_points_are_asked_at_the_same_time_each_within_its_own() -> None:
    async def body() -> None:
        async with Server(http(PERMIT), 0.2) as slow, Server(http(PERMIT), 30) as silent:
            points = [slow.point("a"), silent.point("b", timeout=0.2), slow.point("c")]
            async with Shell(*points) as shell:
                began = time.monotonic()
                first, second, third = await shell.ask()
                assert time.monotonic() - began < 0.39
                assert first == third == Opinion(Category.PERMIT, ttl=20.0)
                assert second == NoAnswer("timeout", "no answer in 0.2 s")

    asyncio.run(body())


def test_nobody_there() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        point = DecisionPoint("it", f"http://127.0.0.1:{taken.getsockname()[1]}/")

        async def body() -> None:
            async with Shell(point) as shell:
                [reply] = await shell.ask()
                assert isinstance(reply, NoAnswer)
                assert reply.trigger == "unreachable"

        asyncio.run(body())


def test_dead_point_is_left_alone_for_a_while() -> None:
    async def body() -> None:
        async with Server(http(b"", "500 Oops")) as server, Shell(server.point()) as shell:
            for number in range(10):
                await shell.ask(replace(QUESTION, local=str(number)))
            assert len(server.requests) == decisionpoint.PATIENCE
            assert shell.trace.drops == {"status": 3, "resting": 7}
            server.answer = http(PERMIT)
            shell.clock.now += decisionpoint.REST
            assert await shell.ask() == [Opinion(Category.PERMIT, ttl=20.0)]

    asyncio.run(body())


def test_questions_under_way_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decisionpoint, "UNDER_WAY", 5)

    async def body() -> None:
        async with Server(http(PERMIT), 0.1) as server, Shell(server.point()) as shell:
            questions = [replace(QUESTION, local=str(n)) for n in range(9)]
            replies = await asyncio.gather(*map(shell.ask, questions))
            assert shell.trace.drops == {"busy": 4}
            assert sum(isinstance(reply, Opinion) for [reply] in replies) == 5
            assert isinstance((await shell.ask())[0], Opinion)  # and there is room again

    asyncio.run(body())


def test_names_go_through_the_gateways_own_resolver() -> None:
    asked = []

    async def names(name: str) -> Sequence[IPAddress]:
        asked.append(name)
        return (ip_address("127.0.0.1"),) if name == "policy.example" else ()

    async def body() -> None:
        async with Server(http(PERMIT)) as server:
            here = replace(server.point(), url=f"http://policy.example:{server.port}/")
            nowhere = replace(here, name="b", url=f"http://nowhere.example:{server.port}/")
            async with Shell(here, nowhere, names=names) as shell:
                first, second = await shell.ask()
                assert isinstance(first, Opinion)
                assert isinstance(second, NoAnswer)
                assert second.trigger == "unreachable"
                assert "nowhere.example" in second.detail
        assert sorted(asked) == ["nowhere.example", "policy.example"]

    asyncio.run(body())


@pytest.mark.netns  # needs root, as all that sets marks
def test_sockets_have_the_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    marks = []
    make = DecisionPoints._socket

    def watched(self: DecisionPoints, address: tuple[Any, ...]) -> socket.socket:
        opened = make(self, address)
        marks.append(opened.getsockopt(socket.SOL_SOCKET, socket.SO_MARK))
        return opened

    monkeypatch.setattr(DecisionPoints, "_socket", watched)

    async def body() -> None:
        async with Server(http(PERMIT)) as server, Shell(server.point(), mark=0x30000) as shell:
            assert isinstance((await shell.ask())[0], Opinion)

    asyncio.run(body())
    assert marks == [0x30000]


def test_https_with_a_certificate_of_ones_own(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "ca.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out",
         certificate, "-days", "2", "-subj", "/CN=policy", "-addext",
         "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    async def body() -> None:
        async with Server(http(PERMIT), tls=context) as server:
            url = f"https://127.0.0.1:{server.port}/"
            trusted = replace(server.point("a", ca=certificate), url=url)
            stranger = replace(server.point("b"), url=url)
            async with Shell(trusted, stranger) as shell:
                first, second = await shell.ask()
                assert isinstance(first, Opinion)
                assert isinstance(second, NoAnswer)
                assert second.trigger == "unreachable"
                assert second.detail == "its certificate: self-signed certificate"
                assert len(server.requests) == 1

    asyncio.run(body())


def test_missing_certificate_names_point_and_file(tmp_path: Path) -> None:
    point = DecisionPoint("it", "https://127.0.0.1/", ca=tmp_path / "none.pem")
    with pytest.raises(PointError, match=r"decision_point 'it': ca: .*none\.pem"):
        Shell(point)


def test_what_becomes_of_a_point_is_said_once_and_shown() -> None:
    async def body() -> None:
        async with Server(b"") as server, Shell(server.point(), nobody("no")) as shell:
            await server.__aexit__()  # nobody listens any more
            for number in range(3):
                await shell.ask(replace(QUESTION, local=str(number)))
            reason = "unreachable: Connection refused"
            assert shell.said == [
                f"decision point 'it' gives no usable answer: {reason}",
                f"decision point 'no' gives no usable answer: {reason}",
            ]
            first = shell.points.rows()[0]
            assert (first["answers"], first["failures"], first["reason"]) == (0, 3, reason)
        shell.clock.now += 60
        async with Server(http(PERMIT)) as server, Shell(server.point()) as shell:
            server.answer = http(b"hello")
            await shell.ask()
            server.answer = http(PERMIT)
            await shell.ask()
            assert shell.said == [
                "decision point 'it' gives no usable answer: malformed: no JSON: JSONDecodeError",
                "decision point 'it' answers again",
            ]
            row = shell.points.rows()[0]
            assert (row["answers"], row["failures"], row["reason"]) == (1, 0, "")

    asyncio.run(body())


def nobody(name: str) -> DecisionPoint:
    return DecisionPoint(name, "http://127.0.0.1:1/")
