"""`oegw socks serve`: from a configuration to the SOCKS server.

`oegw run` starts this module as a process of its own (`sockschild.py`).
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Any

from pyroute2 import NetlinkError

from dnsrecords.budget import Budget
from dnsrecords.resolver import Resolver
from oegw import config
from oegw.daemonconfiguration import child_main, load, trace_of
from oegw.environment import UnsuitableBox, links
from oegw.intercept.guardcheck import GuardCheck
from oegw.intercept.interface import OWN_TABLE, InterceptError, Marks
from oegw.powers.dropping import Cap, permitted
from oegw.resolvers import in_use, trusted
from oegw.settings import Settings
from oegw.socks5.server.serving import Given, serve
from oegw.socks5.settings import Listener, SocksSettings
from oegw.socksdialler import GatewayDialler
from oegw.sockslisteners import settings_of
from oegw.socksresolver import SocksResolver

# Our choice, seconds: interfaces get their addresses when they do, at a start of the box above all.
LOOK = 10.0


class Loader:
    """What the server is handed, by the configuration at ``path``, at its start and at reloads."""

    def __init__(self, path: Path, outside: Collection[str] = ()) -> None:
        """``outside``: interfaces that are, as the gateway knows.

        Raises ConfigError, and OSError for a trace that can't be written.
        """
        self._path = path
        self._outside = frozenset(outside)
        settings = load(path)
        self._at_start = self._settings = settings
        self._listeners: tuple[Listener, ...] = ()
        self._moved = threading.Event()
        self.trace = trace_of(settings)
        self._guard = _guard(settings)
        self._asked: object = None  # what the resolver was made by
        self._dns: Resolver | None = None

    def __call__(self) -> Given:
        """Raises ConfigError.  Of the marks those of the start count, as for the gateway."""
        if self._moved.is_set():  # the box has changed, and nobody said that the file has
            self._moved.clear()
            settings = self._settings
        else:
            settings = load(self._path)
        socks = self._with_listeners(settings)
        self._settings, self._listeners = settings, socks.listeners
        resolver = SocksResolver(
            self._resolver(settings),
            confirm=socks.confirm_names,
            daemon=settings.moniker.socket,
        )
        mark = self._at_start.intercept.encrypted_mark
        return Given(socks, resolver, GatewayDialler(mark, self._guard))

    def _with_listeners(self, settings: Settings) -> SocksSettings:
        """What was outside once remains so: a line to a provider that has lost its route is none to
        our own clients, and strangers know its addresses."""
        tunnel = settings.datapath.tunnel_interface
        box = links(settings.interfaces.outside, tunnel, self._outside)
        self._outside |= set(box.outside)
        return settings_of(settings, box)

    def watch(self, over: threading.Event) -> None:
        """Look now and then where we would listen by now, if the file does not say where: have the
        server told.  In a thread of its own, until ``over``."""
        while not over.wait(LOOK):
            if self._settings.socks.listeners:
                continue
            with suppress(OSError, NetlinkError):  # in the middle of a change
                if self._with_listeners(self._settings).listeners != self._listeners:
                    self._moved.set()
                    os.kill(os.getpid(), signal.SIGHUP)  # in this thread it may be blocked

    def _resolver(self, settings: Settings) -> Resolver:
        """The same as before, with what it remembers, unless other servers are to be asked."""
        try:
            servers = in_use(settings.dns)
        except UnsuitableBox as error:
            raise config.ConfigError([str(error)]) from error
        asked = (settings.dns, servers)
        if self._dns is None or asked != self._asked:
            self._asked = asked
            self._dns = Resolver(
                servers,
                timeout=settings.dns.timeout,
                tries=settings.dns.tries,
                mark=_own_mark(self._at_start),
                trusted=trusted(servers, settings.dns),
                budget=Budget(per_second=settings.dns.questions_per_second),
                listener=self._dns_event,
            )
        return self._dns

    def _dns_event(self, event: str, fields: dict[str, Any]) -> None:
        if event == "dropped":
            self.trace.drop("dns", **fields)
        else:
            self.trace.event("dns", event, purpose="socks", **fields)


def _guard(settings: Settings) -> GuardCheck | None:
    """None on a host without nftables: nothing can be kept from leaving in clear there."""
    try:
        return GuardCheck(OWN_TABLE, settings.intercept.encrypted_mark)
    except InterceptError:
        return None


def _own_mark(settings: Settings) -> int | None:
    """The gateway's, so that our questions pass its traps; who has no right to can't set it."""
    may = not permitted().isdisjoint((Cap.NET_ADMIN, Cap.NET_RAW))
    return Marks(settings.intercept.mark_mask).own if may else None


def run(path: Path, parent: int | None = None, *outside: str) -> int:
    """Serve until SIGTERM, by the configuration at ``path``; returns the exit code.

    ``parent``: a pipe whose other end is the parent's; the server ends with it.  ``outside``:
    interfaces that it knows to be.

    Raises ConfigError, and OSError for a trace that can't be written.
    """
    loader = Loader(path, outside)
    over = threading.Event()
    threading.Thread(target=loader.watch, args=(over,), daemon=True).start()
    try:
        return serve(loader, loader.trace, config.ConfigError, parent)
    finally:
        over.set()


if __name__ == "__main__":
    sys.exit(child_main("socks", run, sys.argv[1:]))
