"""Named services and sessions with them, through a real daemon (MK-3 to MK-13, MK-29, MK-30)."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import select
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from oegw import moniker
from oegw.moniker import aio, transports
from oegw.moniker.library.errors import (
    DaemonAbsent,
    HostUnreachable,
    NotOfThisKind,
    ServiceUnknown,
    TooSlow,
)
from oegw.moniker.names import InvalidName
from oegw.moniker.registry import RegistrationRefused
from oegw.moniker.transports import Kind, Transport, UnknownTransport

ROOT = Path(__file__).parents[4]
HERE = "127.0.0.1"
Soon = Callable[[Callable[[], Any]], None]


@contextmanager
def echoing(service: moniker.Service) -> Iterator[moniker.Service]:
    """Each client gets back what it sends, one after the other."""
    over = threading.Event()

    def serve() -> None:
        while not over.is_set():
            try:
                session = service.accept()
            except TimeoutError:
                continue
            with session, suppress(ConnectionResetError):
                while octets := session.recv(4096):
                    session.send(octets)

    with service:
        service.settimeout(0.02)
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield service
        finally:
            over.set()
            thread.join()


def echoed(session: moniker.Session, octets: bytes = b"hello") -> bool:
    with session:
        session.send(octets)
        return session.recv_exactly(len(octets)) == octets


@pytest.mark.parametrize("transport", ["tcp", "mptcp"])
@pytest.mark.parametrize("far", [HERE, "::1", "localhost"])
def test_a_client_reaches_a_service_by_its_name(host: Any, transport: str, far: str) -> None:
    with echoing(host.serve("starwars", transport=transport)):
        assert echoed(host.connect(far, "starwars"))
        assert echoed(host.connect(far, "STARWARS@1"), b"x" * 100_000)


def test_a_uri_will_do(host: Any) -> None:
    with echoing(host.serve("starwars")):
        uri = f"starwars://{HERE}:{host.port}/film?picture=3"
        with moniker.connect(uri, daemon=host.daemon) as session:
            assert session.path == "/film?picture=3"
            assert session.peer == HERE
            assert str(session.service) == "starwars"
            assert not session.encrypted
            session.send(b"hello")
            assert session.recv(100) == b"hello"


def test_a_new_transport_is_one_row(host: Any, soon: Soon, monkeypatch: pytest.MonkeyPatch) -> None:
    """MK-15: UDP-Lite, which nothing else in this program knows."""
    monkeypatch.setattr(transports, "_known", dict(transports._known))
    transports.add(Transport("udplite", Kind.DATAGRAM, socket.SOCK_DGRAM, 136, 136))
    with host.serve("starwars", transport="udplite") as service:
        with host.connect(HERE, "starwars", kind=Kind.DATAGRAM) as session:
            assert session.detach().proto == 136
        with host.connect(HERE, "starwars", transport="udplite") as session:
            session.send(b"hello")
            octets, sender = service.receive()
            service.answer(octets[::-1], sender)
            assert session.recv(100) == b"olleh"


def test_two_versions_and_two_instances(host: Any) -> None:
    """MK-9: side by side on one host."""
    with (
        echoing(host.serve("http", version="1")),
        host.serve("http", version="2") as second,
        host.serve("http", version="2", weight=1) as other,
    ):
        assert len({second.reveal_port(), other.reveal_port()}) == 2
        assert echoed(host.connect(HERE, "http@1"))
        assert echoed(host.connect(HERE, "http@<2"))
        assert host.resolve(HERE, "http").version == "2"
        with pytest.raises(ServiceUnknown, match="http@>=3: version"):
            host.connect(HERE, "http@>=3")


def test_another_application_of_the_same_protocol(host: Any) -> None:
    """MK-10: names of applications, not of protocols."""
    with echoing(host.serve("sip-calls")), host.serve("sip-messages"):
        assert echoed(host.connect(HERE, "sip-calls"))


def test_namespaces(host: Any) -> None:
    """MK-13: root may have any; what a user may is the daemon's to say."""
    with (
        echoing(host.serve("http", namespace="reynolds")),
        host.serve("http", namespace="postel") as other,
    ):
        assert str(other.name) == "postel::http@1"
        assert echoed(host.connect(HERE, "reynolds::http"))
        with pytest.raises(ServiceUnknown):
            host.connect(HERE, "http")
        with moniker.connect(f"reynolds::http://{HERE}:{host.port}", daemon=host.daemon) as session:
            assert session.service.namespace == "reynolds"


