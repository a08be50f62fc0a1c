"""fastd with the method that its documentation recommends: Salsa20/12 and UMAC."""

from __future__ import annotations

import re
from pathlib import Path

from tests.bench.datapath.contender import Contender, Standing
from tests.bench.datapath.row import NETWORK, OTHER, OUTSIDE, SIDES
from tests.interop.processes import call

_PORT = 10000
_CONFIGURATION = """
log level warn;
mode tun;
interface "fastd0";
method "salsa2012+umac";
mtu 1426;
bind {own}:{port};
secret "{secret}";
on up "ip link set fastd0 up && ip route add {network} dev fastd0";
peer "other" {{ key "{public}"; {remote} }}
"""


def _key_pair() -> dict[str, str]:
    said = call(None, "fastd", "--generate-key")
    return dict(re.findall(r"(Secret|Public): ([0-9a-f]{64})", said.stdout + said.stderr))


def _configuration(standing: Standing, side: str) -> Path:
    return standing.side_folder(side) / "fastd.conf"


def _begin(standing: Standing) -> None:
    keys = {side: _key_pair() for side in SIDES}
    for side in SIDES:
        other = OTHER[side]
        path = _configuration(standing, side)
        path.touch(mode=0o600)
        path.write_text(
            _CONFIGURATION.format(
                own=OUTSIDE[side],
                port=_PORT,
                secret=keys[side]["Secret"],
                public=keys[other]["Public"],
                network=NETWORK[other],
                # Where both begin at the same moment, each keeps another session than its peer.
                remote=f"remote {OUTSIDE[other]}:{_PORT};" if side == "a" else "",
            )
        )
    for side in reversed(SIDES):  # the one that waits is there first
        standing.start(side, ["fastd", "-c", str(_configuration(standing, side))])


FASTD = (
    Contender("fastd", "fastd, Salsa20/12 + UMAC", _begin, ("fastd",), ("fastd", "--version")),
)
