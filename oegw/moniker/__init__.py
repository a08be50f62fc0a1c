"""Services by name, ports at random (Moniker).  What an application needs is imported here."""

from oegw.moniker.library.client import Resolved, connect, resolve
from oegw.moniker.library.errors import (
    AnswerUnusable,
    DaemonAbsent,
    HostUnreachable,
    KeyRefused,
    NoPortLeft,
    NotEncrypted,
    NotOfThisKind,
    PolicyUnreadable,
    RegistrationRefused,
    ServiceBusy,
    ServiceDenied,
    ServiceRefused,
    ServiceUnknown,
    TooSlow,
    TransportUnavailable,
)
from oegw.moniker.library.paper import (
    MON_DGRAM,
    MON_STREAM,
    mon_accept,
    mon_close,
    mon_connect,
    mon_listen,
    mon_recv,
    mon_send,
    mon_service,
)
from oegw.moniker.library.service import Service, serve
from oegw.moniker.library.session import Session
from oegw.moniker.names import MonikerError
from oegw.moniker.transports import Kind

__all__ = [
    "MON_DGRAM",
    "MON_STREAM",
    "AnswerUnusable",
    "DaemonAbsent",
    "HostUnreachable",
    "KeyRefused",
    "Kind",
    "MonikerError",
    "NoPortLeft",
    "NotEncrypted",
    "NotOfThisKind",
    "PolicyUnreadable",
    "RegistrationRefused",
    "Resolved",
    "Service",
    "ServiceBusy",
    "ServiceDenied",
    "ServiceRefused",
    "ServiceUnknown",
    "Session",
    "TooSlow",
    "TransportUnavailable",
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
