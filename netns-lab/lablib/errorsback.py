"""Steps about ICMP errors: each must find the host whose packet it is about."""

from __future__ import annotations

import re
from typing import Any

from lablib.errors import LabError
from lablib.stage import Missed, Stage, check_keys

# Sends a datagram to a port where nobody listens, and waits to be told so.
_KNOCK = """
import socket, sys
knock = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)
knock.connect((sys.argv[1], int(sys.argv[2])))
knock.settimeout(float(sys.argv[3]))
knock.send(b"anybody there?")
try:
    knock.recv(1)
except ConnectionRefusedError:
    print("refused")
"""


def path_mtu(stage: Stage, step: dict[str, Any]) -> str:
    """``host`` pings ``to`` with ``size`` octets that must not be cut in pieces.

    It must be told of a smaller MTU, and one more ping, as large as that allows, is answered.
    """
    check_keys(step, {"host", "to", "size"})
    family = f"-{stage.lab.scenario.family}"
    command = ["ping", family, "-n", "-M", "do", "-W", "2", "-i", "0.2"]
    big = ["-c", "3", "-s", str(step.get("size", 1472)), step["to"]]
    said = stage.lab.run.call(step["host"], [*command, *big]).stdout
    found = re.search(r"mtu ?= ?(\d+)", said)
    if found is None:
        raise Missed(f"nobody told of an MTU: {said.strip()}")
    mtu = int(found[1])
    fitting = ["-c", "1", "-s", str(mtu - 28), step["to"]]
    said = stage.lab.run.call(step["host"], [*command, *fitting]).stdout
    if "1 received" not in said:
        raise Missed(f"told of MTU {mtu}, and that doesn't pass: {said.strip()}")
    return f"told of MTU {mtu}, which passes"


def knock(stage: Stage, step: dict[str, Any]) -> str:
    """``host`` sends a datagram to a closed UDP port of ``to``, and must be told that it is."""
    check_keys(step, {"host", "to", "port"})
    address = str(stage.lab.address(step["to"]))
    arguments = [address, str(step.get("port", 7999)), "3"]
    result = stage.lab.run.call(step["host"], ["python3", "-c", _KNOCK, *arguments])
    if result.returncode:
        raise LabError(f"knock: {result.stderr.strip()}")
    if "refused" not in result.stdout:
        raise Missed("no ICMP error came back")
    return "port unreachable"


# Sends a datagram, as large and with as few hops as it is told, and prints the ICMP error that
# the kernel gives this very socket (ip(7), IP_RECVERR): type, code, and the MTU that it tells.
_PROVOKE = """
import select, socket, struct, sys
address, port, size, hops, seconds = sys.argv[1], *map(int, sys.argv[2:5]), float(sys.argv[5])
known = sys.argv[6] == "True"
six = ":" in address
knock = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_DGRAM)
level = socket.IPPROTO_IPV6 if six else socket.IPPROTO_IP
knock.setsockopt(level, 25 if six else 11, 1)  # IPV6_RECVERR, IP_RECVERR
knock.setsockopt(level, 23 if six else 10, 3)  # MTU_DISCOVER: PROBE, don't fragment
knock.connect((address, port))
poll = select.poll()
poll.register(knock, select.POLLERR)
if known:  # the first packet of the flow has gone all the way: its error tells
    knock.send(bytes(size))
    poll.poll(1000 * seconds)
    knock.recvmsg(2000, 512, socket.MSG_ERRQUEUE)
    knock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
if hops:
    knock.setsockopt(level, socket.IPV6_UNICAST_HOPS if six else socket.IP_TTL, hops)
knock.send(bytes(size))
if not poll.poll(1000 * seconds):
    print("nothing")
else:
    _, ancillary, _, _ = knock.recvmsg(2000, 512, socket.MSG_ERRQUEUE)
    for _, _, octets in ancillary:
        number, origin, kind, code, _, told, _ = struct.unpack_from("=IBBBBII", octets)
        print(f"{kind}/{code} {told}" if origin in (2, 3) else f"local {number} {told}")
"""
UDP_ERRORS = {
    "port unreachable": ("3/3", "1/4"),
    "time exceeded": ("11/0", "3/0"),
    "too big": ("3/4", "2/0"),
}


def udp_error(stage: Stage, step: dict[str, Any]) -> str:
    """A datagram from ``host`` to ``port`` of ``to``; its socket gets the ICMP error ``result``.

    ``size`` of its payload; ``hops`` that it may take; ``mtu`` that it is told.  ``known``: an
    earlier datagram of the same flow was answered.
    """
    check_keys(step, {"host", "to", "port", "size", "hops", "known", "result", "mtu"})
    address = stage.lab.address(step["to"])
    numbers = (step.get("port", 7999), step.get("size", 20), step.get("hops", 0), 3)
    words = [*map(str, numbers), str(bool(step.get("known")))]
    command = ["python3", "-c", _PROVOKE, str(address), *words]
    result = stage.lab.run.call(step["host"], command)
    if result.returncode:
        raise LabError(f"udp-error: {result.stderr.strip()[-300:]}")
    said, _, told = result.stdout.strip().partition(" ")
    if said != UDP_ERRORS[step["result"]][address.version == 6]:
        raise Missed(f"the socket was told: {result.stdout.strip()}")
    if "mtu" in step and told != str(step["mtu"]):
        raise Missed(f"it was told of MTU {told}")
    return f"{step['result']}{f', MTU {told}' if 'mtu' in step else ''}"
