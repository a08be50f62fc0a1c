"""From the application to the public link: who asks is sealed, by a real plane and real sockets.

The gateway's policy asks for nothing.  Its processes are in a control group of their own; the host
inside has nothing of ours.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from oegw.sst.asking import attachment, cgroups
from oegw.sst.packet import open_sealed
from oegw.sst.place import place_of
from oegw.sst.settings import Request, SstSettings
from tests.support.intercept_net import PEER, PEER6, Net, Udp, wait_for, within
from tests.support.sst_host import APPLICATION, BIT, ROOT, cgroup_mount
from tests.support.sst_plane import KEY, SIGNAL, both, off, running, settings

pytestmark = pytest.mark.netns

PORT = 7000
PEERS = pytest.mark.parametrize("peer", [PEER, PEER6], ids=["ipv4", "ipv6"])
IPV6_TCLASS = 67


@pytest.fixture
def net() -> Iterator[Net]:
    with Net() as net:
        yield net


@pytest.fixture
def group(tmp_path: Path) -> Iterator[Path]:
    """What runs on the gateway, without the option."""
    mount = cgroup_mount(tmp_path)
    group = mount / f"oegwr{tmp_path.name}"
    group.mkdir()
    try:
        yield group
    finally:
        for each in sorted(cgroups.groups(group), reverse=True):
            assert cgroups.remove_run_group(each), "a process was left behind"
        if mount == tmp_path:
            subprocess.run(["umount", str(mount)], check=True)


def run(net: Net, namespace: str, group: Path | None, *command: str) -> str:
    def join() -> None:
        if group is not None:
            (group / "cgroup.procs").write_text("0")

    done = subprocess.run(
        ["nsenter", f"--net=/run/netns/{namespace}", f"--wdns={ROOT}", *command],
        preexec_fn=join, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def application(net: Net, namespace: str, group: Path | None, peer: str, text: str) -> Any:
    beginning = f"{APPLICATION}\npeer = {peer!r}\nport = {PORT}\ndrop()\n"
    beginning += "family = socket.AF_INET6 if ':' in peer else socket.AF_INET\n"
    said = run(net, namespace, group, sys.executable, "-c", f"{beginning}{text}")
    return json.loads(said) if said else None


class Link:
    """What is on the public link, towards the peer, of TCP and UDP."""

    def __init__(self, net: Net, peer: str) -> None:
        self._capture = net.capture(net.outside, "out0")
        self._peer = peer

    def packets(self, count: int) -> list[bytes]:
        def enough() -> list[bytes] | None:
            found = [each for each in self._capture.to(self._peer) if _ported(each)]
            return found if len(found) >= count else None

        return wait_for(enough)

    def ports(self, count: int) -> list[tuple[bool, int]]:
        """Of each packet, whether it is flagged, and the destination port that is behind that."""
        found = []
        for packet in self.packets(count):
            flagged = SIGNAL.flagged(packet)
            port = place_of(packet).destination_port
            assert port is not None
            if flagged:
                assert port != PORT
                port = place_of(open_sealed(packet, KEY, SIGNAL)).destination_port
            found.append((flagged, port or 0))
        return found

    def close(self) -> None:
        self._capture.close()


def _ported(packet: bytes) -> bool:
    return packet[9 if packet[0] >> 4 == 4 else 6] in (socket.IPPROTO_TCP, socket.IPPROTO_UDP)


@pytest.fixture
def links() -> Iterator[list[Link]]:
    made: list[Link] = []
    yield made
    for each in made:
        each.close()


def listening(net: Net, links: list[Link], peer: str) -> Link:
    links.append(Link(net, peer))
    return links[0]


def words(far: Udp, count: int) -> list[str]:
    """What has come, in alphabetical order: several sockets' packets may overtake each other."""
    came: list[str] = []
    wait_for(lambda: len(came) >= count or came.extend(far.receive(0.05)))
    return sorted(came)


@PEERS
def test_sst_24_datagrams_of_a_socket_that_asks_leave_sealed_and_others_do_not(
    net: Net, group: Path, links: list[Link], peer: str
) -> None:
    attachment.enable(BIT, group)
    far = net.udp(net.outside, peer, PORT)
    with both(net, off()):
        link = listening(net, links, peer)
        text = """
for asks in (True, False, True):
    s = socket.socket(family, socket.SOCK_DGRAM)
    sst.enable(s, asks)
    s.sendto(b"asks" if asks else b"does not", (peer, port))
"""
        application(net, net.gateway, group, peer, text)
        assert sorted(link.ports(3)) == [(False, PORT), (True, PORT), (True, PORT)]
        assert words(far, 3) == ["asks", "asks", "does not"]
    far.close()


