"""The relay with its children in threads of the test: started in no time, and to be looked at."""

from __future__ import annotations

import socket
import subprocess
import threading
from contextlib import suppress

from oegw.socks5.relay import ProcessRelay
from oegw.socks5.relay.child import Child


class ChildThread:
    """A relaying process's twin: the same `Child`, and the same channel, of which it has a copy."""

    def __init__(self, channel: socket.socket, pipes: int) -> None:
        self._channel = channel.dup()
        self._child = Child(self._channel, pipes)
        self.pipes = self._child.mover.pipes
        self._thread = threading.Thread(target=self._body, name="relay", daemon=True)
        self._thread.start()

    @property
    def pid(self) -> int:
        raise AssertionError("a thread: who kills it would kill the tests")

    def kill(self) -> None:
        """Nobody can kill a thread: it is told that the server has gone."""
        with suppress(OSError):
            self._channel.shutdown(socket.SHUT_RDWR)

    def wait(self, timeout: float | None = None) -> int:
        self._thread.join(timeout)
        if self._thread.is_alive():
            raise subprocess.TimeoutExpired(self._thread.name, timeout or 0.0)
        self._channel.close()
        return 0

    def _body(self) -> None:
        try:
            self._child.run()
        finally:
            self.kill()  # a process's channel would be closed by its end


class Children:
    """Begins them, for a relay, and looks at all.  ``pipes``: of each, if not as the relay says."""

    def __init__(self, pipes: int | None = None) -> None:
        self._pipes = pipes
        self._begun: list[ChildThread] = []

    def begin(self, channel: socket.socket, pipes: int) -> ChildThread:
        child = ChildThread(channel, pipes if self._pipes is None else self._pipes)
        self._begun.append(child)
        return child

    def pipes(self) -> int:
        """That are lent now."""
        return sum(child.pipes.lent for child in self._begun)

    def copied(self) -> int:
        """How often no pipe was left."""
        return sum(child.pipes.refused for child in self._begun)


def relay_in_threads() -> ProcessRelay:
    return ProcessRelay(begin_child=Children().begin)
