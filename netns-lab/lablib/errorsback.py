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
