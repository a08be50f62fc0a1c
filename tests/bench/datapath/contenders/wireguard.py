"""wireguard-go: its own configuration protocol is spoken, so that `wg` is not needed."""

from __future__ import annotations

import os
import socket
from functools import partial
from ipaddress import ip_network
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from tests.bench.datapath.contender import Contender, Standing
from tests.bench.datapath.row import MANY, NETWORK, OTHER, OUTSIDE, SIDES
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


def _device(standing: Standing, side: str) -> str:
    """Its name is the one of a socket as well, which all namespaces share."""
    return f"wg{os.getpid()}{side}{standing.row.identifier.rpartition('-')[2]}"


def _begin(binary: str, standing: Standing) -> None:
    keys = {side: X25519PrivateKey.generate() for side in SIDES}
    for side in SIDES:
        other = OTHER[side]
        device = _device(standing, side)
        path = _SOCKETS / f"{device}.sock"
        standing.stack.callback(path.unlink, missing_ok=True)
        standing.start(side, [binary, "-f", device], {"LOG_LEVEL": "error"})
        wait_until("wireguard-go's socket", path.exists)
        _configure(
            device,
            f"private_key={keys[side].private_bytes_raw().hex()}",
            f"listen_port={_PORT}",
            f"public_key={keys[other].public_key().public_bytes_raw().hex()}",
            f"endpoint={OUTSIDE[other]}:{_PORT}",
            f"allowed_ip={NETWORK[other]}",
        )
        standing.row.ip(
            standing.row.gateway(side),
            f"link set {device} mtu {_MTU} up",
            f"route add {NETWORK[other]} dev {device}",
        )


def _more_peers(standing: Standing, count: int) -> None:
    first = ip_network(MANY)[0]
    lines = []
    for number in range(count):
        public = X25519PrivateKey.generate().public_key().public_bytes_raw().hex()
        lines += [f"public_key={public}", f"allowed_ip={first + number}/32"]
    _configure(_device(standing, "a"), *lines)


def wireguard(name: str, title: str, binary: str) -> Contender:
    begin, version = partial(_begin, binary), (binary, "--version")
    return Contender(name, title, begin, (binary,), version, crowd=_more_peers)


WIREGUARD = (wireguard("wireguard-go", "wireguard-go", "wireguard-go"),)
