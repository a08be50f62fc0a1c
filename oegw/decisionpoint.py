"""The asyncio shell of decision points: JSON over HTTP (draft section 5.6, in place of COPS).

Its sockets have the gateway's own mark, so that its traffic passes our traps, and names are
looked up with the gateway's own resolver.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from oegw.decision import (
    LONGEST_REPLY,
    DecisionPoint,
    MalformedReply,
    NoAnswer,
    Opinion,
    OpinionCache,
    PointError,
    Question,
    Replies,
    Reply,
    parse_opinion,
)
from oegw.trace import Trace
from policy.flow import IPAddress

# Our choices.
UNDER_WAY = 256  # questions to one point; more are not asked
CONNECTIONS = 32  # to one point
PATIENCE = 3  # failures in a row until a point is left alone ...
REST = 5.0  # ... for so many seconds: a dead one must not make every connection wait

Addresses = Callable[[str], Awaitable[Sequence[IPAddress]]]


class DecisionPoints:
    """Asks all points at the same time, each within its time limit.

    ``addresses`` finds those of a name, none if there are none; ``clock`` gives monotonic seconds;
    ``said`` is told what has become of a point, when that changes.  Raises PointError.
    """

    def __init__(
        self,
        points: Sequence[DecisionPoint],
        mark: int,
        addresses: Addresses,
        trace: Trace,
        clock: Callable[[], float],
        said: Callable[[str], None],
    ) -> None:
        self.points = tuple(points)
        self._said = said
        self._trace = trace
        self._clock = clock
        self._cache = OpinionCache()
        self._under_way = dict.fromkeys((p.name for p in points), 0)
        self._failures = dict.fromkeys(self._under_way, 0)  # in a row
        self._answers = dict.fromkeys(self._under_way, 0)
        self._reasons = dict.fromkeys(self._under_way, "")  # of the last failure, until it answers
        self._rests_until = dict.fromkeys(self._under_way, 0.0)
        self._tls = {point.name: tls_of(point) for point in self.points}
        self._mark = mark
        self._addresses = addresses
        self._session: aiohttp.ClientSession | None = None

    async def ask(self, question: Question) -> Replies:
        """The replies of all points, in their order."""
        replies = await asyncio.gather(*(self._reply(point, question) for point in self.points))
        return tuple(zip(self.points, replies, strict=True))

    def rows(self) -> list[dict[str, Any]]:
        """The points in `oegw status`."""
        return [
            {
                "name": point.name,
                "url": point.url,
                "on_timeout": point.on_timeout.value,
                "answers": self._answers[point.name],
                "failures": self._failures[point.name],
                "reason": self._reasons[point.name],
            }
            for point in self.points
        ]

    @property
    def patience(self) -> float:
        """Seconds after which nobody waits for an answer any more."""
        return max(point.timeout for point in self.points)

    def forget(self) -> None:
        """Ask anew about everything."""
        self._cache.clear()

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _reply(self, point: DecisionPoint, question: Question) -> Reply:
        cached = self._cache.find(point.name, question, self._clock())
        if cached is not None:
            self._tell("answered", point, question, cached, cached=True)
            return cached
        try:
            opinion = await self._asked(point, question)
        except _Failed as failure:
            if failure.trigger not in ("resting", "busy"):  # which are our own doing
                self._note_failure(point, failure)
            reply = NoAnswer(failure.trigger, failure.detail)
            self._trace.drop(
                "decision", reply.trigger, point=point.name, detail=reply.detail,
                source=question.local, destination=question.remote,
                counts=point.on_timeout.value,
            )  # fmt: skip
            return reply
        if self._reasons[point.name]:
            self._said(f"decision point {point.name!r} answers again")
        self._failures[point.name], self._reasons[point.name] = 0, ""
        self._answers[point.name] += 1
        self._cache.keep(point.name, question, opinion, self._clock())
        self._tell("answered", point, question, opinion, cached=False)
        return opinion

    def _note_failure(self, point: DecisionPoint, failure: _Failed) -> None:
        reason = f"{failure.trigger}: {failure.detail}"
        if not self._reasons[point.name]:
            self._said(f"decision point {point.name!r} gives no usable answer: {reason}")
        self._reasons[point.name] = reason
        self._failures[point.name] += 1
        if self._failures[point.name] % PATIENCE == 0:
            self._rests_until[point.name] = self._clock() + REST

    def _tell(
        self, event: str, point: DecisionPoint, question: Question, said: Opinion, *, cached: bool
    ) -> None:
        self._trace.event(
            "decision", event, point=point.name, role=question.role.value, source=question.local,
            destination=question.remote, decision=said.category.value if said.category else "none",
            ttl=round(said.ttl, 3), reason=said.reason, cached=cached,
        )  # fmt: skip

    async def _asked(self, point: DecisionPoint, question: Question) -> Opinion:
        if self._under_way[point.name] >= UNDER_WAY:
            raise _Failed("busy", f"{UNDER_WAY} questions are under way")
        if self._clock() < self._rests_until[point.name]:
            raise _Failed("resting", "it failed several times")
        self._trace.event(
            "decision", "asked", point=point.name, role=question.role.value,
            source=question.local, destination=question.remote,
        )  # fmt: skip
        self._under_way[point.name] += 1
        try:
            async with asyncio.timeout(point.timeout):
                octets = await self._exchange(point, question)
        except TimeoutError:
            raise _Failed("timeout", f"no answer in {point.timeout:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise _Failed("unreachable", _in_words(error)[:200]) from None
        finally:
            self._under_way[point.name] -= 1
        if octets is None:
            return Opinion(None)
        try:
            return parse_opinion(octets, point.longest_ttl)
        except MalformedReply as error:
            raise _Failed("malformed", str(error)) from None

    async def _exchange(self, point: DecisionPoint, question: Question) -> bytes | None:
        """The body of the answer; None for "No Content", which is no opinion."""
        if self._session is None:
            self._session = self._open()
        async with self._session.post(
            point.url,
            data=json.dumps(question.document()).encode(),
            headers={"Content-Type": "application/json", "Accept": "application/json"},
            allow_redirects=False,
            ssl=self._tls[point.name] or True,
        ) as response:
            if response.status == 204:
                return None
            if response.status != 200:
                raise _Failed("status", f"HTTP status {response.status}")
            body = bytearray()
            async for part in response.content.iter_chunked(4096):
                body += part
                if len(body) > LONGEST_REPLY:
                    raise _Failed("malformed", f"longer than {LONGEST_REPLY} octets")
            return bytes(body)

    def _open(self) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            limit=0,
            limit_per_host=CONNECTIONS,
            resolver=_OwnResolver(self._addresses),
            socket_factory=self._socket,
        )
        return aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=None),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=("Accept-Encoding",),
        )

    def _socket(self, address: tuple[Any, ...]) -> socket.socket:
        family, kind, protocol = address[:3]
        opened = socket.socket(family, kind, protocol)
        try:
            if self._mark:
                opened.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, self._mark)
        except OSError:
            opened.close()
            raise
        return opened


class _Failed(Exception):  # noqa: N818  (it names the fact)
    def __init__(self, trigger: str, detail: str) -> None:
        super().__init__(detail)
        self.trigger = trigger
        self.detail = detail


def _in_words(error: Exception) -> str:
    match error:
        case aiohttp.ClientConnectorCertificateError(certificate_error=fault):
            return f"its certificate: {getattr(fault, 'verify_message', fault)}"
        case aiohttp.ClientConnectorError(os_error=fault):
            return _in_words(fault)
        case OSError(errno=number) if number:
            return os.strerror(number)  # asyncio's own text has the address once more
    return f"{type(error).__name__}: {error}"


class _OwnResolver(AbstractResolver):
    """Names through the gateway's own resolver."""

    def __init__(self, addresses: Addresses) -> None:
        self._addresses = addresses

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        found = [
            ResolveResult(
                hostname=host,
                host=str(address),
                port=port,
                family=socket.AF_INET if address.version == 4 else socket.AF_INET6,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in await self._addresses(host)
        ]
        found = [each for each in found if family in (socket.AF_UNSPEC, each["family"])]
        if not found:
            raise OSError(f"no address of {host} was found")
        return found

    async def close(self) -> None:
        """There is nothing to close."""


def tls_of(point: DecisionPoint) -> ssl.SSLContext | None:
    """What its certificate is held against; None without TLS.  Raises PointError."""
    if not point.url.lower().startswith("https:"):
        return None
    try:
        return ssl.create_default_context(cafile=point.ca)
    except ssl.SSLError:
        reason = "has no certificates in PEM"
    except OSError as error:
        reason = error.strerror or str(error)
    raise PointError(f"decision_point {point.name!r}: ca: {point.ca}: {reason}")