@PEERS
def test_sst_25_connection_of_tcp_is_sealed_from_its_first_packet_to_its_last(
    net: Net, group: Path, links: list[Link], peer: str
) -> None:
    attachment.enable(BIT, group)
    far = within(net.outside, lambda: socket.create_server(
        (peer, PORT), family=socket.AF_INET6 if ":" in peer else socket.AF_INET))  # fmt: skip
    with both(net, off()):
        link = listening(net, links, peer)
        answered = threading.Thread(target=echo_once, args=(far,))
        answered.start()
        text = """
s = socket.socket(family)
sst.enable(s)
s.connect((peer, port))
s.sendall(b"hello")
said = s.recv(100).decode()
s.close()
say(said)
"""
        assert application(net, net.gateway, group, peer, text) == "HELLO"
        answered.join()
        found = link.ports(4)
        assert set(found) == {(True, PORT)}
    far.close()


def echo_once(server: socket.socket) -> None:
    there, _ = server.accept()
    there.sendall(there.recv(100).upper())
    there.close()


@PEERS
def test_sst_26_cleared_in_the_middle_a_flow_goes_on_sealed_and_new_ones_do_not(
    net: Net, group: Path, links: list[Link], peer: str
) -> None:
    attachment.enable(BIT, group)
    far = net.udp(net.outside, peer, PORT)
    with both(net, off()):
        link = listening(net, links, peer)
        text = """
s = socket.socket(family, socket.SOCK_DGRAM)
sst.enable(s)
s.sendto(b"one", (peer, port))
said = [s.recv(100).decode()]
sst.enable(s, False)
s.sendto(b"two", (peer, port))
said += [s.recv(100).decode(), sst.enabled(s)]
s.sendto(b"three", (peer, port + 1))
say(said)
"""
        answered = threading.Thread(target=echo_datagrams, args=(far.socket, 2))
        answered.start()
        said = application(net, net.gateway, group, peer, text)
        answered.join()
        assert said == ["ONE", "TWO", False]
        assert link.ports(3) == [(True, PORT), (True, PORT), (False, PORT + 1)]
    far.close()


def echo_datagrams(server: socket.socket, count: int) -> None:
    server.settimeout(20)
    for _ in range(count):
        octets, address = server.recvfrom(100)
        server.sendto(octets.upper(), address)


@PEERS
def test_sst_27_program_that_knows_nothing_of_it_is_sealed_by_oegw_sst_run(
    net: Net, group: Path, links: list[Link], peer: str
) -> None:
    far = net.udp(net.outside, peer, PORT)
    program = (
        "import socket, sys; f = socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET;"
        "socket.socket(f, socket.SOCK_DGRAM).sendto(b'x', (sys.argv[1], int(sys.argv[2])))"
    )
    plain = (sys.executable, "-c", program, peer, str(PORT))
    with both(net, off()):
        link = listening(net, links, peer)
        run(net, net.gateway, group, sys.executable, "-m", "oegw", "sst", "run", "--", *plain)
        run(net, net.gateway, group, *plain)
        assert link.ports(2) == [(True, PORT), (False, PORT)]
        assert words(far, 2) == ["x", "x"]
    far.close()


@PEERS
@pytest.mark.parametrize("by", ["tcp", "udp"])
def test_sst_28_host_inside_asks_by_its_code_point(
    net: Net, links: list[Link], peer: str, by: str
) -> None:
    """Which is not seen outside; what does not ask leaves in clear."""
    code_point = SstSettings().request_dscp
    far = within(net.outside, lambda: socket.create_server(
        (peer, PORT), family=socket.AF_INET6 if ":" in peer else socket.AF_INET))  # fmt: skip
    with both(net, off()):
        link = listening(net, links, peer)
        text = f"""
by_tcp = {by == "tcp"}
for code_point in ({code_point}, 0):
    s = socket.socket(family, socket.SOCK_STREAM if by_tcp else socket.SOCK_DGRAM)
    if family == socket.AF_INET6:
        s.setsockopt(IPV6, {IPV6_TCLASS}, code_point << 2)
    else:
        s.setsockopt(IP, socket.IP_TOS, code_point << 2)
    s.connect((peer, port))
    s.send(b"x")
    s.close()
"""
        application(net, net.inside, None, peer, text)
        found = link.ports(2 if by == "udp" else 6)
        assert set(found) == {(True, PORT), (False, PORT)}
        assert found.count((True, PORT)) >= (1 if by == "udp" else 3)
        assert code_point not in map(code_point_of, link.packets(1))
    far.close()


def code_point_of(packet: bytes) -> int:
    return (packet[1] if packet[0] >> 4 == 4 else (packet[0] << 4 | packet[1] >> 4) & 0xFF) >> 2


def test_way_of_asking_that_is_not_open_is_not_heard(
    net: Net, group: Path, links: list[Link]
) -> None:
    attachment.enable(BIT, group)
    given = settings(requests=(Request.DSCP,))
    with running(net.gateway, off(), given), running(net.outside, off()):
        link = listening(net, links, PEER)
        text = "s = socket.socket(family, socket.SOCK_DGRAM); sst.enable(s)\n"
        text += "s.sendto(b'x', (peer, port))\n"
        application(net, net.gateway, group, PEER, text)
        assert link.ports(1) == [(False, PORT)]
