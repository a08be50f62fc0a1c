"""Elements that are to leave the kernel's maps and sets: together, for each transaction takes the
kernel a grace period, and thousands may go at one command."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from oegw.intercept.nft import NftError
from oegw.intercept.verdicts import commands, together

# Our choice: elements of one transaction, so that no packet's verdict waits for many thousands.
_MOST = 4096

Leaver = tuple[str, str, str]
"""Name of a map or set, key, and of a map the value."""


class Leaving:
    """What leaves before the event loop's next turn is over.  ``run`` executes nft commands."""

    def __init__(self, table: str, run: Callable[[str], str]) -> None:
        self._table = table
        self._run = run
        self._leavers: list[Leaver] = []
        self._handle: asyncio.Handle | None = None

    def add(self, leavers: Iterable[Leaver]) -> None:
        """Those that the kernel has dropped by itself are no fault."""
        self._leavers += leavers
        if self._leavers and self._handle is None:
            self._handle = asyncio.get_running_loop().call_soon(self.go)

    def go(self) -> None:
        """Now.  Raises InterceptError."""
        leavers = self._leavers
        self.clear()
        for first in range(0, len(leavers), _MOST):
            self._go(leavers[first : first + _MOST])

    def clear(self) -> None:
        """What is there goes in another way."""
        self._leavers = []
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _go(self, leavers: list[Leaver]) -> None:
        keys = [(name, key) for name, key, _ in leavers]
        delete = together("delete", self._table, keys)
        try:
            self._run(delete)
        except NftError:
            if len(leavers) > 1:
                self._go_as_far_as_there(leavers, delete)
            else:
                self._one_by_one(keys)

    def _go_as_far_as_there(self, leavers: list[Leaver], delete: str) -> None:
        """Some have timed out.  nft before 1.0.7 has no ``destroy``, but what was added first,
        which changes nothing where it is there, is surely there to be deleted."""
        there = ((name, key + value) for name, key, value in leavers)
        try:
            self._run(together("add", self._table, there) + delete)
        except NftError:
            self._one_by_one([(name, key) for name, key, _ in leavers])

    def _one_by_one(self, keys: list[tuple[str, str]]) -> None:
        for command in commands("delete", self._table, keys):
            try:
                self._run(command)
            except NftError as refusal:
                if not refusal.missing:
                    raise
