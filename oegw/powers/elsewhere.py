"""Where what takes rights is done: in this process, or by the hands of it.

A process without rights says at its start, once, who does it.  What speaks to the kernel about
packets asks here; nobody else has to know.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from oegw.powers.orders import Address, Iptables, IptablesDone, NfMessage, Spoken

if TYPE_CHECKING:
    from oegw.intercept.nfqueue import Queue, Taker


class Kernel(Protocol):
    """What the hands do of it.  All raise `PowersGone` when they have ended."""

    def nft(self, command: str, flags: int, *, dry: bool) -> Spoken: ...
    def nf_tables(self, messages: tuple[NfMessage, ...]) -> int:
        """0, or an error number."""

    def imprint(self, family: str, table: str) -> str:
        """Raises InterceptError."""

    async def iptables(self, order: Iptables) -> IptablesDone: ...
    def queue(
        self, number: int, length: int, taker: Taker, said: Callable[[str], None], whole: bool
    ) -> Queue: ...
    def knows(
        self, source: Address, destination: Address, protocol: int, source_port: int,
        destination_port: int,
    ) -> bool: ...  # fmt: skip
    def marks(self, value: int, mask: int) -> set[int]: ...
    async def forget_other_sources(
        self, source: Address, destination: Address, outside: Address
    ) -> int: ...


class OnlyNft:
    """Of `Kernel` what a process beside the mind has no use for."""

    def nf_tables(self, messages: tuple[NfMessage, ...]) -> int:
        return errno.EPERM

    def imprint(self, family: str, table: str) -> str:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    async def iptables(self, order: Iptables) -> IptablesDone:
        return IptablesDone(1, "", os.strerror(errno.EPERM))

    def queue(
        self, number: int, length: int, taker: Taker, said: Callable[[str], None], whole: bool
    ) -> Queue:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    def knows(
        self, source: Address, destination: Address, protocol: int, source_port: int,
        destination_port: int,
    ) -> bool:  # fmt: skip
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    def marks(self, value: int, mask: int) -> set[int]:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    async def forget_other_sources(
        self, source: Address, destination: Address, outside: Address
    ) -> int:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))


_kernel: Kernel | None = None


def use(kernel: Kernel | None) -> None:
    """From now on ``kernel`` does it; None: this process itself."""
    global _kernel
    _kernel = kernel


def kernel() -> Kernel | None:
    """None: this process itself."""
    return _kernel
