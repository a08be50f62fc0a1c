"""Where the time goes while one TCP stream runs through a contender.

Each process's CPU time is the kernel's account of it.  What it does in that time is sampled by
perf, if there is one, on all CPUs by the timer: a virtual machine often has no other clock.
"""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.bench.accounts import Spent, descendants, machine_busy, scheduled, spent
from tests.bench.datapath.contender import Contender, Standing, program
from tests.bench.datapath.roundtrip import idle
from tests.bench.datapath.tcp import arrived, stream
from tests.interop.processes import call

_FREQUENCY = 1999  # samples a second and CPU; not in step with anything
_KTHREADD = 2  # the parent of the kernel's own threads
_TOP = 30  # functions that are listed

# What a function belongs to: the first that fits "object function".  Kernel and user space, C, Go
# and Python have their own names for the same things.
_KINDS = tuple(
    (name, re.compile(pattern, re.IGNORECASE))
    for name, pattern in (
        ("cryptography", r"libcrypto|libgmp|aes|gcm|ghash|chacha|poly1305|sha\d|blake2|umac|salsa"),
        ("checksums", r"csum|checksum"),
        ("copies", r"copy_(user|to|from|page)|_copy_|rep_movs|memcpy|memmove|memset|clear_page"),
        ("TUN", r"\btun_"),
        ("system calls", r"entry_syscall|syscall|sysret|fdget|fput|__x64_sys"
         r"|import_(iovec|ubuf)|___sys_"),
        ("scheduling and waiting", r"sched|wake|futex|poll|wait|switch|rcu|timer|hrtick|idle_cpu"
         r"|runtime\.(find|steal|park|ready|lock|unlock|select|chan|usleep|osyield|netpoll|mcall)"),
        ("memory", r"kmem|kmalloc|kfree|alloc|free_|_page|page_|slab|skb_(release|put)"
         r"|\bmalloc|\bfree|runtime\.(gc|scan|mark|sweep|heap)"),
        ("firewall and routes", r"\bnf_|\bnft_|fib_|rt_|ip_route|neigh"),
        ("network", r"\bip6?_|\b__ip_|tcp|udp|inet|sock|skb|\bdev_|netif|veth|net_rx|napi|gro|gso"
         r"|qdisc|pfifo|eth_|xmit"),
        ("locks and interrupts", r"_raw_|irq|sysvec|preempt"),
        ("Python", r"/?python3|libpython|\bPy|_Py|_struct|_socket\.|_cffi_backend|_ctypes|\[JIT\]"),
        ("cryptography's binding", r"_rust"),
        ("compiled core", r"oegw|_core|\.abi3\.so"),
    )
)  # fmt: skip
_IDLE = re.compile(r"halt|idle|mwait|cpuidle", re.IGNORECASE)
_SAMPLE = re.compile(
    r"^\s*(?P<comm>.*?)\s+(?P<pid>-?\d+)\s+(?P<ip>[0-9a-f]+)\s+(?P<function>.*?)\s+\((?P<object>.*)\)\s*$"
)


@dataclass(frozen=True, slots=True)
class Sample:
    comm: str
    pid: int
    function: str
    object: str

    @property
    def idle(self) -> bool:
        return self.pid == 0 and bool(_IDLE.search(self.function))

    @property
    def in_kernel(self) -> bool:
        return self.object.startswith("[") or self.object.endswith((".ko", "vmlinux"))

    @property
    def kind(self) -> str:
        what = f"{Path(self.object).name} {self.function}"
        for name, pattern in _KINDS:
            if pattern.search(what):
                return name
        return "kernel, other" if self.in_kernel else "user space, other"


def samples(script: str) -> Iterator[Sample]:
    """Of what ``perf script -F comm,pid,ip,sym,dso`` prints."""
    for line in script.splitlines():
        found = _SAMPLE.match(line)
        if found:
            yield Sample(found["comm"], int(found["pid"]), found["function"], found["object"])


