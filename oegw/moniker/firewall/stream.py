"""A connection of the lease protocol: the messages of `messages`, sealed by `channel`."""

from __future__ import annotations

import asyncio
from asyncio import StreamReader, StreamWriter

from oegw.moniker.firewall import channel, messages
from oegw.moniker.firewall.handshake import MAX_HELLO, LeaseProtocolError
from oegw.moniker.firewall.messages import Message

# Our choices.
ALIVE_SECONDS = 3.0  # between two signs of life
GONE_SECONDS = 10.0  # without any, or without a connection
HANDSHAKE_SECONDS = 5.0
MAX_UNSENT = 1 << 18  # octets; who doesn't read is gone


class LeaseStream:
    """``receive`` and ``send`` after the handshake; one task receives."""

    def __init__(
        self, reader: StreamReader, writer: StreamWriter, *, receiving: bytes, sending: bytes
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._opening = channel.Opening(receiving)
        self._sealing = channel.Sealing(sending)

    async def receive(self, seconds: float = GONE_SECONDS) -> Message:
        """The next message.

        Raises LeaseProtocolError, and OSError, EOFError or TimeoutError at the connection's end.
        """
        async with asyncio.timeout(seconds):
            length = self._opening.length(
                await self._reader.readexactly(channel.LENGTH_OCTETS),
            )
            sealed = await self._reader.readexactly(length)
        return messages.parse(self._opening.open(sealed))

    def send(self, message: Message) -> None:
        """Never waits; who doesn't read what we say loses the connection."""
        if self._writer.is_closing():
            return
        if self._writer.transport.get_write_buffer_size() > MAX_UNSENT:
            self._writer.transport.abort()
            return
        self._writer.write(self._sealing.seal(messages.serialize(message)))

    def close(self) -> None:
        self._writer.close()

    def abort(self) -> None:
        self._writer.transport.abort()


async def read_line(reader: StreamReader, seconds: float = HANDSHAKE_SECONDS) -> str:
    """A line of the handshake, without CRLF.

    Raises LeaseProtocolError, and OSError, EOFError or TimeoutError at the connection's end.
    """
    async with asyncio.timeout(seconds):
        try:
            octets = await reader.readuntil(b"\n")
        except asyncio.LimitOverrunError:
            raise LeaseProtocolError("lease_malformed", "a line that does not end") from None
    if len(octets) > 2 * MAX_HELLO:
        raise LeaseProtocolError("lease_malformed", "a line that is too long")
    return octets.decode("utf-8", "replace").rstrip("\r\n")
