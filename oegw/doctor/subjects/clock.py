"""The clock: DNSSEC's signatures and the lifetimes of records are moments."""

from __future__ import annotations

import time
from collections.abc import Iterator

from oegw.doctor.facts import Facts
from oegw.doctor.finding import NOTE, PROBLEM, Finding, Kind, Shell

BEHIND = Kind(
    "clock-behind",
    PROBLEM,
    "the clock shows a time that has surely passed",
    "signatures of DNSSEC seem not to be valid yet, so that signed records count as forged",
    "{mend}",
)
FREE = Kind(
    "clock-unsynchronised",
    NOTE,
    "nobody sets the clock by the network's time",
    "it will be wrong one day, and then records that are signed count as forged",
    "{mend}",
)
KINDS = (BEHIND, FREE)

TOLERANCE = 3600.0  # seconds: file systems and time zones of a box being set up; our choice


def look(facts: Facts) -> Iterator[Finding]:
    clock, host = facts.clock(), facts.host()
    mend = Shell("timedatectl set-ntp true")
    if not host.time_service:
        mend = Shell("apt-get install systemd-timesyncd && timedatectl set-ntp true")
    if clock.now < clock.earliest - TOLERANCE:
        when = time.strftime("%Y-%m-%d %H:%M", time.gmtime(clock.earliest))
        now = time.strftime("%Y-%m-%d %H:%M", time.gmtime(clock.now))
        yield BEHIND.found(f"it shows {now} UTC, and {clock.evidence} at {when}", mend=mend)
    elif not clock.synchronised:
        yield FREE.found("the kernel says that its clock is not synchronised", mend=mend)
