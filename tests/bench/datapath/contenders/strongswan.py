"""strongSwan with ESP in user space (kernel-libipsec), set up as `tests/interop` does it."""

from __future__ import annotations

from functools import partial

from tests.bench.datapath.contender import Contender, Standing
from tests.bench.datapath.row import INSIDE, NETWORK, OTHER, OUTSIDE, SIDES
from tests.interop.processes import wait_until
from tests.interop.strongswan import CHARON, StrongSwan
from tests.interop.terms import KeyPair, Party, Terms

_PLUGIN = "/usr/lib/ipsec/plugins/libstrongswan-kernel-libipsec.so"


def _begin(phase2: str, standing: Standing) -> None:
    parties = {
        side: Party(OUTSIDE[side], OUTSIDE[side], OUTSIDE[side], NETWORK[side], KeyPair.make())
        for side in SIDES
    }
    terms = Terms(
        parties["a"], parties["b"], "aes128-sha256-modp2048", phase2, None, encapsulation="udp"
    )
    ends = {}
    for side in SIDES:
        other = OTHER[side]
        ends[side] = StrongSwan(
            standing.row.gateway(side), standing.side_folder(side), "kernel-libipsec",
            NETWORK[other], INSIDE[side], OUTSIDE[other],
        )  # fmt: skip
        ends[side].configure(terms if side == "a" else terms.mirrored())
        standing.stack.callback(ends[side].stop)
        ends[side].start()
        process = ends[side].process
        assert process is not None
        standing.adopt(side, process)
    ends["a"].initiate()
    wait_until("strongSwan's tunnel", lambda: ends["a"].agreed() and ends["b"].agreed())


STRONGSWAN = tuple(
    Contender(
        name, f"strongSwan, {title}", partial(_begin, phase2),
        (CHARON, "swanctl", _PLUGIN), ("swanctl", "--version"),
    )
    for name, title, phase2 in (
        ("strongswan", "AES-128-GCM", "aes128gcm16"),
        ("strongswan-cbc", "AES-128-CBC + SHA2-256", "aes128-sha256"),
    )
)  # fmt: skip