def test_a_service_that_is_unknown_is_a_typed_error(host: Any) -> None:
    with pytest.raises(ServiceUnknown, match="starwars: unknown") as caught:
        host.connect(HERE, "starwars")
    assert isinstance(caught.value, moniker.MonikerError)


def test_what_is_given_back_is_unknown_at_once(host: Any) -> None:
    with host.serve("starwars"):
        host.connect(HERE, "starwars").close()
    with pytest.raises(ServiceUnknown):
        host.resolve(HERE, "starwars")


def test_a_service_that_restarts_elsewhere_is_found_again(host: Any) -> None:
    """MK-30: the client remembers the old port, is refused there, and asks again."""
    with echoing(host.serve("starwars")):
        assert echoed(host.connect(HERE, "starwars"))
    with echoing(host.serve("starwars")):
        assert echoed(host.connect(HERE, "starwars"))


def test_a_host_without_daemon(host: Any) -> None:
    host.stop()
    with pytest.raises(HostUnreachable, match="no daemon of Moniker answers there"):
        host.connect(HERE, "starwars")
    with pytest.raises(HostUnreachable, match=r"no-such-host\.invalid: has no address"):
        host.connect("no-such-host.invalid", "starwars")
    with pytest.raises(DaemonAbsent):
        host.serve("starwars", patience=0)


def test_a_daemon_of_this_host_that_says_nothing_costs_no_more_than_there_is(
    tmp_path: Path,
) -> None:
    """It is asked for the policy first, within the same time."""
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "s"))
        silent.listen()
        begun = time.monotonic()
        with pytest.raises((TooSlow, HostUnreachable)):
            moniker.connect(HERE, "starwars", daemon=tmp_path / "s", timeout=0.1)
        assert time.monotonic() < begun + 1.5  # 2 s are what it may cost at most

        async def run() -> None:
            await aio.connect(HERE, "starwars", daemon=tmp_path / "s", timeout=0.1)

        begun = time.monotonic()
        with pytest.raises((TooSlow, HostUnreachable)):
            asyncio.run(run())
        assert time.monotonic() < begun + 1.5


def test_a_service_of_one_family_is_told_there(host: Any) -> None:
    """MK-29."""
    with echoing(host.serve("starwars", families="4")):
        assert host.resolve(HERE, "starwars").families == "4"
        assert echoed(host.connect("localhost", "starwars"))  # whose first address may be ::1
        with pytest.raises(ServiceUnknown, match="not over IPv6"):
            host.connect("::1", "starwars")


def test_ports_are_told_to_those_who_ask(host: Any) -> None:
    with host.serve("starwars") as service:
        found = host.resolve(HERE, "starwars")
        assert found.port == service.reveal_port()
        assert (found.transport, found.version, found.ttl) == ("tcp", "1", 60)
        with host.connect(HERE, "starwars") as session, service.accept() as other:
            assert session.reveal_port() == found.port
            port = str(found.port)
            for each in (service, session, other, service.name, session.peer, other.peer):
                assert port not in repr(each)
                assert port not in str(each)


def test_no_attribute_of_anything_has_the_port(host: Any) -> None:
    """MK-5: what an application may read, without a method that says so."""
    with (
        host.serve("starwars") as service,
        host.connect(HERE, "starwars") as session,
        service.accept() as other,
    ):
        port = service.reveal_port()
        for thing in (service, session, other):
            for name in dir(thing):
                if name.startswith("_") or callable(value := getattr(thing, name)):
                    continue
                assert value != port
                assert str(port) not in repr(value), name


def test_what_can_not_be_served(host: Any) -> None:
    with pytest.raises(InvalidName):
        host.serve("a b")
    with pytest.raises(InvalidName):
        host.serve("starwars", version="one")
    with pytest.raises(UnknownTransport):
        host.serve("starwars", transport="quic")
    with pytest.raises(RegistrationRefused, match="weight"):
        host.serve("starwars", weight=5000)
    with pytest.raises(InvalidName):
        host.connect(HERE, "a b")
    with pytest.raises(InvalidName, match="no ://"):
        moniker.connect("starwars")
    with pytest.raises(InvalidName, match="without a name"):
        moniker.connect("", "starwars")
    with pytest.raises(ValueError, match="encrypt 'maybe'"):
        host.connect(HERE, "starwars", encrypt="maybe")
    assert host.registered() == []


def test_one_string_is_no_list_of_texts(host: Any) -> None:
    with pytest.raises(TypeError, match="a list of strings"):
        host.serve("starwars", text="episode=4")
    with host.serve("starwars") as service, pytest.raises(TypeError, match="a list of strings"):
        service.update(text="episode=4")


