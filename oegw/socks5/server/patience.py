"""How long we work for a client: until a deadline, and as long as it is there."""

from __future__ import annotations

import asyncio
import select
import socket
from types import TracebackType

from oegw.socks5.codes import ReplyCode
from oegw.socks5.interface import Refused
from oegw.socks5.server.waiting import Input

# Our choices: seconds before we look whether the client is still there; most are served by then.
UNWATCHED = 0.25
LOOK_SECONDS = 1.0  # between two looks at who has sent ahead


class ClientGone(Exception):  # noqa: N818  (it names the fact)
    """Nobody is left to be told."""


class Patience:
    """``async with Patience(...)``: what is done within raises Refused when ``seconds`` are over,
    and ClientGone when ``client`` has reset its connection; ``half_closed``: or has
    ended its half of it.

    The octets of a client that has sent ahead are not ours to read: whether it is there still is
    looked at now and then.
    """

    __slots__ = (
        "_again",
        "_client",
        "_gone",
        "_half_closed",
        "_loop",
        "_over",
        "_seconds",
        "_task",
        "_timer",
        "_watching",
    )  # fmt: skip

    def __init__(self, client: Input, seconds: float, half_closed: bool = False) -> None:
        self._client = client
        self._seconds = seconds
        self._half_closed = half_closed
        self._over = self._gone = self._watching = False
        self._again: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._loop = loop = asyncio.get_running_loop()
        if self._seconds > UNWATCHED:
            self._timer = loop.call_later(UNWATCHED, self._watch)
        else:
            self._timer = loop.call_later(self._seconds, self._too_late)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._timer.cancel()
        self._unwatch()
        if self._again is not None:
            self._again.cancel()
        if not (self._over or self._gone):
            return
        if self._task.uncancel() or kind is not asyncio.CancelledError:
            return  # the server ends; or it was done in the last moment
        if self._gone:
            raise ClientGone("while it was being served") from None
        raise Refused(ReplyCode.HOST_UNREACHABLE, "timeout") from None

    def _too_late(self) -> None:
        if not self._gone:
            self._over = True
            self._task.cancel()

    def _watch(self) -> None:
        self._timer = self._loop.call_later(self._seconds - UNWATCHED, self._too_late)
        self._watching = True
        self._client.release()
        self._loop.add_reader(self._client.sock, self._look)

    def _unwatch(self) -> None:
        if self._watching:
            self._watching = False
            self._loop.remove_reader(self._client.sock)

    def _look(self) -> None:
        try:
            ended = not self._client.sock.recv(1, socket.MSG_PEEK) and self._half_closed
        except BlockingIOError:
            return
        except OSError:
            ended = True
        self._unwatch()
        if ended:
            self._is_gone()
        else:
            self._again = self._loop.call_later(LOOK_SECONDS, self._look_again)

    def _look_again(self) -> None:
        """Without what it has sent, which a reader of the socket would be told of all the time."""
        poll = select.poll()
        poll.register(self._client.sock, select.POLLRDHUP)
        told = sum(event for _, event in poll.poll(0))
        ended = select.POLLERR | select.POLLHUP | (select.POLLRDHUP if self._half_closed else 0)
        if told & ended:
            self._is_gone()
        else:
            self._again = self._loop.call_later(LOOK_SECONDS, self._look_again)

    def _is_gone(self) -> None:
        if not self._over:
            self._gone = True
            self._task.cancel()
