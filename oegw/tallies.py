"""What the counters of a status say in sum: drops by place and trigger, packets by their way.

Pure; for `oegw top`, `oegw metrics` and whoever wants to know what was dropped.
"""

from __future__ import annotations

from collections.abc import Mapping

# Counters of the interception that are packets dropped, or refused with an answer.
_INTERCEPTED = ("denied", "refused", "unencrypted_refused")


def drops(counters: Mapping[str, int]) -> dict[tuple[str, str], int]:
    """Packets, messages and answers that were dropped, by where and why."""
    found: dict[tuple[str, str], int] = {}
    for name, number in counters.items():
        where, dot, rest = name.partition(".")
        if not dot:
            continue
        if rest.startswith("drop."):
            trigger = rest.removeprefix("drop.")
        elif where == "datapath" and rest.startswith("drop_"):
            trigger = rest.removeprefix("drop_")
        elif where == "intercept" and (rest.endswith("_dropped") or rest in _INTERCEPTED):
            trigger = rest.removesuffix("_dropped")
        elif where == "sst" and rest.startswith("plane.") and rest.endswith("_dropped"):
            trigger = rest.removeprefix("plane.").removesuffix("_dropped")
        else:
            continue
        found[where, trigger] = found.get((where, trigger), 0) + number
    return found


def ways(counters: Mapping[str, int]) -> dict[str, tuple[int, int]]:
    """Packets and octets: encrypted ``in`` and ``out``, and ``clear``, outwards."""
    packets = counters.get("intercept.clear_outbound", 0)
    stopped = counters.get("intercept.guard_dropped", 0)
    return {
        **{
            way: (
                counters.get(f"datapath.esp_{way}_packets", 0),
                counters.get(f"datapath.esp_{way}_octets", 0),
            )
            for way in ("in", "out")
        },
        "clear": (max(0, packets - stopped), counters.get("intercept.clear_outbound_octets", 0)),
    }
