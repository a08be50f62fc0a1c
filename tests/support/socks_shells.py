"""The shells of the SOCKS client, by calls that wait and in asyncio, for one and the same test."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any

from oegw.socks5.client import Conversation, Proxy, aio

SECONDS = 10.0

Begin = Callable[..., Awaitable[Any]]


async def got(found: Any) -> Any:
    """What a call of either kind gives."""
    return await found if inspect.isawaitable(found) else found


async def waiting(proxy: Proxy, timeout: float = SECONDS) -> Any:
    return Conversation(proxy, timeout=timeout)


async def awaiting(proxy: Proxy, timeout: float = SECONDS) -> Any:
    return await aio.Conversation(proxy, timeout=timeout).open()
