"""The calls of the paper's listings (King, Lam, Schulman 2007; MK-3, MK-4), as Python has calls:
what is an out-parameter there is returned here, and what is a return code is raised.

    server = mon_service(MON_STREAM, "1", "starwars")
    mon_listen(server, 100)
    while True:
        client = mon_accept(server)
        if os.fork() == 0:
            request = mon_recv(client, 80)
            mon_send(client, response)
            mon_close(client)
            os._exit(0)
"""

from __future__ import annotations

from oegw.moniker.library.client import connect
from oegw.moniker.library.service import BACKLOG, Service, serve
from oegw.moniker.library.session import Session
from oegw.moniker.transports import Kind, named

# The transports that the paper's calls name; any other that `transports` knows will do as well.
MON_STREAM = "tcp"
MON_DGRAM = "udp"


def mon_service(type: str, version: str, string: str) -> Service:
    """The service ``string`` on a random port, bound and registered, not yet listening.

    ``string`` may have a namespace, as in ``reynolds::http``.
    """
    namespace, colons, name = string.rpartition("::")
    return serve(
        name,
        version=str(version),
        transport=type,
        namespace=namespace if colons else None,
        listening=False,
    )


def mon_listen(service: Service, backlog: int = BACKLOG) -> None:
    service.listen(backlog)


def mon_accept(service: Service) -> Session:
    return service.accept()


def mon_connect(host: str, string: str, type: str | None = None) -> Session:
    """A session with the service ``string`` of ``host``.

    ``string`` may have versions and a namespace.  ``type`` None: any stream that the host and we
    have; MON_DGRAM for datagrams.
    """
    kind = Kind.STREAM if type is None else named(type).kind
    return connect(host, string, transport=type, kind=kind)


def mon_send(handle: Session | Service, octets: bytes) -> int:
    """All octets to the other end; by a service of datagrams, to whom the last one came from."""
    if isinstance(handle, Service):
        return handle.answer(octets)
    return handle.send(octets)


def mon_recv(handle: Session | Service, size: int) -> bytes:
    """At most ``size`` octets; a service of datagrams gives the next of anybody's."""
    if isinstance(handle, Service):
        return handle.receive(size)[0]
    return handle.recv(size)


def mon_close(handle: Session | Service) -> None:
    """Of a session: this process's end.  Of a service: its name and its port, but in a child that
    was forked only the child's copy of the port."""
    handle.close()
