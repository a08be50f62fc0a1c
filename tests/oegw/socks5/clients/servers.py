"""The SOCKS servers: ours, and those that it is compared with; each on the server's host.

All listen at both of the host's addresses towards Alice, without authentication at one port and,
where they can, with a password at another.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.oegw.socks5.clients.bed import (
    OPEN_PORT,
    PASSWORD,
    PASSWORD_PORT,
    SERVER,
    SSH,
    USER,
    Bed,
    bracketed,
)  # fmt: skip

_OURS = """\
version = 1

[interfaces]
outside = ["out0"]

[socks]
socket = "{folder}/socks.sock"

[[socks.user]]
name = "{user}"
password = "{password}"
"""
_LISTENER = """
[[socks.listener]]
address = "{address}"
port = {port}
interface = "in0"
authentication = "{authentication}"
"""


@contextmanager
def ours(bed: Bed) -> Iterator[None]:
    """`oegw socks serve`: the process that `oegw run` starts."""
    oegw = [sys.executable, "-m", "oegw", "socks"]
    hashed = bed.says("server", *oegw, "password", feed=f"{PASSWORD}\n".encode()).strip()
    places = [
        (address, port, authentication)
        for address in SERVER.values()
        for port, authentication in ((OPEN_PORT, "none"), (PASSWORD_PORT, "password"))
    ]
    path = bed.directory / "oegw.toml"
    path.write_text(
        _OURS.format(folder=bed.directory, user=USER, password=hashed)
        + "".join(
            _LISTENER.format(address=address, port=port, authentication=authentication)
            for address, port, authentication in places
        )
    )
    ready = [(address, port) for address, port, _ in places]
    with bed.running("server", [*oegw, "serve", "--config", str(path)], ready, log="ours.log"):
        yield
    said = (bed.directory / "ours.log").read_text()
    assert "Traceback" not in said, said[-5000:]


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


@contextmanager
def ssh_d(bed: Bed) -> Iterator[None]:
    """OpenSSH's client, whose other end is on the same host.  It knows no passwords."""
    with sshd(bed, "server", ["127.0.0.1"]) as key, ExitStack() as stack:
        for address in SERVER.values():
            command = [
                "ssh", *quiet(key), "-N", "-p", str(SSH),
                "-D", f"{bracketed(address)}:{OPEN_PORT}", "root@127.0.0.1",
            ]  # fmt: skip
            stack.enter_context(bed.running("server", command, ready=[(address, OPEN_PORT)]))
        yield


@contextmanager
def sshd(bed: Bed, place: str, addresses: Sequence[str]) -> Iterator[Path]:
    """OpenSSH's server on a host, and the file of the key that it lets in."""
    folder = bed.directory / f"sshd-{place}"
    folder.mkdir()
    for name in "host", "user":
        subprocess.run(
            ["ssh-keygen", "-qt", "ed25519", "-N", "", "-C", name, "-f", str(folder / name)],
            check=True,
        )
    listen = "".join(f"ListenAddress {bracketed(each)}:{SSH}\n" for each in addresses)
    configuration = folder / "sshd_config"
    configuration.write_text(
        f"{listen}HostKey {folder / 'host'}\nAuthorizedKeysFile {folder / 'user.pub'}\n"
        "StrictModes no\nUsePAM no\nPidFile none\nPermitRootLogin yes\nUseDNS no\n"
    )
    Path("/run/sshd").mkdir(exist_ok=True)  # sshd wants it to be there
    command = ["/usr/sbin/sshd", "-D", "-e", "-f", str(configuration)]
    with bed.running(place, command, ready=[(each, SSH) for each in addresses]):
        yield folder / "user"


def quiet(key: Path) -> list[str]:
    """ssh's arguments for a host that is not known yet, with nobody at the terminal."""
    options = (
        "BatchMode=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null",
        "LogLevel=ERROR",
    )  # fmt: skip
    return ["-F", "none", "-i", str(key), *(f"-o{each}" for each in options)]


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
