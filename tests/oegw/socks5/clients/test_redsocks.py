"""redsocks: what the kernel redirects to it goes to the server, TCP by CONNECT and UDP by UDP
ASSOCIATE.  It knows IPv4 only."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from tests.oegw.socks5.clients.bed import BOB, ECHO, LEAVING, OPEN_PORT, SERVER, Bed

pytestmark = pytest.mark.netns

STREAMS, DATAGRAMS = 12345, 12346  # its own ports

_PROXY = f"""\
  local_ip = 127.0.0.1; ip = {SERVER["4"]}; port = {OPEN_PORT};
"""
_CONFIGURATION = f"""\
base {{ log_info = on; log = "stderr"; daemon = off; redirector = iptables; }}
redsocks {{ {_PROXY} local_port = {STREAMS}; type = socks5; }}
redudp {{ {_PROXY} local_port = {DATAGRAMS}; dest_ip = {BOB["4"]}; dest_port = {ECHO}; }}
"""
_RULES = f"""\
table ip redirected {{
    chain output {{
        type nat hook output priority -100;
        ip daddr {BOB["4"]} tcp dport {ECHO} redirect to :{STREAMS}
    }}
}}
"""


@pytest.fixture(scope="module")
def redsocks(bed: Bed) -> Iterator[None]:
    configuration, rules = bed.directory / "redsocks.conf", bed.directory / "redirect.nft"
    configuration.write_text(_CONFIGURATION)
    rules.write_text(_RULES)
    command = ["redsocks", "-c", str(configuration)]
    with bed.running("alice", command, ready=[("127.0.0.1", STREAMS)]):
        bed.says("alice", "nft", "-f", str(rules))
        yield
        bed.says("alice", "nft", "delete", "table", "ip", "redirected")


@pytest.mark.usefixtures("redsocks")
def test_a_redirected_connection(bed: Bed) -> None:
    with bed.at_alice(lambda: socket.create_connection((BOB["4"], ECHO), 10)) as connection:
        assert connection.recv(100) == f"{LEAVING['4']}\n".encode()
        connection.sendall(b"over")
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(100) == b"over"
        assert connection.recv(100) == b""


@pytest.mark.usefixtures("redsocks")
def test_redirected_datagrams(bed: Bed) -> None:
    with bed.at_alice(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sock:
        sock.settimeout(10)
        for text in b"one", b"two":
            sock.sendto(text, ("127.0.0.1", DATAGRAMS))
            assert sock.recv(100) == f"{LEAVING['4']} ".encode() + text
