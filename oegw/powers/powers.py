"""What the daemon has no right to do itself, as it asks for it."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from types import TracebackType
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key

from oegw.intercept.interface import InterceptError
from oegw.powers import elsewhere
from oegw.powers.distant import DistantKernel
from oegw.powers.distantdatapath import DistantDatapath
from oegw.powers.dropping import Cap, permitted
from oegw.powers.orders import (
    GiveFiles,
    Heed,
    KernelChanged,
    ListProcesses,
    MakeDatapath,
    OpenDoor,
    OpenSigner,
    Role,
    SaveGuard,
    SignerOpened,
)
from oegw.powers.signer import LONGEST
from oegw.powers.tohands import HandsGone, ToHands

PublicKey = rsa.RSAPublicKey

_SIGNING = 10.0  # seconds, our choice: a key of 8192 bits takes a small router one


class SignerGone(OSError):  # noqa: N818  (it names the fact)
    """Nothing is signed any more."""


class DistantSigner:
    """Signs with the key of another process; see `ike.signer.Signing`."""

    def __init__(self, channel: socket.socket) -> None:
        channel.settimeout(_SIGNING)
        self._channel = channel

    def sign(self, digest: bytes) -> bytes:
        """Raises SignerGone."""
        try:
            self._channel.send(digest)
            signature = self._channel.recv(LONGEST)
        except OSError as error:
            raise SignerGone(error.errno or 0, "the process that has the private key") from None
        if len(signature) <= 1:
            raise SignerGone(0, "the process that has the private key signs nothing")
        return signature

    def close(self) -> None:
        """The other process ends."""
        self._channel.close()


class Powers:
    """``async with``: from the beginning to the end of the event loop."""

    def __init__(self, hands: ToHands) -> None:
        self._hands = hands
        self.pid = os.getppid()
        """Of the process that was started as the gateway: signals are sent to it."""
        self._signers: list[DistantSigner] = []
        self._heeding: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Powers:
        self._hands.begin()
        elsewhere.use(DistantKernel(self._hands))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        elsewhere.use(None)
        self._hands.end()

    def on_failure(self, failed: Callable[[str], None]) -> None:
        """``failed`` is told why nothing can go on, once that is so."""
        self._hands.failed = failed

    def on_change(self, changed: Callable[[KernelChanged], None]) -> None:
        """``changed`` is told when something of ours may be gone from the kernel."""
        self._hands.changed = changed

    def hands_heed(self) -> bool:
        """Whether the hands have answered since this was asked the last time; asks them anew."""
        if self._heeding is not None and not self._heeding.done():
            return False
        self._heeding = asyncio.create_task(self._heed())
        return True

    async def _heed(self) -> None:
        with suppress(HandsGone):  # which others say
            await self._hands.ask(Heed())

    def warnings(self) -> tuple[str, ...]:
        """What this process may do all the same."""
        if Cap.NET_ADMIN not in permitted():
            return ()
        return (
            "this kernel marks packets for CAP_NET_ADMIN only (Linux 5.17 for CAP_NET_RAW): "
            "the process that speaks IKE keeps it",
        )

    async def signer(self) -> tuple[DistantSigner, PublicKey]:
        """Another one, of the key as its file has it now, to be kept or not.

        Raises KeyFileError, OSError.
        """
        opened: SignerOpened
        try:
            opened, descriptor = await self._hands.ask_for_gift(OpenSigner())
        except HandsGone as error:
            raise OSError(0, str(error)) from None
        channel = socket.socket(fileno=descriptor)
        public = load_der_public_key(opened.public_key)
        assert isinstance(public, rsa.RSAPublicKey)
        for each in self._signers[1:]:  # of a reload that came to nothing
            each.close()
        self._signers = [*self._signers[:1], DistantSigner(channel)]
        return self._signers[-1], public

    def keep(self, signer: DistantSigner) -> None:
        """From now on it signs, and no other."""
        for each in self._signers:
            if each is not signer:
                each.close()
        self._signers = [signer]

    async def datapath(self) -> DistantDatapath:
        """Not started yet.  Raises DatapathError, OSError."""
        try:
            await self._hands.ask(MakeDatapath())
        except HandsGone as error:
            raise OSError(0, str(error)) from None
        return DistantDatapath(self._hands)

    async def door(self, role: Role) -> int:
        """A descriptor for a process in ``role``.  Raises OSError."""
        try:
            _, descriptor = await self._hands.ask_for_gift(OpenDoor(role))
        except HandsGone as error:
            raise OSError(0, str(error)) from None
        return descriptor

    async def give_files(self) -> None:
        """Key files may be others than at the start.  Raises OSError."""
        try:
            await self._hands.ask(GiveFiles())
        except HandsGone as error:
            raise OSError(0, str(error)) from None

    async def save_guard(self, text: str) -> str:
        """For the next boot.  Returns why it was not saved, or nothing."""
        try:
            saved = await self._hands.ask(SaveGuard(text))
        except (HandsGone, InterceptError, OSError) as error:
            return f"warning: the guard for the next boot is not saved: {error}"
        return str(saved.problem)

    async def processes(self, others: dict[str, int]) -> list[dict[str, Any]]:
        """Rows for `oegw status`; ``others``: those that we started."""
        try:
            found = await self._hands.ask(ListProcesses(others))
        except HandsGone:
            return []
        return [asdict(row) for row in found.rows]
