"""The calls of the paper's listings (King, Lam, Schulman 2007): MK-3, MK-4."""

from __future__ import annotations

from oegw.moniker.library.service import Service
from oegw.moniker.library.session import Session

MON_STREAM = "tcp"
MON_DGRAM = "udp"


def mon_service(type: str, version: str, string: str) -> Service:
    """Bound to a random port and registered; not yet listening."""
    raise NotImplementedError


def mon_listen(service: Service, backlog: int) -> None:
    raise NotImplementedError


def mon_accept(service: Service) -> Session:
    raise NotImplementedError


def mon_connect(host: str, string: str) -> Session:
    raise NotImplementedError


def mon_send(handle: Session | Service, octets: bytes) -> int:
    raise NotImplementedError


def mon_recv(handle: Session | Service, size: int) -> bytes:
    raise NotImplementedError


def mon_close(handle: Session | Service) -> None:
    raise NotImplementedError
