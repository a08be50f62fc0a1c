"""wireguard-go: its own configuration protocol is spoken, so that `wg` is not needed."""

from __future__ import annotations

import os
import socket
from functools import partial
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from tests.bench.datapath.contender import Contender, Standing
from tests.bench.datapath.row import NETWORK, OTHER, OUTSIDE, SIDES
from tests.interop.processes import InteropError, wait_until

_PORT = 51820
_MTU = 1420  # what `wg-quick` takes on a path of 1500 octets
_SOCKETS = Path("/var/run/wireguard")


def _configure(device: str, *lines: str) -> None:
    """One ``set`` of wireguard's cross-platform userspace protocol."""
    with socket.socket(socket.AF_UNIX) as control:
        control.settimeout(10)
        control.connect(str(_SOCKETS / f"{device}.sock"))
        control.sendall("\n".join(["set=1", *lines, "", ""]).encode())
        answer = control.recv(200).decode()
    if not answer.startswith("errno=0\n"):
        raise InteropError(f"wireguard-go refused its configuration: {answer!r}")


def peer_lines(public: str, *fields: str) -> list[str]:
    return [f"public_key={public}", *fields]


def _begin(binary: str, standing: Standing) -> None:
    keys = {side: X25519PrivateKey.generate() for side in SIDES}
    number = standing.row.identifier.rpartition("-")[2]
    for side in SIDES:
        other = OTHER[side]
        # The name is the one of a socket as well, which all namespaces share.
        device = f"wg{os.getpid()}{side}{number}"
        path = _SOCKETS / f"{device}.sock"
        standing.stack.callback(path.unlink, missing_ok=True)
        standing.start(side, [binary, "-f", device], {"LOG_LEVEL": "error"})
        wait_until("wireguard-go's socket", path.exists)
        _configure(
            device,
            f"private_key={keys[side].private_bytes_raw().hex()}",
            f"listen_port={_PORT}",
            *peer_lines(
                keys[other].public_key().public_bytes_raw().hex(),
                f"endpoint={OUTSIDE[other]}:{_PORT}",
                f"allowed_ip={NETWORK[other]}",
            ),
        )
        standing.row.ip(
            standing.row.gateway(side),
            f"link set {device} mtu {_MTU} up",
            f"route add {NETWORK[other]} dev {device}",
        )


def wireguard(name: str, title: str, binary: str) -> Contender:
    return Contender(name, title, partial(_begin, binary), (binary,), (binary, "--version"))


WIREGUARD = (wireguard("wireguard-go", "wireguard-go", "wireguard-go"),)
