"""The socket option of a host: brought, found again, taken away.

What there is stands in the kernel and nowhere else: our programs are known by their names.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from oegw.bpf.kernel import BpfError, loaded
from oegw.bpf.program import Program
from oegw.sst.asking import cgroups, kernel, programs
from oegw.sst.asking.programs import (
    ANSWER_NAME,
    ASK_NAME,
    AT_GETSOCKOPT,
    AT_SETSOCKOPT,
    AT_SOCKET,
    MARK_NAME,
)

_PAGE = os.sysconf("SC_PAGESIZE")
_OPTION = ((AT_SETSOCKOPT, ASK_NAME), (AT_GETSOCKOPT, ANSWER_NAME))
_EVERY = (AT_SOCKET, MARK_NAME)


@dataclass(frozen=True, slots=True)
class Place:
    """A cgroup with programs of ours.  ``current``: they set the bit that the gateway reads;
    ``every``: its sockets ask by themselves."""

    group: Path
    current: bool
    every: bool


def enable(bit: int, group: Path | None = None, *, every: bool = False) -> Path:
    """Bring the option to the sockets of ``group``, or of all groups.  Returns which it is.

    ``every``: besides, all of them that are made from now on ask by themselves (SST-27).
    Once or twice is the same; programs of an earlier configuration are replaced, at once and
    without a gap.  Raises CgroupError, BpfError, and then it is as before.
    """
    place = cgroups.mounted() if group is None else group
    with cgroups.opened(place) as cgroup:
        fresh: list[tuple[int, Program]] = []
        wanted = [programs.ask(bit, _PAGE), programs.answer(bit, _PAGE)]
        if every:
            wanted.append(programs.mark(bit))
        try:
            for program in wanted:
                if _attach_once(cgroup, program):
                    fresh.append((cgroup, program))
        except BpfError:
            for _, program in fresh:
                with suppress(BpfError):
                    _detach(cgroup, program.at, program.name)
            raise
    return place


def _attach_once(cgroup: int, program: Program) -> bool:
    """Whether there was none of ours before."""
    before = [each for each in kernel.attached(cgroup, program.at) if each.name == program.name]
    with loaded(program) as descriptor:
        tag = kernel.described(descriptor).tag
        if not before:
            kernel.attach(cgroup, descriptor, program.at)
        elif before[0].tag != tag:
            with kernel.by_number(before[0].number) as old:
                kernel.attach(cgroup, descriptor, program.at, old)
    return not before


def disable(group: Path | None = None) -> tuple[Path, ...]:
    """Take the option away from one group, or wherever it is.  Returns where it was.

    Sockets that asked keep their marks.  Raises CgroupError, BpfError.
    """
    places = cgroups.groups(cgroups.mounted()) if group is None else (group,)
    found = []
    for place in places:
        with _unless_gone(place, asked=group is not None), cgroups.opened(place) as cgroup:
            names = _OPTION if cgroups.is_run_group(place) else (*_OPTION, _EVERY)
            if sum(_detach(cgroup, at, name) for at, name in names):  # all of them
                found.append(place)
    return tuple(found)


def _detach(cgroup: int, at: int, name: str) -> int:
    """Detach what is ours; how many there were."""
    count = 0
    for each in kernel.attached(cgroup, at):
        if each.name == name:
            with kernel.suppressed_absence(), kernel.by_number(each.number) as descriptor:
                kernel.detach(cgroup, descriptor, at)
                count += 1
    return count


def places(bit: int) -> Iterator[Place]:
    """The groups that have the option.  Raises CgroupError, BpfError."""
    tags: dict[str, bytes] = {}
    for group in cgroups.groups(cgroups.mounted()):
        found: dict[str, bytes] = {}
        with _unless_gone(group), cgroups.opened(group) as cgroup:
            for at, name in (*_OPTION, _EVERY):
                found |= {e.name: e.tag for e in kernel.attached(cgroup, at) if e.name == name}
        if not found or (cgroups.is_run_group(group) and found.keys() == {MARK_NAME}):
            continue
        tags = tags or {each.name: _tag(each) for each in _programs(bit)}
        whole = found.keys() >= {ASK_NAME, ANSWER_NAME}
        current = whole and all(tags[name] == tag for name, tag in found.items())
        yield Place(group, current, MARK_NAME in found)


def _programs(bit: int) -> tuple[Program, ...]:
    return programs.ask(bit, _PAGE), programs.answer(bit, _PAGE), programs.mark(bit)


@contextmanager
def _unless_gone(group: Path, *, asked: bool = False) -> Iterator[None]:
    """A group that was removed while we looked at all of them has nothing of ours."""
    try:
        yield
    except (cgroups.CgroupError, BpfError):
        if asked or group.exists():
            raise


def _tag(program: Program) -> bytes:
    with loaded(program) as descriptor:
        return kernel.described(descriptor).tag


def mark_all(bit: int, group: Path) -> None:
    """Have all TCP and UDP sockets of ``group`` ask (SST-27).  Raises CgroupError, BpfError."""
    with cgroups.opened(group) as cgroup, loaded(programs.mark(bit)) as descriptor:
        kernel.attach(cgroup, descriptor, AT_SOCKET)
