"""Steps with TCP services: which of them can be reached, by whom."""

from __future__ import annotations

import sys
from typing import Any

from lablib.errors import LabError
from lablib.stage import Missed, Stage, check_keys
from lablib.waiting import patient

# Listens on ports of all addresses, and sends each caller its address and one line.
_SERVE = """
import socketserver, sys, threading
class Greeting(socketserver.BaseRequestHandler):
    def handle(self):
        self.request.sendall(b"oegw clear text! you are " + self.client_address[0].encode())
for port in sys.argv[1:]:
    server = socketserver.ThreadingTCPServer(("", int(port)), Greeting)
    threading.Thread(target=server.serve_forever).start()
print("listening", flush=True)
"""

_CONNECT = """
import socket, sys
try:
    place, patience, source = (sys.argv[1], int(sys.argv[2])), float(sys.argv[3]), (sys.argv[4], 0)
    with socket.create_connection(place, patience, source) as caller:
        print(caller.recv(1000).decode())
except OSError as error:
    print("no:", error)
"""


def serve(stage: Stage, step: dict[str, Any]) -> str:
    """``host`` offers TCP services on ``ports`` (IPv4)."""
    check_keys(step, {"host", "ports"})
    name, ports = f"services-{step['host']}", [str(port) for port in step["ports"]]
    server = stage.lab.run.start(name, step["host"], [sys.executable, "-IS", "-c", _SERVE, *ports])
    server.await_text("listening")
    stage.background[name] = server
    return f"on {', '.join(ports)}"


def connect(stage: Stage, step: dict[str, Any]) -> str:
    """``host`` calls TCP ``port`` of ``to``; ``reached`` says whether it must get an answer.

    ``source``: from this one of the host's addresses.
    Where it must not, ``patience`` seconds are enough to believe it.
    """
    check_keys(step, {"host", "to", "source", "port", "reached", "patience"})
    lab, reached = stage.lab, step["reached"]
    seconds = patient(step.get("patience", 5.0 if reached else 1.2))
    arguments = [str(lab.address(step["to"])), str(step["port"]), str(seconds)]
    arguments.append(str(lab.address(step["source"])) if "source" in step else "")
    command = [sys.executable, "-IS", "-c", _CONNECT, *arguments]
    result = lab.run.call(step["host"], command, seconds + 10)
    if result.returncode:
        raise LabError(f"connect: {result.stderr.strip()}")
    said = result.stdout.strip()
    if said.startswith("oegw clear text!") != reached:
        raise Missed(said)
    return said
