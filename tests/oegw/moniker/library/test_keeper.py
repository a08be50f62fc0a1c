"""Registrations live as long as their process, whatever becomes of the daemon (MK-22, MK-31)."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from oegw.moniker.library import keeper
from oegw.moniker.library.errors import DaemonAbsent
from oegw.moniker.library.holding import hold
from oegw.moniker.library.keeper import register
from oegw.moniker.registry import RegistrationRefused
from oegw.moniker.transports import TCP

ROOT = Path(__file__).parents[4]
Soon = Callable[[Callable[[], Any]], None]

SERVER = """
import os, sys, time
from pathlib import Path
from oegw import moniker
service = moniker.serve("starwars", daemon=Path(sys.argv[1]), patience=20)
{then}
os.write(1, b"up\\n")
time.sleep(60)
"""


def server(daemon: Path, then: str = "") -> subprocess.Popen[str]:
    """A process with the service starwars, registered."""
    child = subprocess.Popen(
        [sys.executable, "-c", SERVER.format(then=then), str(daemon)],
        stdout=subprocess.PIPE, text=True, cwd=ROOT, start_new_session=True,
    )  # fmt: skip
    assert child.stdout is not None
    assert child.stdout.readline() == "up\n"
    return child


def ended(child: subprocess.Popen[str]) -> None:
    """It and its children."""
    os.killpg(child.pid, signal.SIGKILL)
    child.communicate()


def test_a_daemon_that_comes_back_is_told_again(host: Any, soon: Soon) -> None:
    with hold(TCP) as sock:
        kept = register(sock, {"service": "starwars", "version": "1"}, daemon=host.daemon)
        assert kept.registered
        assert kept.namespace == ""  # root's are the system's
        host.stop()
        soon(lambda: not kept.registered)
        began = time.monotonic()
        host.start()
        soon(lambda: kept.registered)
        assert time.monotonic() - began < 5  # tried every half second, on a machine with other work
        assert host.registered() == ["starwars@1"]
        kept.close()
        assert host.registered() == []


def test_changes_outlive_a_restart(host: Any, soon: Soon) -> None:
    with hold(TCP) as sock:
        kept = register(sock, {"service": "starwars", "version": "1"}, daemon=host.daemon)
        kept.update(weight=7, text=["a=b"])
        with pytest.raises(RegistrationRefused, match="weight"):
            kept.update(weight=0)
        kept.update(weight=7)
        host.stop()
        soon(lambda: not kept.registered)
        kept.update(exported=True)  # nobody is there to refuse it
        host.start()
        soon(lambda: kept.registered)
        (entry,) = host._daemon.registry.entries()
        assert (entry.service.weight, entry.service.exported) == (7, True)
        assert entry.service.text == ("a=b",)
        kept.close()


def test_what_a_new_daemon_refuses_is_offered_again(
    host: Any, soon: Soon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "REFUSED_WAIT", 0.05)
    with hold(TCP) as sock:
        kept = register(sock, {"service": "starwars", "version": "1"}, daemon=host.daemon)
        host.stop()
        soon(lambda: not kept.registered)
        refuse(kept, sock)
        host.start()
        soon(lambda: kept.refusal is not None)
        assert not kept.registered
        kept._keeper._kept._entries[kept.key].request["version"] = "1"
        soon(lambda: kept.registered)
        assert kept.refusal is None
        kept.close()


def refuse(kept: keeper.Registration, sock: socket.socket) -> None:
    """What stands for a rule that has changed: a version that no daemon takes."""
    kept._keeper._kept._entries[kept.key].request["version"] = "none"


def test_without_a_daemon_it_is_said_after_a_while(tmp_path: Path) -> None:
    with hold(TCP) as sock, pytest.raises(DaemonAbsent, match="no daemon of Moniker"):
        register(sock, {"service": "x", "version": "1"}, daemon=tmp_path / "none", patience=0.05)
    assert tmp_path / "none" not in keeper._keepers


def test_a_daemon_that_starts_meanwhile_is_waited_for(host: Any, soon: Soon) -> None:
    host.stop()
    threading.Timer(0.1, host.start).start()
    with hold(TCP) as sock:
        request = {"service": "starwars", "version": "1"}
        kept = register(sock, request, daemon=host.daemon, patience=20)
        assert kept.registered
        kept.close()


def test_a_refusal_is_said(host: Any) -> None:
    with hold(TCP) as sock, pytest.raises(RegistrationRefused) as caught:
        register(sock, {"service": "a b", "version": "1"}, daemon=host.daemon)
    assert caught.value.code == "malformed"


def test_who_waits_no_longer_for_a_refusal_does_the_others_no_harm(host: Any, soon: Soon) -> None:
    """asyncio cancels what it waited for; the answer comes all the same."""
    with host.serve("starwars") as service, socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        with keeper._lock:  # the thread has not got the answer yet
            refused = keeper.begin(
                sock, {"service": "x", "version": "1", "weight": 0}, daemon=host.daemon
            )
            refused.begun.cancel()
        soon(refused.begun.done)
        assert service.registered
        with host.serve("another"):
            assert host.registered() == ["another@1", "starwars@1"]


def test_the_thread_ends_with_the_last_registration(host: Any, soon: Soon) -> None:
    with hold(TCP) as sock:
        kept = register(sock, {"service": "starwars", "version": "1"}, daemon=host.daemon)
        assert "oegw-moniker" in [each.name for each in threading.enumerate()]
        kept.close()
        kept.close()
        kept.update(weight=5)
    soon(lambda: "oegw-moniker" not in [each.name for each in threading.enumerate()])
    assert host.daemon not in keeper._keepers


def test_many_services_of_one_process(host: Any, soon: Soon) -> None:
    """More at once than fit into the socket's buffer, and again after a restart."""
    sockets = [hold(TCP) for _ in range(400)]
    kept = [
        keeper.begin(each, {"service": f"s{number}", "version": "1"}, daemon=host.daemon)
        for number, each in enumerate(sockets)
    ]
    for each in kept:
        each.wait(20)
    assert len(host.registered()) == 400
    host.stop()
    host.start()
    soon(lambda: len(host.registered()) == 400)
    for each in kept:
        each.end()
    soon(lambda: not host.registered())
    for sock in sockets:
        sock.close()


