"""The site directory: questions for a namespace that is on a host behind this gateway (MK-14)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from oegw.moniker import wire
from oegw.moniker.firewall.interface import Gate
from oegw.moniker.firewall.leasedesk import LeaseDesk
from oegw.moniker.interface import IPAddress, LeaseRefused, Opening
from oegw.moniker.settings import HostSettings
from oegw.moniker.steps import AskHost
from oegw.moniker.wire import MAX_LINE_OCTETS, Answer, Code, MalformedMessage, Query, Refusal
from oegw.trace import Trace

# Our choices.
ASK_SECONDS = 4.0
MAX_ASKED = 256
CATEGORY = "moniker"


class SiteDirectory:
    """Asks the host that has the namespace, and forwards a port of our own to the service.

    A host that keeps a connection to ``desk`` is asked over it, and knows who the client is; any
    other by a plain question of ours.
    """

    def __init__(
        self,
        hosts: Sequence[HostSettings],
        firewall: Gate,
        desk: LeaseDesk | None,
        *,
        trace: Trace,
    ) -> None:
        self._firewall = firewall
        self._desk = desk
        self._trace = trace
        self._asked = 0
        self._hosts: dict[IPAddress, HostSettings] = {}
        self.reload(hosts)

    async def ask(self, step: AskHost, seconds: int) -> tuple[Answer | Refusal, Opening | None]:
        """What the host says, and for an Answer the port of ours that leads to the service.

        The port is one of the address that was asked, for at most ``seconds``, for exactly the
        client that asked.  Both go to `Answering.forwarded`.  Raises LeaseRefused.
        """
        if self._asked >= MAX_ASKED:
            raise LeaseRefused(Code.BUSY.value, "too many questions to the hosts behind")
        self._asked += 1
        try:
            said = await self._said(step)
        finally:
            self._asked -= 1
        source = step.question.source
        if isinstance(said, Refusal):
            self._trace.event(
                CATEGORY,
                "host_refused",
                service=str(step.name),
                host=str(step.host),
                client=str(source.address),
                code=said.code.value,
            )
            return said, None
        if source.family not in said.families:
            raise LeaseRefused(Code.GATEWAY.value, "the service is there in another family only")
        lease = step.lease(said, seconds)
        lease = replace(lease, encrypted=step.question.encrypted, seconds=max(1, lease.seconds))
        return said, await self._firewall.forward(lease, source.asked)

    def reload(self, hosts: Sequence[HostSettings]) -> None:
        """Other hosts."""
        self._hosts = {address: host for host in hosts for address in host.addresses}

    async def _said(self, step: AskHost) -> Answer | Refusal:
        """Raises LeaseRefused if the host says nothing that can be read."""
        question = step.question
        line = wire.text(Query(question.nonce, step.name, step.transport))
        said = None
        host = self._hosts.get(step.host)
        if self._desk is not None and host is not None:
            client = question.source.address
            said = await self._desk.ask(host, step.host, line, client, question.encrypted)
        try:
            message = wire.parse(said if said is not None else await _asked(step, line))
        except (MalformedMessage, OSError, EOFError, TimeoutError, ValueError) as error:
            self._trace.drop(CATEGORY, "host_silent", host=str(step.host), why=type(error).__name__)
            raise LeaseRefused(Code.GATEWAY.value, "the host behind does not answer") from None
        if not isinstance(message, Answer | Refusal) or message.nonce != question.nonce:
            self._trace.drop(CATEGORY, "host_answers_otherwise", host=str(step.host))
            raise LeaseRefused(Code.GATEWAY.value, "the host behind gave no answer")
        return message


async def _asked(step: AskHost, line: str) -> str:
    """A plain question over TCP.  Raises OSError, EOFError, TimeoutError or ValueError."""
    async with asyncio.timeout(ASK_SECONDS):
        reader, writer = await asyncio.open_connection(
            str(step.host), step.port, limit=MAX_LINE_OCTETS + 2
        )
        try:
            writer.write(line.encode() + b"\r\n")
            return wire.decoded(await reader.readline())
        finally:
            writer.transport.abort()
