"""Runs a command whose sockets all ask for port encryption, as `env` or `timeout` run one."""

from __future__ import annotations

import os
import pwd
import signal
from collections.abc import Sequence
from contextlib import suppress

from oegw.sst.asking import attachment, cgroups
from oegw.wrapping import FORWARDED, KILLED, become


class UnknownUser(Exception):  # noqa: N818  (it names the fact)
    """There is no such user."""


def run(bit: int, command: Sequence[str], user: str | None = None) -> int:
    """Run ``command`` in a cgroup of its own; returns its exit code (SST-27).

    128 and the signal if one ended it; 127 if there is no such command, 126 if it can't be
    executed, and then a line about it is on stderr.  Processes that it leaves behind keep the
    cgroup.  Raises CgroupError, BpfError, UnknownUser.
    """
    account = None if user is None else _account(user)
    root = cgroups.mounted()
    cgroups.sweep(root)
    group = cgroups.make_run_group(root)
    try:
        attachment.mark_all(bit, group)
        # From here on a signal waits until the command is there to get it.
        waited = {signal.SIGCHLD, *FORWARDED}
        before = signal.pthread_sigmask(signal.SIG_BLOCK, waited)
        # Who started us may ignore it, and the kernel then tells nobody of a child's end.
        of_children = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        try:
            entrance = os.open(group / "cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
            child = os.fork()
            if child == 0:
                signal.signal(signal.SIGCHLD, of_children)
                become(command, before, lambda: _enter(entrance, account))
            os.close(entrance)
            return _attend(child, waited)
        finally:
            signal.signal(signal.SIGCHLD, of_children)
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
    finally:
        cgroups.remove_run_group(group)


def _account(user: str) -> pwd.struct_passwd:
    try:
        return pwd.getpwuid(int(user)) if user.isdecimal() else pwd.getpwnam(user)
    except (KeyError, OverflowError):
        raise UnknownUser(f"there is no user {user!r}") from None


def _enter(entrance: int, account: pwd.struct_passwd | None) -> None:
    """The child: into the group, and out of root's rights."""
    os.write(entrance, b"0")
    if account is not None:
        os.initgroups(account.pw_name, account.pw_gid)
        os.setgid(account.pw_gid)
        os.setuid(account.pw_uid)


def _attend(child: int, waited: set[signal.Signals]) -> int:
    """Hand signals on until the child has ended.

    What the terminal sends (Ctrl-C) has gone to the child as well; only what a process sent to us
    alone is handed on.
    """
    while True:
        received = signal.sigwaitinfo(waited)
        if received.si_signo == signal.SIGCHLD:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                code = os.waitstatus_to_exitcode(status)
                return KILLED - code if code < 0 else code
        elif received.si_code <= 0:  # by kill(2) and its like, not by the kernel (sigaction(2))
            with suppress(ProcessLookupError):
                os.kill(child, received.si_signo)
