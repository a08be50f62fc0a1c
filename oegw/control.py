"""The operator's door: a Unix stream socket with one JSON object per line.

A request is one line, its answer one or more, the last with ``"done": true``
(and ``"error"`` if it failed).  A request may say which protocol its sender speaks; then the last
line of the answer says it of the daemon, and which version it is of.  Who may connect is decided by
the socket's mode, 0600, and by nothing else.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from oegw import __version__
from oegw.unixsocket import AddressTaken, listen

Message = dict[str, Any]
Answer = Callable[[Message], AsyncIterator[Message]]

PROTOCOL = 1  # another number: commands and daemons of before don't understand each other any more

# Our choices.
MAX_REQUEST = 64 * 1024  # octets of one line
MAX_CLIENTS = 16
IDLE_SECONDS = 30.0  # that a client may take for its request, or to take its answer


class ControlError(Exception):
    """The control socket can't be opened, or what comes from it makes no sense."""


class NoDaemonError(ControlError):
    """Nobody answers at the socket."""


class NotPermittedError(ControlError):
    """This user may not use the socket."""


class ControlServer:
    """Answers requests at ``path``; ``answer`` yields the lines for one of them."""

    def __init__(self, path: Path, answer: Answer) -> None:
        self._path = path
        self._answer = answer
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.Task[None]] = set()
        self._inode: int | None = None

    async def start(self) -> None:
        """Open the socket.  Raises ControlError, above all if another daemon has it."""
        try:
            listening = listen(self._path, 0o600, MAX_CLIENTS)
        except OSError as error:
            raise ControlError(f"{self._path}: {error.strerror or error}") from error
        except AddressTaken as error:
            raise ControlError(str(error)) from None
        self._inode = self._path.stat().st_ino
        self._server = await asyncio.start_unix_server(
            self._client, sock=listening, limit=MAX_REQUEST
        )

    async def close(self) -> None:
        """Take the socket away, if it still is ours, and drop the clients."""
        if self._server is None:
            return
        with suppress(OSError):
            if self._path.stat().st_ino == self._inode:
                self._path.unlink()
        self._server.close()
        clients = tuple(self._clients)
        for client in clients:
            client.cancel()
        await asyncio.gather(*clients, return_exceptions=True)
        self._server = None

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        crowded = len(self._clients) >= MAX_CLIENTS
        self._clients.add(task)
        try:
            if crowded:
                await _send(writer, {"error": "too many clients at once", "done": True})
            else:
                await self._serve(reader, writer)
        except (OSError, TimeoutError):
            pass  # the client left, or does not listen: nobody to tell
        except asyncio.CancelledError:
            if self._server is not None and self._server.is_serving():
                raise  # not by ``close``
            writer.transport.abort()  # what it has not read yet would keep the connection open
        finally:
            self._clients.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            try:
                async with asyncio.timeout(IDLE_SECONDS):
                    line = await reader.readline()
            except ValueError:
                error = f"the request is longer than {MAX_REQUEST} octets"
                await _send(writer, {"error": error, "done": True})
                return
            if not line:
                return
            try:
                request = _parse(line)
            except ValueError as error:
                await _send(writer, {"error": str(error), "done": True})
                continue
            protocol, sender = request.pop("speaks", None), request.pop("release", None)
            ours: Message = {"speaks": PROTOCOL, "release": __version__}
            if protocol in (None, PROTOCOL):
                await self._reply(request, writer, ours if protocol else {})
            else:
                await _send(writer, {"error": _strangers(sender, __version__), "done": True} | ours)

    async def _reply(self, request: Message, writer: asyncio.StreamWriter, ours: Message) -> None:
        """``ours``: what the last line says of this daemon."""
        done = False
        async with _closed_in_the_end(self._answer(request)) as lines:
            while True:
                try:
                    line = await anext(lines)
                except StopAsyncIteration:
                    break
                except Exception as error:  # the operator learns of it, and the gateway goes on
                    line = {"error": f"internal error: {error!r}", "done": True}
                done = bool(line.get("done"))
                await _send(writer, line | ours if done else line)
                if done:
                    break
        if not done:
            await _send(writer, {"done": True} | ours)


def _strangers(command: object, daemon: object) -> str:
    return f"this command is of oegw {command}, what runs is of oegw {daemon}: restart it"


@asynccontextmanager
async def _closed_in_the_end(
    lines: AsyncIterator[Message],
) -> AsyncIterator[AsyncIterator[Message]]:
    """So that an answer undoes what it did even if its client leaves in the middle."""
    try:
        yield lines
    finally:
        aclose = getattr(lines, "aclose", None)
        if aclose is not None:
            await aclose()


def _parse(line: bytes) -> Message:
    try:
        request = json.loads(line)
    except (ValueError, RecursionError):
        raise ValueError("the request is not JSON") from None
    if not isinstance(request, dict):
        raise ValueError("the request is not a JSON object")
    return request


async def _send(writer: asyncio.StreamWriter, line: Message) -> None:
    writer.write(json.dumps(line, default=str).encode() + b"\n")
    async with asyncio.timeout(IDLE_SECONDS):  # wait_for may swallow what `close` cancels
        await writer.drain()


def request(path: Path, message: Message, timeout: float) -> Iterator[Message]:
    """Put one request to the daemon at ``path``; yields the lines of its answer.

    ``timeout``: seconds that each line may take.  Raises ControlError and its subclasses.
    """
    message = {**message, "speaks": PROTOCOL, "release": __version__}
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout)
        try:
            connection.connect(os.fspath(path))
            with suppress(BrokenPipeError):  # turned away: the reason is there to be read
                connection.sendall(json.dumps(message).encode() + b"\n")
            with connection.makefile("rb") as lines:
                for line in lines:
                    answer = _of_our_protocol(path, _answer_line(path, line))
                    yield answer
                    if answer.get("done"):
                        return
        except PermissionError as error:
            raise NotPermittedError(f"{path}: {error.strerror}; be root") from error
        except TimeoutError as error:
            raise NoDaemonError(f"{path}: no answer within {timeout:g} s") from error
        except OSError as error:
            gone = error.errno in (errno.ENOENT, errno.ECONNREFUSED)
            reason = "no oegw is running there" if gone else error.strerror or str(error)
            raise NoDaemonError(f"{path}: {reason}") from error
    raise NoDaemonError(f"{path}: the answer broke off")


def _of_our_protocol(path: Path, answer: Message) -> Message:
    """The answer without what it says of the daemon.  Raises NoDaemonError if that is of a version
    that we can't talk to."""
    protocol, release = answer.pop("speaks", PROTOCOL), answer.pop("release", __version__)
    if protocol != PROTOCOL:
        raise NoDaemonError(f"{path}: {_strangers(__version__, release)}")
    if "error" in answer and release != __version__:
        answer["error"] = f"{answer['error']} ({_strangers(__version__, release)})"
    return answer


def _answer_line(path: Path, line: bytes) -> Message:
    try:
        answer = _parse(line)
    except ValueError:
        raise ControlError(f"{path}: what answers there is not oegw") from None
    return answer
