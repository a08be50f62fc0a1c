"""Plain forwarding: the ceiling, with the kernel's segmentation offloads and without them."""

from __future__ import annotations

from tests.bench.datapath.contender import Contender, Standing


def _with_offloads(standing: Standing) -> None:
    standing.row.connect_in_clear()


def _without_offloads(standing: Standing) -> None:
    standing.row.connect_in_clear()
    standing.row.without_offloads()


PLAIN = (
    Contender("plain", "plain forwarding", _with_offloads, in_clear=True),
    Contender(
        "plain-off", "plain forwarding, offloads off", _without_offloads, ("ethtool",),
        in_clear=True,
    ),
)  # fmt: skip
