"""tinc 1.0 as Debian has it, with its own choice of cipher (AES-256-CBC, SHA-256)."""

from __future__ import annotations

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.bench.datapath.contender import Contender, Standing
from tests.bench.datapath.row import NETWORK, OTHER, OUTSIDE, SIDES

_UP = """#!/bin/sh
ip link set $INTERFACE up
ip route add {network} dev $INTERFACE
"""


def _begin(standing: Standing) -> None:
    keys = {side: rsa.generate_private_key(65537, 2048) for side in SIDES}
    pem = serialization.Encoding.PEM
    for side in SIDES:
        folder = standing.side_folder(side)
        (folder / "hosts").mkdir()
        for each in SIDES:
            public = keys[each].public_key().public_bytes(pem, serialization.PublicFormat.PKCS1)
            (folder / "hosts" / f"sg{each}").write_text(
                f"Address = {OUTSIDE[each]}\nSubnet = {NETWORK[each]}\n{public.decode()}"
            )
        private = folder / "rsa_key.priv"
        private.touch(mode=0o600)
        private.write_bytes(
            keys[side].private_bytes(
                pem,
                serialization.PrivateFormat.TraditionalOpenSSL,
                serialization.NoEncryption(),
            )
        )
        (folder / "tinc.conf").write_text(
            f"Name = sg{side}\nConnectTo = sg{OTHER[side]}\nInterface = tinc0\n"
            "DeviceType = tun\nMode = router\nAddressFamily = ipv4\n"
        )
        up = folder / "tinc-up"
        up.write_text(_UP.format(network=NETWORK[OTHER[side]]))
        up.chmod(0o755)
        pid = folder / "pid"
        standing.start(side, ["tincd", "-D", "-c", str(folder), f"--pidfile={pid}"])


TINC = (Contender("tinc", "tinc", _begin, ("tincd",), ("tincd", "--version")),)