def test_a_killed_server_is_gone_within_a_second(host: Any, soon: Soon) -> None:
    child = server(host.daemon)
    assert host.registered() == ["starwars@1"]
    began = time.monotonic()
    child.send_signal(signal.SIGKILL)
    soon(lambda: not host.registered())
    assert time.monotonic() - began < 1
    ended(child)


FORK = """
if os.fork() == 0:
    {child}
    os.write(1, b"up\\n")
    time.sleep(60)
    os._exit(0)
"""


def test_what_a_child_closes_stays_registered(host: Any) -> None:
    """As in the paper's listing 2; and a child keeps nothing alive."""
    child = server(host.daemon, FORK.format(child="service.close()"))
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "up\n"  # the other of the two
        assert host.registered() == ["starwars@1"]
        host.connect("127.0.0.1", "starwars").close()
    finally:
        ended(child)


def test_a_child_keeps_no_name_alive(host: Any, soon: Soon, tmp_path: Path) -> None:
    note = tmp_path / "child"
    then = FORK.format(child=f"open({str(note)!r}, 'w').write(str(os.getpid()))")
    child = server(host.daemon, then)
    try:
        soon(lambda: note.exists() and note.read_text())
        child.kill()
        soon(lambda: not host.registered())
        os.kill(int(note.read_text()), 0)  # it lives, and has the socket
    finally:
        ended(child)


def test_a_child_may_have_services_of_its_own(host: Any, soon: Soon) -> None:
    own = "service = moniker.serve('own', daemon=Path(sys.argv[1]), patience=20)"
    child = server(host.daemon, FORK.format(child=own))
    try:
        soon(lambda: host.registered() == ["own@1", "starwars@1"])
        child.kill()
        soon(lambda: host.registered() == ["own@1"])
    finally:
        ended(child)


def test_the_keeper_keeps_nothing_for_who_starts_programs(host: Any, soon: Soon) -> None:
    """The connection to the daemon is not inherited by what is executed."""
    then = "import subprocess; subprocess.Popen(['sleep', '60'], close_fds=False)"
    child = server(host.daemon, then)
    child.kill()
    soon(lambda: not host.registered())
    ended(child)


def test_no_port_and_no_secret_in_what_is_shown(host: Any) -> None:
    with hold(TCP) as sock:
        kept = register(sock, {"service": "starwars", "version": "1"}, daemon=host.daemon)
        assert repr(kept) == "<Registration, registered>"
        kept.close()
        assert repr(kept) == "<Registration, not registered>"
