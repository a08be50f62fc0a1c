"""Sockets that say themselves that nothing of theirs may leave in clear.  Pure.

A process of this box sets a mark of one bit (SO_MARK, which takes CAP_NET_ADMIN).  What has it and
would leave by an outside interface goes through the same queue and the same verdicts as all else;
when they are done, it is on its way into the tunnel, or it is refused: at once, with ICMP, so that
whoever asked for the connection learns it now and not after a minute.  The guard drops what
gets past that.

The mark that the guard looks for stands in a set, where such a process can read it: it sends
nothing while the set is not there, or has another mark.
"""

from __future__ import annotations

from oegw.intercept.interface import InterceptError, InterceptSettings, Marks

SET = "encrypted_mark"

COUNTERS = {
    "unencrypted_refused": "packets of this box that must be encrypted, refused without a tunnel",
    "unencrypted_dropped": "packets that must be encrypted and were about to leave in clear",
}


def check(settings: InterceptSettings) -> None:
    """Raises InterceptError for a mark that can't work."""
    mark = settings.encrypted_mark
    if not 0 < mark < 1 << 32 or mark & (mark - 1):
        raise InterceptError(f"encrypted_mark {mark:#x} must be one bit of 32")
    if mark & (settings.mark_mask | settings.assurance_mask):
        raise InterceptError("encrypted_mark is a bit of mark_mask or assurance_mask")


def declaration(settings: InterceptSettings) -> str:
    return (
        f"  set {SET} {{ type mark; flags constant; "
        f"elements = {{ {settings.encrypted_mark:#x} }}; }}\n"
    )


def refusal(*, nft_reject: bool) -> str:
    """The end of it.  There is no limit as there is for others' packets: this answer goes to a
    process of this box, and leaves it never."""
    last = "reject with icmpx type admin-prohibited" if nft_reject else "drop"
    return f"  chain unencrypted {{\n    counter name unencrypted_refused {last}\n  }}\n"


def refused(settings: InterceptSettings) -> str:
    """The rule for what is denied anyway: not in silence."""
    return f"{_is_demanded(settings)} goto unencrypted"


def undecided(settings: InterceptSettings, outside: str) -> str:
    """Behind the queue: whatever is not for the tunnel, and would leave by ``outside``.

    The trap mark says here that a packet has left the queue to be refused.
    """
    marks = Marks(settings.mark_mask)
    mask = settings.mark_mask | settings.encrypted_mark
    clear = ", ".join(f"{settings.encrypted_mark | bits:#x}" for bits in (0, marks.trap))
    return f"oifname {outside} meta mark & {mask:#x} {{ {clear} }} goto unencrypted"


def guard(settings: InterceptSettings) -> str:
    return f"{_is_demanded(settings)} counter name unencrypted_dropped drop"


def _is_demanded(settings: InterceptSettings) -> str:
    return f"meta mark & {settings.encrypted_mark:#x} @{SET}"
