"""Reads what there is to know of the box: netlink, /proc, rules.  Changes nothing."""

from __future__ import annotations

import ctypes
import json
import os
import platform
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from ipaddress import ip_address, ip_interface
from itertools import pairwise
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute

import oegw
from oegw.doctor.box import (
    Clock,
    Kernel,
    Limits,
    Link,
    Process,
    Routing,
    RoutingRule,
    UdpSocket,
    XfrmItem,
)
from oegw.doctor.fact import Unexamined
from oegw.doctor.iptablesrules import Iptables
from oegw.doctor.nftrules import NftRules
from oegw.settings import Settings
from policy.flow import IPAddress

# Linux, <linux/if_addr.h>, <linux/neighbour.h>, <linux/rtnetlink.h>,
# <linux/fib_rules.h>, <sys/timex.h>.
_PERMANENT = 0x80
_KNOWN_NEIGHBOUR = 0x02 | 0x04 | 0x08 | 0x10 | 0x80
_UNREACHABLE = 7
_INVERT = 2
_TIMEX_SIZE, _TIMEX_STATUS, _STA_UNSYNC = 256, 40, 0x40

_FAMILIES = (socket.AF_INET, socket.AF_INET6)
_PATIENCE = 10.0  # seconds for a program that lists something; our choice
_SYSCTLS = (
    "net/ipv4/ip_forward",
    "net/ipv4/ip_no_pmtu_disc",
    "net/ipv4/conf/*/rp_filter",
    "net/ipv4/conf/*/forwarding",
    "net/ipv4/conf/*/send_redirects",
    "net/ipv4/conf/*/accept_redirects",
    "net/ipv6/conf/*/forwarding",
    "net/ipv6/conf/*/accept_ra",
    "net/ipv6/conf/*/accept_redirects",
)


