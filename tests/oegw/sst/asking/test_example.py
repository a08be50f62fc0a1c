"""The example in C that is shipped: compiled, run, its packets looked at (SST-24, SST-28)."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from oegw.arguments import DOCUMENTATION
from oegw.sst.asking import attachment
from oegw.sst.asking.option import SST
from oegw.sst.settings import SstSettings
from tests.support.sst_host import BIT, NOBODY, SstHost

EXAMPLE = DOCUMENTATION / "examples" / "sst.c"
COMPILER = shutil.which("cc")
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="no C compiler (cc) on this machine")

_ECHO = """
import socket, subprocess, sys
family = socket.AF_INET6 if ":" in sys.argv[2] else socket.AF_INET
type_ = socket.SOCK_DGRAM if sys.argv[1] == "-u" else socket.SOCK_STREAM
server = socket.socket(family, type_)
server.bind((sys.argv[2], 0))
if type_ == socket.SOCK_STREAM:
    server.listen()
words = [sys.argv[3], *(["-u"] if sys.argv[1] == "-u" else []), sys.argv[2]]
client = subprocess.Popen([*words, str(server.getsockname()[1])], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, user=int(sys.argv[4]))
client.stdin.write(b"hello")
client.stdin.close()
if type_ == socket.SOCK_STREAM:
    there = server.accept()[0]
    there.sendall(there.recv(100).upper())
    there.close()
else:
    octets, address = server.recvfrom(100)
    server.sendto(octets.upper(), address)
print(client.stdout.read().decode(), client.stderr.read().decode(), client.wait())
"""


def test_numbers_are_those_of_the_code() -> None:
    text = EXAMPLE.read_text(encoding="utf-8")
    assert f"#define SST {SST} " in text
    assert f"#define SST_REQUEST_DSCP {SstSettings().request_dscp} " in text


@pytest.fixture(scope="module")
def program() -> Iterator[Path]:
    """In a folder that is none of pytest's: each pytest that starts closes those to other users."""
    with tempfile.TemporaryDirectory(prefix="oegw-example-") as folder:
        Path(folder).chmod(0o755)  # so that nobody may run it
        assert COMPILER is not None
        made = Path(folder) / "sst"
        subprocess.run(
            [COMPILER, "-std=c99", "-D_DEFAULT_SOURCE", "-Wall", "-Wextra", "-Werror", "-pedantic",
             "-o", str(made), str(EXAMPLE)],
            check=True,
        )  # fmt: skip
        yield made


def echoed(host: SstHost, program: Path, address: str, how: str) -> list[str]:
    return host.run(sys.executable, "-c", _ECHO, how, address, str(program), str(NOBODY)).split()


@needs_compiler
@pytest.mark.netns
@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("how", ["", "-u"], ids=["tcp", "udp"])
def test_sst_24_example_asks_by_socket_option(
    host: SstHost, program: Path, address: str, how: str
) -> None:
    attachment.enable(BIT, host.group)
    assert echoed(host, program, address, how) == ["HELLO", "0"]
    asked, silent = host.counted()
    assert asked >= (1 if how else 3)
    assert silent >= 1  # the server does not ask


@needs_compiler
@pytest.mark.netns
@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("how", ["", "-u"], ids=["tcp", "udp"])
def test_sst_28_example_asks_by_code_point_where_there_is_no_option(
    host: SstHost, program: Path, address: str, how: str
) -> None:
    said = echoed(host, program, address, how)
    assert (said[0], said[-1]) == ("HELLO", "0")
    assert "point" in said
    assert host.counted_code_points() >= (1 if how else 3)
