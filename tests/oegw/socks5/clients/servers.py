"""The SOCKS servers: ours, and those that it is compared with; each on the server's host.

All listen at both of the host's addresses towards Alice, without authentication at one port and,
where they can, with a password at another.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.oegw.socks5.clients.bed import OPEN_PORT, PASSWORD, PASSWORD_PORT, SERVER, USER, Bed

_DANTED = """\
errorlog: stderr
logoutput: stderr
internal: {address} port = {port}
external: out0
external.rotation: route
clientmethod: none
socksmethod: {method}
user.privileged: root
user.unprivileged: nobody
timeout.connect: 5
client pass {{ from: 0/0 to: 0/0 }}
socks pass {{ from: 0/0 to: 0/0 command: bind connect udpassociate bindreply udpreply }}
"""


@contextmanager
def danted(bed: Bed) -> Iterator[None]:
    """Dante's server: one for each address and method."""
    with ExitStack() as stack:
        accounts = _accounts(bed.directory)
        for method, port in ("none", OPEN_PORT), ("username", PASSWORD_PORT):
            for family, address in SERVER.items():
                path = bed.directory / f"danted-{method}-{family}.conf"
                path.write_text(_DANTED.format(address=address, port=port, method=method))
                command = ["danted", "-f", str(path), "-p", str(path.with_suffix(".pid"))]
                stack.enter_context(
                    bed.running("server", command, ready=[(address, port)], over=accounts)
                )
        yield


def _accounts(directory: Path) -> dict[str, Path]:
    """Dante knows users of the system: files of accounts with one more."""
    hashed = subprocess.run(
        ["openssl", "passwd", "-6", PASSWORD], check=True, capture_output=True, text=True
    ).stdout.strip()
    lines = {"passwd": f"{USER}:x:59999:59999::/:/bin/false", "shadow": f"{USER}:{hashed}:1::::::"}
    for name, line in lines.items():
        shutil.copy2(f"/etc/{name}", directory / name)
        with (directory / name).open("a") as file:
            file.write(line + "\n")
    return {f"/etc/{name}": directory / name for name in lines}


@contextmanager
def microsocks(bed: Bed) -> Iterator[None]:
    with ExitStack() as stack:
        for arguments, port in ((), OPEN_PORT), (("-u", USER, "-P", PASSWORD), PASSWORD_PORT):
            for address in SERVER.values():
                command = ["microsocks", "-i", address, "-p", str(port), *arguments]
                stack.enter_context(bed.running("server", command, ready=[(address, port)]))
        yield