def run(*command: str) -> str:
    """What a program prints.  Raises Unexamined."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE)
    except FileNotFoundError:
        raise Unexamined(f"the program {command[0]} is not installed") from None
    except subprocess.TimeoutExpired:
        raise Unexamined(f"{command[0]} does not end") from None
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["it failed"]
        raise Unexamined(f"{command[0]}: {said[0]}")
    return done.stdout


def only_root(what: str) -> None:
    if os.geteuid() != 0:
        raise Unexamined(f"only root can read {what}")


# -------------------------------------------------------------------------- netlink


def links() -> tuple[Link, ...]:
    with IPRoute() as ipr:
        lasting: dict[int, list[Any]] = {}
        lent: dict[int, list[Any]] = {}
        for each in ipr.get_addr():
            flags = each.get_attr("IFA_FLAGS") or each["flags"]
            number = each.get_attr("IFA_LOCAL") or each.get_attr("IFA_ADDRESS")
            where = lasting if flags & _PERMANENT else lent
            found = ip_interface(f"{number}/{each['prefixlen']}")
            where.setdefault(each["index"], []).append(found)
        return tuple(
            Link(
                each.get_attr("IFLA_IFNAME"),
                each.get_attr("IFLA_MTU") or 0,
                _kind(each),
                tuple(lasting.get(each["index"], ())),
                tuple(lent.get(each["index"], ())),
            )
            for each in ipr.get_links()
        )


def _kind(link: Any) -> str:
    info = link.get_attr("IFLA_LINKINFO")
    return str(info.get_attr("IFLA_INFO_KIND") or "") if info is not None else ""


def routing() -> Routing:
    rules: list[RoutingRule] = []
    tables: dict[tuple[int, int], list[str]] = {}
    refusing = set()
    neighbours: dict[tuple[str, IPAddress], None] = {}
    with IPRoute() as ipr:
        names = {link["index"]: link.get_attr("IFLA_IFNAME") for link in ipr.get_links()}
        for family, version in zip(_FAMILIES, (4, 6), strict=True):
            for each in ipr.get_rules(family=family):
                mark = each.get_attr("FRA_FWMARK") or 0
                mask = each.get_attr("FRA_FWMASK")
                rules.append(
                    RoutingRule(
                        version,
                        each.get_attr("FRA_PRIORITY") or 0,
                        each.get_attr("FRA_TABLE") or each["table"],
                        mark,
                        (0xFFFFFFFF if mark else 0) if mask is None else mask,
                        each.get_attr("FRA_PROTOCOL") or 0,
                        bool(each["flags"] & _INVERT),
                    )
                )
            for each in ipr.get_routes(family=family):
                if each["dst_len"] == 0 and each["family"] == family:
                    key = version, each.get_attr("RTA_TABLE") or each["table"]
                    if each["type"] == _UNREACHABLE:
                        refusing.add(key)
                    name = names.get(each.get_attr("RTA_OIF"))
                    tables.setdefault(key, []).extend([name] if name else [])
            for each in ipr.get_neighbours(family=family):
                address = each.get_attr("NDA_DST")
                if address and each["state"] & _KNOWN_NEIGHBOUR and each["ifindex"] in names:
                    neighbours[names[each["ifindex"]], ip_address(address)] = None
    return Routing(
        tuple(rules),
        {key: tuple(found) for key, found in tables.items()},
        frozenset(refusing),
        tuple(neighbours),
    )


# ---------------------------------------------------------------------------- rules


def nftables() -> NftRules:
    """Without the elements of named sets, of which there may be a hundred thousand."""
    only_root("packet rules")
    return NftRules(json.loads(run("nft", "--json", "--terse", "list", "ruleset")))


def iptables() -> tuple[Iptables, ...]:
    """Of both back ends, as far as each has rules; no program, no rules of its."""
    only_root("packet rules")
    found: dict[tuple[str, bool], Iptables] = {}
    for program in ("iptables", "ip6tables"):
        for variant in (program, f"{program}-legacy"):
            legacy = variant != program
            if shutil.which(f"{variant}-save") is None or (legacy and not _has_legacy(program)):
                continue
            listing = run(f"{variant}-save")
            is_legacy = legacy or "(legacy)" in listing.partition("\n")[0]
            found.setdefault((program, is_legacy), Iptables(variant, listing))
    return tuple(found.values())


def _has_legacy(program: str) -> bool:
    """To list a table of the old back end would load it."""
    names = "ip_tables_names" if program == "iptables" else "ip6_tables_names"
    try:
        return bool(Path("/proc/thread-self/net", names).read_text().split())
    except OSError:
        return False


def xfrm() -> tuple[XfrmItem, ...]:
    only_root("IPsec policies")
    return (
        *xfrm_items("policy", run("ip", "xfrm", "policy")),
        *xfrm_items("state", run("ip", "xfrm", "state", "list", "nokeys")),
    )


def xfrm_items(what: str, listing: str) -> Iterator[XfrmItem]:
    """An item begins in the first column; those of sockets go with their process."""
    items: list[list[str]] = []
    for line in listing.splitlines():
        if line[:1].isspace() and items:
            items[-1].append(line.strip())
        elif line.strip():
            items.append([line.strip()])
    for first, *more in items:
        words = " ".join(more).split()
        number = int(words[words.index("if_id") + 1], 0) if "if_id" in words else 0
        if what == "policy":
            if "socket" in words[:1]:
                continue
            first += f" dir {words[words.index('dir') + 1]}" if "dir" in words else ""
        else:
            known = dict(pairwise(words))
            first += f" proto {known.get('proto', 'esp')} spi {known.get('spi', '0')}"
        if number and what == "policy":  # a state is known without it
            first += f" if_id {number:#x}"
        yield XfrmItem(what, first, number)


# ------------------------------------------------------------------------ processes


def processes() -> dict[int, Process]:
    """Those of this network namespace: others have sockets and rules of their own."""
    here = Path("/proc/thread-self/ns/net").stat().st_ino
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if (entry / "ns/net").stat().st_ino != here:
                continue
            name = (entry / "comm").read_text().strip()
            words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            group = (entry / "cgroup").read_text()
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue  # it has ended, or is somebody else's
        number = int(entry.name)
        units = [word for word in group.strip().split("/") if word.endswith(".service")]
        found[number] = Process(
            number, name, tuple(filter(None, words)), units[-1] if units else "", parent
        )
    return found


def sockets(ports: tuple[int, ...], everybody: dict[int, Process]) -> tuple[UdpSocket, ...]:
    """Who is bound to these ports by UDP."""
    found: dict[str, tuple[str, int]] = {}
    for name in ("udp", "udp6"):
        try:
            lines = Path("/proc/thread-self/net", name).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            address, port = fields[1].split(":")
            if int(port, 16) in ports:
                found[fields[9]] = (_address(address), int(port, 16))
    owners: dict[str, list[Process]] = {}
    for process in everybody.values() if found else ():
        try:
            for file in Path(f"/proc/{process.number}/fd").iterdir():
                inode = str(file.readlink()).removeprefix("socket:[").removesuffix("]")
                if inode in found:
                    owners.setdefault(inode, []).append(process)
        except OSError:
            continue
    return tuple(
        UdpSocket(address, port, tuple(owners.get(inode, ())))
        for inode, (address, port) in found.items()
    )


def _address(text: str) -> str:
    """As /proc has it: 32-bit numbers in the order of this machine."""
    octets = b"".join(bytes.fromhex(text[n : n + 8])[::-1] for n in range(0, len(text), 8))
    return str(ip_address(octets))


# ---------------------------------------------------------------------- kernel, clock


def sysctls() -> dict[str, str]:
    """By name with dots, as `sysctl` writes them; interfaces may have dots of their own."""
    root = Path("/proc/sys")
    found = {}
    for pattern in _SYSCTLS:
        for path in root.glob(pattern):
            try:
                found[path.relative_to(root).as_posix()] = path.read_text().strip()
            except OSError:
                continue
    if not found:
        raise Unexamined("/proc/sys can't be read")
    return found


def kernel(settings: Settings, daemon_runs: bool) -> Kernel:
    """What a daemon that runs has found out is not tried once more."""
    from oegw.datapath.userspace.core.choice import what_is_missing
    from oegw.datapath.xfrm.probe import shortcoming
    from oegw.datapath.xfrm.settings import XfrmSettings
    from oegw.sst import SstUnavailable, enabled

    node, no_tun = Path("/dev/net/tun"), ""
    try:
        os.close(os.open(node, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        no_tun = f"{node}: {error.strerror}"
    no_esp, no_queue = "", ""
    if not daemon_runs:
        only_root("what the kernel can do")
        if settings.datapath.datapath != "userspace":
            interface_id = settings.datapath.interface_id
            no_esp = shortcoming(XfrmSettings(interface_id=interface_id)) or ""
        no_queue = _no_queue()
    no_option = ""
    if settings.encrypts_ports:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as trial:
            try:
                enabled(trial)
            except SstUnavailable as error:
                no_option = error.strerror or str(error)
    return Kernel(
        platform.release(), no_tun, node.exists(), no_esp, no_queue,
        what_is_missing() or "", no_option,
    )  # fmt: skip


def _no_queue() -> str:
    """The iptables rule is tried in a network namespace that ends with the trial."""
    from oegw.intercept.interface import OWN_TABLE, InterceptError
    from oegw.intercept.jump import has_nft_queue
    from oegw.intercept.nft import Nft

    try:
        nft = Nft()
        try:
            if has_nft_queue(nft, OWN_TABLE):
                return ""
        finally:
            nft.close()
    except InterceptError as error:
        return str(error)
    words = ("-t", "mangle", "-A", "OUTPUT", "-j", "NFQUEUE", "--queue-num", "1")
    try:
        run("unshare", "--net", "iptables", *words)
    except Unexamined as error:
        return f"nftables has no queue, and {error}"
    return ""


def clock(configuration: Path, key: Path) -> Clock:
    """No right clock is behind the last change of what we have on this box."""
    files = {
        "this program was installed": Path(oegw.__file__),
        "the configuration was written": configuration,
        "the key was made": key,
    }
    moments = {}
    for what, path in files.items():
        try:
            moments[what] = path.stat().st_mtime
        except OSError:
            continue
    evidence = max(moments, key=lambda each: moments[each])
    state = ctypes.create_string_buffer(_TIMEX_SIZE)
    ctypes.CDLL(None).adjtimex(state)
    flags = int.from_bytes(state.raw[_TIMEX_STATUS : _TIMEX_STATUS + 4], "little")
    return Clock(time.time(), moments[evidence], evidence, not flags & _STA_UNSYNC)


def limits() -> Limits:
    def number(path: str) -> int | None:
        try:
            return int(Path("/proc/sys/net", path).read_text())
        except (OSError, ValueError):
            return None

    return Limits(
        number("core/rmem_max"),
        number("netfilter/nf_conntrack_count"),
        number("netfilter/nf_conntrack_max"),
    )
