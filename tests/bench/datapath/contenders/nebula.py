"""nebula (AES-256-GCM), whose certificates name the network behind each gateway."""

from __future__ import annotations

import json

from tests.bench.datapath.contender import Contender, Standing
from tests.bench.datapath.row import NETWORK, OTHER, OUTSIDE, SIDES
from tests.interop.processes import call

_OWN = {"a": "10.9.0.1", "b": "10.9.0.2"}
_MTU = 1420
_ANY = [{"port": "any", "proto": "any", "host": "any"}]


def _begin(standing: Standing) -> None:
    folder = standing.folder
    ca = ["-out-crt", str(folder / "ca.crt"), "-out-key", str(folder / "ca.key")]
    call(None, "nebula-cert", "ca", "-name", "bench", *ca)
    for side in SIDES:
        call(
            None, "nebula-cert", "sign", "-name", f"sg{side}", "-ip", f"{_OWN[side]}/24",
            "-subnets", NETWORK[side],
            "-ca-crt", str(folder / "ca.crt"), "-ca-key", str(folder / "ca.key"),
            "-out-crt", str(folder / f"{side}.crt"), "-out-key", str(folder / f"{side}.key"),
        )  # fmt: skip
        other = OTHER[side]
        route = {"route": NETWORK[other], "via": _OWN[other], "mtu": _MTU}
        configuration = {
            "pki": {
                "ca": str(folder / "ca.crt"),
                "cert": str(folder / f"{side}.crt"),
                "key": str(folder / f"{side}.key"),
            },
            "static_host_map": {_OWN[other]: [f"{OUTSIDE[other]}:4242"]},
            "lighthouse": {"am_lighthouse": False},
            "listen": {"host": OUTSIDE[side], "port": 4242},
            "tun": {"dev": "nebula0", "mtu": _MTU, "unsafe_routes": [route]},
            "logging": {"level": "warning"},
            "firewall": {"outbound": _ANY, "inbound": _ANY},
        }
        # JSON is YAML.
        (folder / f"{side}.yml").write_text(json.dumps(configuration))
    for side in SIDES:
        standing.start(side, ["nebula", "-config", str(folder / f"{side}.yml")])


NEBULA = (
    Contender(
        "nebula", "nebula, AES-256-GCM", _begin, ("nebula", "nebula-cert"), ("nebula", "-version")
    ),
)
