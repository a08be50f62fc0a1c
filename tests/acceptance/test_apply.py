"""A configuration on trial with a real gateway: what is in use when it is gone, or who began it."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from oegw.keys import generate, write_private
from tests.support.intercept_net import wait_for
from tests.support.misuse import MAIN, run, started
from tests.support.own_network import ip, own_network

pytestmark = pytest.mark.netns

FIRST = MAIN.replace("192.1.1.53", "127.0.0.1")  # nobody is asked
CLOSED = '[default]\ncategory = "deny"\n'
PATIENCE = 60.0


class Router:
    """A gateway that can be started again and again, and its operator."""

    def __init__(self, directory: Path) -> None:
        self.file = directory / "oegw.toml"
        self.file.write_text(FIRST)
        write_private(directory / "gateway.pem", generate(2048))
        self.daemon: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.daemon = started("run", "--config", self.file)
        wait_for(lambda: run("status", "--config", self.file)[0] == 0, PATIENCE)

    def end(self, number: int) -> str:
        assert self.daemon is not None
        self.daemon.send_signal(number)
        _, said = self.daemon.communicate(timeout=PATIENCE)
        return said.decode()

    def does(self, *words: object) -> str:
        code, out, err = run(*words, "--config", self.file)
        assert (code, err) == (0, "")
        return out

    def write(self, more: str) -> None:
        self.file.write_text(FIRST + more)


@pytest.fixture
def router() -> Iterator[Router]:
    with tempfile.TemporaryDirectory() as name, own_network():
        ip("link", "add", "out0", "type", "veth", "peer", "name", "far0")
        ip("addr", "add", "192.1.1.4/24", "dev", "out0")
        ip("link", "set", "out0", "up")
        ip("link", "set", "far0", "up")
        router = Router(Path(name))
        router.start()
        try:
            yield router
        finally:
            if router.daemon is not None and router.daemon.poll() is None:
                router.end(signal.SIGTERM)


def in_use(router: Router) -> str:
    status: Any = json.loads(router.does("status", "--json"))
    return str(status["configuration"]["state"])


def differences(router: Router) -> list[str]:
    """Between the file and what the gateway goes by."""
    code, out, _ = run("check", "--diff", "--config", router.file)
    return out.splitlines() if code else []


def test_a_trial_ends_with_what_was_in_use_however_it_ends(router: Router) -> None:
    router.write(CLOSED)
    assert differences(router) == ['added: default.category: "deny"']
    # nobody confirms; the command, and with it its connection, is gone long before
    assert "on trial" in router.does("apply", "--confirm", 2)
    wait_for(lambda: in_use(router) == "refused", PATIENCE)
    assert differences(router)
    assert router.file.read_text() == FIRST + CLOSED
    assert "not confirmed" in router.does("reload")
    # the gateway is gone in the middle of a trial
    router.does("apply", "--confirm", 3600)
    assert (in_use(router), differences(router)) == ("on trial", [])
    router.end(signal.SIGKILL)
    router.start()
    assert in_use(router) == "refused"
    assert differences(router)
    # and stopped in the middle of one
    router.does("apply", "--confirm", 3600)
    assert "not confirmed" in router.end(signal.SIGTERM)  # said at its start
    router.start()
    assert in_use(router) == "refused"
    # it is confirmed, and stays
    router.does("apply", "--confirm", 3600)
    assert router.does("confirm") == "confirmed\n"
    router.end(signal.SIGKILL)
    router.start()
    assert (in_use(router), differences(router)) == ("in use", [])


def test_enter_confirms_on_a_terminal(router: Router) -> None:
    router.write(CLOSED)
    ours, theirs = pty.openpty()
    try:
        command = started(
            "apply", "--confirm", 3600, "--config", router.file, stdin=theirs, stdout=theirs
        )
        os.close(theirs)
        said = b""
        while b"Enter confirms: " not in said:
            said += os.read(ours, 1024)
        assert in_use(router) == "on trial"
        os.write(ours, b"\n")
        command.communicate(timeout=PATIENCE)
        assert command.returncode == 0
    finally:
        os.close(ours)
    assert in_use(router) == "in use"
