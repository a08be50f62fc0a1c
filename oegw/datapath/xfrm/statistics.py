"""/proc/net/xfrm_stat: why the kernel dropped packets, of the whole network namespace."""

from __future__ import annotations

import re
from pathlib import Path

# Of this thread, not of the process: they may be in different namespaces.
_FILE = Path("/proc/thread-self/net/xfrm_stat")

_TRIGGERS = {
    "XfrmInNoStates": "drop_in_unknown_spi",
    "XfrmInStateSeqError": "drop_in_replay",
    "XfrmInStateProtoError": "drop_in_invalid",
    "XfrmInStateExpired": "drop_in_expired",
    "XfrmInStateMismatch": "drop_in_selectors",
    "XfrmInHdrError": "drop_in_truncated",
    "XfrmOutPolBlock": "drop_out_no_tunnel",
    "XfrmOutStateExpired": "drop_out_expired",
}
"""Those that the user-space datapath has a name for.  Others are named after the kernel's."""

_WORDS = re.compile(r"(?<=[a-z])(?=[A-Z])")


def xfrm_statistics() -> dict[str, int]:
    """By trigger; empty if this kernel counts nothing."""
    try:
        lines = _FILE.read_text(encoding="ascii").splitlines()
    except OSError:
        return {}
    counts = {}
    for line in lines:
        name, _, count = line.partition(" ")
        counts[_trigger(name.strip())] = int(count)
    return counts


def _trigger(name: str) -> str:
    words = _WORDS.sub("_", name.removeprefix("Xfrm")).lower()
    return _TRIGGERS.get(name, f"drop_{words}")