def _command(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0")
    except OSError:
        return "?"
    shown = [Path(words[0]).name, *(w for w in words[1:] if w and not w.startswith(("-", "{")))]
    return " ".join(shown)[:60]


def profile(contender: Contender, seconds: float) -> str:
    """The report, as text."""
    with tempfile.TemporaryDirectory(prefix="oegw-profile-") as name:
        folder = Path(name)
        with contender.standing(folder) as standing:
            return f"{_one_ping(standing)}\n{_profiled(standing, folder, max(seconds, 2.0))}"


def _one_ping(standing: Standing) -> str:
    """What a ping through an idle tunnel costs each process of the gateways."""
    gateways = [(pid, side) for side in standing.programs for pid in standing.pids_of(side)]
    before = {pid: scheduled(pid) for pid, _ in gateways}
    found = idle(standing)
    text = f"{standing.name}: a ping takes {found.median * 1000:.0f} us, which is in microseconds\n"
    for pid, side in gateways:
        ran, waited, turns = (
            (new - old) / found.sent for new, old in zip(scheduled(pid), before[pid], strict=True)
        )
        if ran > 1000:
            text += (
                f"  {ran / 1000:6.0f} at work, {waited / 1000:6.0f} waiting for a CPU, "
                f"woken {turns:.1f} times  sg{side} {pid:>7}  {_command(pid)}\n"
            )
    return text


def _profiled(standing: Standing, folder: Path, seconds: float) -> str:
    record = folder / "perf.data"
    with stream(standing, seconds + 1.5) as client:
        call(None, "sleep", "0.5")
        ends = descendants(os.getpid())
        involved = {*ends, *descendants(_KTHREADD), 0}
        names = {pid: _command(pid) for pid in ends}
        gateways = {
            pid: f"sg{side}" for side in standing.programs for pid in standing.pids_of(side)
        }
        before = {pid: spent([pid]) for pid in ends}
        busy, began = machine_busy(), time.monotonic()
        perf = program("perf")
        wait = ["sleep", f"{seconds:g}"]
        if perf:
            sampled = ["record", "-q", "-a", "-e", "cpu-clock", "-F", str(_FREQUENCY)]
            call(None, perf, *sampled, "-o", str(record), "--", *wait)
        else:
            call(None, *wait)
        after = {pid: spent([pid]) for pid in ends}
        busy, took = machine_busy() - busy, time.monotonic() - began
        mbits, _ = arrived(client, seconds + 1.5)
    cpus = os.cpu_count() or 1
    text = f"{standing.name}: one TCP stream, {mbits:,.0f} Mbit/s; "
    text += f"{busy / took:.2f} of {cpus} CPUs busy\n\n"
    text += _processes({pid: after[pid] - before[pid] for pid in ends}, names, gateways, took)
    if not perf:
        return text + "\nperf is not installed: no more can be said\n"
    script = ["script", "-i", str(record), "-F", "comm,pid,ip,sym,dso"]
    found = list(samples(call(None, perf, *script).stdout))
    return text + _breakdown([each for each in found if each.pid in involved], gateways)


def _processes(
    used: dict[int, Spent], names: dict[int, str], gateways: dict[int, str], seconds: float
) -> str:
    text = "CPU of each process, of one CPU: user + system\n"
    for pid, each in sorted(used.items(), key=lambda pair: -pair[1].both):
        if each.both / seconds >= 0.01:
            text += (
                f"  {each.user / seconds:6.0%} + {each.system / seconds:6.0%}  "
                f"{gateways.get(pid, ''):<4}{pid:>8}  {names[pid]}\n"
            )
    return text


def _breakdown(found: list[Sample], gateways: dict[int, str]) -> str:
    at_work = [each for each in found if not each.idle]
    if not at_work:
        return "\nperf took no samples\n"
    text = f"\n{len(at_work):,} samples of work, {len(found) - len(at_work):,} of idling; "
    text += "of other programs none is counted\n"
    ours = [each for each in at_work if each.pid in gateways]
    for title, part in (("of all work", at_work), ("of the gateways' processes", ours)):
        text += f"\nwhat {title} is, of {len(part):,}\n"
        for kind, count in Counter(each.kind for each in part).most_common():
            text += f"  {count / len(part):6.1%}  {kind}\n"
    text += "\nthe functions\n"
    functions = Counter(
        (gateways.get(s.pid, s.comm), s.function, Path(s.object).name, s.kind) for s in at_work
    )
    for (who, function, where, kind), count in functions.most_common(_TOP):
        text += (
            f"  {count / len(at_work):6.1%}  {who:<12}{function[:44]:<46}{where[:24]:<26}{kind}\n"
        )
    return text
