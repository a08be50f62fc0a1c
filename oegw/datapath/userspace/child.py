"""A worker's process as the control process has it: its channel, and word of its end."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import oegw
from oegw.datapath.interface import DatapathError
from oegw.powers.dropping import User


class Child:
    """``python -m MODULE CONTROL USER``, with the descriptors that it inherits.

    ``user``: whom it becomes.  Raises DatapathError.
    ``ended`` is what it ended with: its exit code, or the negative number of a signal.
    """

    def __init__(self, module: str, descriptors: tuple[int, ...], user: User | None = None) -> None:
        loop = asyncio.get_running_loop()
        root = str(Path(oegw.__file__).resolve().parent.parent)
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError as error:
            raise DatapathError(f"a worker's channel: {error.strerror}") from None
        ours.setblocking(False)
        try:
            with theirs:
                self._process = subprocess.Popen(
                    (
                        sys.executable,
                        "-P",  # nothing is imported from the working directory
                        "-m",
                        module,
                        str(theirs.fileno()),
                        user.words() if user is not None else "",
                    ),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(), *descriptors),
                    env={**os.environ, "PYTHONPATH": root},
                )
            # It stays the same process's, whatever becomes of the number.
            self._handle = os.pidfd_open(self._process.pid)
        except OSError as error:
            ours.close()
            raise DatapathError(f"the worker cannot be started: {error.strerror}") from None
        self.control = ours
        self.pid = self._process.pid
        self.ended: asyncio.Future[int] = loop.create_future()
        loop.add_reader(self._handle, self._has_ended)

    def kill(self) -> None:
        if not self.ended.done():
            signal.pidfd_send_signal(self._handle, signal.SIGKILL)

    def _has_ended(self) -> None:
        asyncio.get_running_loop().remove_reader(self._handle)
        os.close(self._handle)
        self.ended.set_result(self._process.wait())
