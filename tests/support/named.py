"""BIND on the loopback address, as primary of some zones that take signed updates.

with Named(tmp_path, ["1.1.192.in-addr.arpa."]) as server:
    ... server.port, server.key_file ...
"""

from __future__ import annotations

import base64
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from tests.support.intercept_net import within

LOOPBACK = "127.0.0.1"
MINIMUM = 2  # seconds: SOA MINIMUM of the zones


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind((LOOPBACK, 0))
        return int(sock.getsockname()[1])


class Named:
    """``records``: further lines of each zone's file, by zone.  It listens at ``address``, at any
    port that is free or at ``port``, in the network namespace ``namespace`` or in this one."""

    def __init__(
        self,
        directory: Path,
        zones: Sequence[str],
        records: Mapping[str, Sequence[str]] | None = None,
        address: str = LOOPBACK,
        port: int = 0,
        namespace: str = "",
    ) -> None:
        self.directory = directory / "named"
        self.address = address
        self.port = port or free_port()
        self._namespace = namespace
        self.key_file = self.directory / "update.key"
        self._zones = zones
        self._records = records or {}
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Named:
        self.directory.mkdir()
        secret = base64.b64encode(secrets.token_bytes(32)).decode()
        self.key_file.write_text(
            f'key "update" {{\n  algorithm hmac-sha256;\n  secret "{secret}";\n}};\n'
        )
        self.key_file.chmod(0o600)
        statements = [self.key_file.read_text()]
        statements.append(
            f'options {{ directory "{self.directory}";'
            f" listen-on port {self.port} {{ {self.address}; }};"
            f" listen-on-v6 {{ none; }}; recursion no; dnssec-validation no;"
            f' pid-file "named.pid"; session-keyfile "session.key"; allow-transfer {{ none; }}; }};'
            f" controls {{ }};"
        )
        for zone in self._zones:
            file = f"{zone}zone"
            lines = [
                "$TTL 60",
                f"{zone} SOA ns.example. admin.example. 1 3600 600 86400 {MINIMUM}",
                f"{zone} NS ns.example.",
                *self._records.get(zone, ()),
            ]
            (self.directory / file).write_text("\n".join(lines) + "\n")
            statements.append(
                f'zone "{zone}" {{ type primary; file "{file}"; check-names ignore;'
                f" update-policy {{ grant update zonesub ANY; }}; }};"
            )
        configuration = self.directory / "named.conf"
        configuration.write_text("\n".join(statements))
        program = shutil.which("named", path="/usr/sbin:/usr/bin")
        assert program is not None, "named is missing: netns-lab/setup test installs bind9"
        log = (self.directory / "log").open("wb")
        self._process = subprocess.Popen(
            [*self._entering(), program, "-g", "-n", "1", "-c", str(configuration)],
            stdout=log,
            stderr=log,
        )
        self._await_start()
        return self

    def _entering(self) -> list[str]:
        return ["nsenter", f"--net=/run/netns/{self._namespace}"] if self._namespace else []

    def _listens(self) -> bool:
        with socket.socket() as sock:
            return not sock.connect_ex((self.address, self.port))

    def _await_start(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and self._process.poll() is None:
            if within(self._namespace, self._listens) if self._namespace else self._listens():
                return
            time.sleep(0.05)
        raise AssertionError((self.directory / "log").read_text()[-3000:])

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(20)
