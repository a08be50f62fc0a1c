"""Services by name for asyncio: `from oegw.moniker import aio`."""

from oegw.moniker.library.loop import AsyncService, AsyncSession, connect, resolve, serve

__all__ = ["AsyncService", "AsyncSession", "connect", "resolve", "serve"]
