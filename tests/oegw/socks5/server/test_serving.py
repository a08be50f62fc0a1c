"""The process of the server: its signals, and the end of who started it."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from oegw.control import ControlError, request
from tests.support.intercept_net import wait_for

ROOT = Path(__file__).resolve().parents[4]

# Settings are read from a file of one word: "deny" has no rule, "bad" is refused.
PROGRAM = """
import sys, time
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from oegw.socks5.server.serving import Given, serve
from oegw.socks5.settings import Listener
from oegw.trace import JsonTrace
from tests.support.socks_server import SETTINGS, Gateway, Names

folder, parent = Path(sys.argv[1]), int(sys.argv[2])

class Wrong(Exception):
    pass

def load():
    word = (folder / "word").read_text()
    if word == "bad":
        raise Wrong("the word is bad")
    rules = () if word == "deny" else SETTINGS.rules
    settings = replace(SETTINGS, socket=folder / "socks.sock", rules=rules)
    if word == "moved":
        ids = replace(settings.ids, total=17)
        elsewhere = Listener(ip_address("127.0.0.3"), 0)
        settings = replace(settings, listeners=(elsewhere,), ids=ids)
    return Given(settings, Names(), Gateway())

sys.exit(serve(load, JsonTrace(None, time.time), Wrong, parent))
"""


class Process:
    def __init__(self, folder: Path, word: str = "allow") -> None:
        self.folder = folder
        self.say(word)
        theirs, self.pipe = os.pipe()
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(folder), str(theirs)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            pass_fds=(theirs,),
            stderr=subprocess.PIPE,
            text=True,
        )
        os.close(theirs)

    def say(self, word: str) -> None:
        (self.folder / "word").write_text(word)

    def status(self) -> dict[str, object] | None:
        try:
            (answer,) = request(self.folder / "socks.sock", {"do": "status"}, 10)
        except ControlError:
            return None
        found: dict[str, object] = answer["status"]
        return found

    def addresses(self) -> list[str]:
        """At which it listens."""
        status: Any = self.status()
        return [each["address"] for each in status["listeners"]]

    def says(self, words: str) -> None:
        """Among the lines up to the one with ``words``, which must come."""
        assert self.process.stderr is not None
        assert any(words in line for line in self.process.stderr), words


@contextmanager
def process(folder: Path, word: str = "allow") -> Iterator[Process]:
    started = Process(folder, word)
    try:
        wait_for(lambda: started.status() or started.process.poll() is not None, 20)
        yield started
    finally:
        started.process.kill()
        started.process.wait()
        os.close(started.pipe)
        assert started.process.stderr is not None
        started.process.stderr.close()


def test_it_ends_at_sigterm(tmp_path: Path) -> None:
    with process(tmp_path) as server:
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(20) == 0
        assert not (tmp_path / "socks.sock").exists()


def test_it_ends_with_who_started_it(tmp_path: Path) -> None:
    with process(tmp_path) as server:
        os.close(server.pipe)
        server.pipe = os.open(os.devnull, os.O_RDONLY)
        assert server.process.wait(20) == 0


def test_hang_up_reads_the_settings_again(tmp_path: Path) -> None:
    """What is wrong with them is told, and the old ones stay; so is what needs a restart.  Where
    it listens does not."""
    with process(tmp_path) as server:
        for word, told in (
            ("bad", "the old settings stay: the word is bad"),
            ("moved", "[socks] ids changed: takes effect at the next restart"),
        ):
            assert "127.0.0.3" not in server.addresses()
            server.say(word)
            server.process.send_signal(signal.SIGHUP)
            server.says(told)
        assert server.addresses() == ["127.0.0.3"]


def test_a_second_one_does_not_start(tmp_path: Path) -> None:
    with process(tmp_path):
        second = Process(tmp_path)
        try:
            assert second.process.wait(20) == 1
            second.says("cannot start")
        finally:
            os.close(second.pipe)
            assert second.process.stderr is not None
            second.process.stderr.close()


def test_settings_that_are_wrong_at_the_start_are_the_callers(tmp_path: Path) -> None:
    with process(tmp_path, "bad") as server:
        assert server.process.wait(20) == 1
        assert server.process.stderr is not None
        assert "Wrong: the word is bad" in server.process.stderr.read()


def test_as_many_descriptors_as_its_limits_need(tmp_path: Path) -> None:
    """Whatever the soft limit was; the hard one, too, if it may."""
    with process(tmp_path) as server:
        lines = Path(f"/proc/{server.process.pid}/limits").read_text().splitlines()
        soft, hard = next(line for line in lines if line.startswith("Max open files")).split()[3:5]
        assert soft == hard
        _, before = resource.getrlimit(resource.RLIMIT_NOFILE)
        assert int(soft) >= before