def test_what_is_registered_may_change(host: Any) -> None:
    """MK-8."""
    with host.serve("starwars", text=["a=b"]) as service:
        service.update(weight=7, exported=True, text=[])
        (entry,) = host._daemon.registry.entries()
        assert (entry.service.weight, entry.service.exported) == (7, True)
        assert entry.service.text == ()
        service.update()
        assert service.registered


def test_a_service_waits_no_longer_than_it_is_told(host: Any) -> None:
    with host.serve("starwars") as service:
        service.settimeout(0.01)
        with pytest.raises(TimeoutError):
            service.accept()
        service.settimeout(0)
        with pytest.raises(BlockingIOError):
            service.accept()


@pytest.mark.parametrize("options", [{}, {"transport": "mptcp"}, {"tcpmux": True}])
def test_who_waits_for_clients_waits_no_longer_when_it_is_closed(
    host: Any, options: dict[str, Any]
) -> None:
    service = host.serve("starwars", **options)
    seen: list[str] = []

    def serve() -> None:
        for session in service:
            session.close()
            seen.append("client")
        seen.append("end")

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    host.connect(HERE, "starwars").recv(1)  # it is accepted: the thread waits for the next
    service.close()
    thread.join(5)
    assert seen == ["client", "end"]
    with pytest.raises(OSError, match="starwars@1: the service is closed"):
        service.accept()


def test_so_does_who_waits_for_datagrams(host: Any) -> None:
    service = host.serve("quake", transport="udp")
    errors: list[str] = []

    def serve() -> None:
        while True:
            try:
                service.answer(service.receive()[0])
            except OSError as error:
                errors.append(str(error))
                return

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    with host.connect(HERE, "quake", transport="udp") as session:
        session.send(b"hello")
        assert session.recv(80) == b"hello"
    service.close()
    thread.join(5)
    assert errors == [f"[Errno {errno.EBADF}] quake@1: the service is closed"]


def test_what_a_child_closes_goes_on_in_its_parent(host: Any) -> None:
    with host.serve("starwars") as service:
        child = os.fork()
        if not child:
            service.close()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        with host.connect(HERE, "starwars"):
            service.accept().close()


def test_streams_end_as_streams_do(host: Any) -> None:
    with host.serve("starwars") as service:
        with host.connect(HERE, "starwars") as session, service.accept() as other:
            session.settimeout(5)
            with session.makefile() as file:
                file.write(b"line\n")
                file.flush()
                assert other.recv_exactly(5) == b"line\n"
            session.finish()
            assert other.recv(10) == b""
            with pytest.raises(EOFError, match="0 of 3 octets"):
                other.recv_exactly(3)
            assert session.fileno() >= 0
        assert session.fileno() == -1


# -------------------------------------------------------------------------- datagrams


@pytest.mark.parametrize("far", [HERE, "::1", "127.0.0.2"])
def test_datagrams_are_answered_from_where_they_were_sent_to(host: Any, far: str) -> None:
    """MK-7: a client that is connected takes no answer from another address, not even of the same
    host; 127.0.0.2 is one that a wildcard socket would not choose."""
    with host.serve("starwars", transport="udp") as service:
        port = service.reveal_port()
        family = socket.AF_INET6 if ":" in far else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as client:
            client.settimeout(5)
            client.connect((far, port))
            client.send(b"hello")
            octets, sender = service.receive()
            assert service.answer(octets) == 5
            assert client.recv(100) == b"hello"
            own = str(client.getsockname()[1])
            assert own not in repr(sender)
            assert sender.host == client.getsockname()[0]
            client.send(b"again")
            assert service.receive() == (b"again", sender)


def test_a_session_of_datagrams_keeps_them_apart(host: Any) -> None:
    with (
        host.serve("starwars", transport="udp") as service,
        host.connect(HERE, "starwars", transport="udp") as session,
    ):
        for each in (b"one", b"", b"two"):
            session.send(each)
        assert [service.receive()[0] for _ in range(3)] == [b"one", b"", b"two"]
        with pytest.raises(NotOfThisKind, match="udp is no stream transport"):
            service.accept()
        with pytest.raises(NotOfThisKind):
            service.listen()
    with host.serve("starwars") as service, pytest.raises(NotOfThisKind, match="no datagram"):
        service.receive()
    with host.serve("starwars", transport="udp") as service, pytest.raises(NotOfThisKind):
        service.answer(b"to whom?")


# ----------------------------------------------------------------------------- TCPMUX


