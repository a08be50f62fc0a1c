"""What the kernel offers, and the compiled core."""

from __future__ import annotations

import re
from collections.abc import Iterator

from oegw.doctor.facts import Facts
from oegw.doctor.finding import NOTE, PROBLEM, WARNING, Finding, Kind, Shell
from oegw.sst.settings import Request

NO_TUN = Kind(
    "kernel-no-tun",
    PROBLEM,
    "there is no TUN device",
    "ESP in user space gets its packets by it",
    "{mend}",
)
NO_ESP = Kind(
    "kernel-no-esp",
    NOTE,
    "the kernel does not carry ESP for us; a problem where the configuration demands that it does",
    "processes of ours do it in user space, at the cost of CPU time",
    "modprobe -a esp4 esp6 xfrm_interface",
)
NO_QUEUE = Kind(
    "kernel-no-queue",
    PROBLEM,
    "packets can't be queued for the gateway, neither by nftables nor by iptables",
    "no first packet is seen, so no tunnel begins",
    "modprobe -a nfnetlink_queue nft_queue xt_NFQUEUE xt_mark xt_comment",
)
OLD = Kind(
    "kernel-old",
    WARNING,
    "the kernel is older than any that the gateway is tested on",
    "what it lacks may show only under load",
    "apt-get install linux-image-amd64",
)
NO_CORE = Kind(
    "core-missing",
    WARNING,
    "the compiled core of the datapath is not there; a problem where the configuration demands it",
    "ESP in user space is done by Python, many times slower",
    "apt-get install build-essential python3-dev libssl-dev && "
    "pip install --force-reinstall --no-deps oegw",
)
NO_OPTION = Kind(
    "ports-option-missing",
    NOTE,
    "ports are encrypted, and applications of this host have no socket option to ask for it",
    "only hosts inside, and the policy, can ask",
    "oegw sst enable",
)
KINDS = (NO_TUN, NO_ESP, NO_QUEUE, OLD, NO_CORE, NO_OPTION)

OLDEST = (5, 10)  # Debian 11; our choice


def look(facts: Facts) -> Iterator[Finding]:
    kernel, wanted = facts.kernel(), facts.settings.datapath
    userspace = wanted.datapath == "userspace" or bool(kernel.no_esp)
    status = facts.daemon().status
    if status is not None and wanted.datapath == "auto":
        userspace = (status.get("datapath") or {}).get("name") == "userspace"
    number = re.match(r"(\d+)\.(\d+)", kernel.release)
    if number and (int(number[1]), int(number[2])) < OLDEST:
        yield OLD.found(f"Linux {kernel.release}")
    if kernel.no_esp:
        severity = PROBLEM if wanted.datapath == "kernel" else NOTE
        yield NO_ESP.found(kernel.no_esp, severity)
    if kernel.no_tun and userspace:
        node = "mkdir -p /dev/net && mknod -m 666 /dev/net/tun c 10 200"
        mend = Shell("modprobe tun" if kernel.tun_node else node)
        yield NO_TUN.found(kernel.no_tun, mend=mend)
    if kernel.no_queue:
        yield NO_QUEUE.found(kernel.no_queue)
    if kernel.no_core and userspace and wanted.core != "python":
        severity = PROBLEM if wanted.core == "compiled" else WARNING
        yield NO_CORE.found(kernel.no_core, severity)
    if kernel.no_ports_option and Request.SOCKET in facts.settings.sst.requests:
        yield NO_OPTION.found(kernel.no_ports_option)
