"""Services by name, ports at random (Moniker).  What an application needs is imported here."""

from oegw.moniker.library import (
    MON_DGRAM,
    MON_STREAM,
    MonikerError,
    Resolved,
    Service,
    Session,
    connect,
    mon_accept,
    mon_close,
    mon_connect,
    mon_listen,
    mon_recv,
    mon_send,
    mon_service,
    resolve,
    serve,
)

__all__ = [
    "MON_DGRAM",
    "MON_STREAM",
    "MonikerError",
    "Resolved",
    "Service",
    "Session",
    "connect",
    "mon_accept",
    "mon_close",
    "mon_connect",
    "mon_listen",
    "mon_recv",
    "mon_send",
    "mon_service",
    "resolve",
    "serve",
]