def test_a_connection_that_the_daemon_hands_over_is_a_session_too(host: Any) -> None:
    """MK-2: RFC 1078, for a service that takes it."""
    with echoing(host.serve("starwars", tcpmux=True)):
        with socket.create_connection((HERE, host.port)) as client:
            client.settimeout(5)
            client.sendall(b"starwars\r\n")
            with client.makefile("rb") as file:
                assert file.readline().startswith(b"+")
                client.sendall(b"hello")
                assert file.read(5) == b"hello"
        assert echoed(host.connect(HERE, "starwars"))
        with socket.create_connection((HERE, host.port)) as client:
            client.sendall(b"starwars\r\n")  # and goes before it is accepted
        assert echoed(host.connect(HERE, "starwars"))


def descriptors_with(peer: Any) -> int:
    """How many of this process's are connections with ``peer``."""
    found = 0
    for each in Path("/proc/self/fd").iterdir():
        with suppress(OSError), socket.socket(fileno=os.dup(int(each.name))) as copy:
            found += copy.getpeername() == peer
    return found


def test_a_child_keeps_no_connection_that_was_handed_over(host: Any, soon: Soon) -> None:
    """It was forked before its parent accepted it; what the parent closes is closed."""
    with (
        host.serve("starwars", tcpmux=True) as service,
        socket.create_connection((HERE, host.port), 10) as client,
    ):
        client.sendall(b"starwars\r\n")
        assert client.recv(80) == b"+\r\n"
        soon(lambda: select.select([service.sources()[1]], [], [], 0)[0])
        # The daemon is a thread of ours: the child would have a copy of what it has not closed.
        soon(lambda: descriptors_with(client.getsockname()) == 1)
        readable, writable = os.pipe()
        child = os.fork()
        if not child:
            os.close(writable)
            os.read(readable, 1)  # until its parent has seen what it wanted to
            os._exit(0)
        os.close(readable)
        try:
            service.accept().close()
            assert client.recv(80) == b""
        finally:
            os.close(writable)
            os.waitpid(child, 0)


def test_a_service_with_tcpmux_waits_no_longer_than_it_is_told(host: Any) -> None:
    with host.serve("starwars", tcpmux=True) as service:
        service.settimeout(0.01)
        with pytest.raises(TimeoutError):
            service.accept()


@contextmanager
def inetd(reply: bytes) -> Iterator[int]:
    """A server of RFC 1078 that isn't ours: refuses what it doesn't know, greets who asks for
    starwars, in one write with its reply."""

    def serve() -> None:
        while True:
            try:
                client, _ = listening.accept()
            except OSError:
                return
            with client:
                line = client.makefile("rb").readline()
                if line.strip().lower() == b"starwars":
                    client.sendall(reply)
                    client.sendall(client.recv(100))
                else:
                    client.sendall(b"-Service not available\r\n")

    with socket.create_server((HERE, 0)) as listening:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.mark.parametrize("reply", [b"+Go\r\nhello", b"+\nhello"])
def test_a_server_that_knows_tcpmux_only(host: Any, reply: bytes) -> None:
    with inetd(reply) as port:
        session = moniker.connect(HERE, "starwars", question_port=port, daemon=host.daemon)
        with session:
            assert session.recv_exactly(5) == b"hello"
            session.send(b"back")
            assert session.recv(10) == b"back"
        found = moniker.resolve(HERE, "starwars", question_port=port, daemon=host.daemon)
        assert (found.port, found.question_port) == (None, port)
        with pytest.raises(ServiceUnknown, match="trek: Service not available"):
            moniker.connect(HERE, "trek", question_port=port, daemon=host.daemon)
    with inetd(b"-no\r\n") as port, pytest.raises(ServiceUnknown, match="starwars: no"):
        moniker.connect(HERE, "starwars", question_port=port, daemon=host.daemon)


# ------------------------------------------------------------------------ the package


def test_it_is_imported_quickly() -> None:
    """An application that uses a name must not pay for the gateway."""
    script = (
        "import sys; from oegw import moniker; print(*[m for m in ('asyncio', 'aiohttp', 'dns', "
        "'pyroute2', 'cryptography', 'argparse', 'ike', 'netfilterqueue', 'oegw.config', "
        "'subprocess') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, check=True)
    assert out.stdout.split() == []


def test_a_service_that_is_lost_gives_back_name_and_port(host: Any, soon: Soon) -> None:
    service = host.serve("starwars")
    socket_of_it = weakref.ref(service._socket)
    assert host.registered() == ["starwars@1"]
    del service
    gc.collect()
    soon(lambda: not host.registered())
    soon(lambda: socket_of_it() is None)
