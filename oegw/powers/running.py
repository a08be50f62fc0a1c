"""`oegw run`: one process with the rights, one without, and one with the key.

    oegw run ---- the hands: datapath, packet rules, queues (`hands.py`)
       |---- the mind: IKE, DNS, coordinator, control socket (`daemon.py`)
       |---- the signer: the private key (`signer.py`)
       `---- workers of the datapath, which have no rights either

The process that was started becomes the hands.  It forks the mind before it has a thread, a socket
or a secret; signals that it gets are the mind's to act on, and it ends as the mind does.
"""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import socket
import struct
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from oegw.box import check_peers
from oegw.daemonlife import in_words
from oegw.environment import Environment, UnsuitableBox, survey
from oegw.powers import dropping
from oegw.powers.dropping import Cap, PowerError, User
from oegw.powers.files import FileNotGivenError, Files, give
from oegw.powers.hands import FORWARDED, Hands, HandsSettings
from oegw.powers.tohands import Ends, ToHands
from oegw.servicenotify import Service
from oegw.settings import Settings
from policy.errors import PolicyError

USER = "oegw"  # whom the processes without rights become, if there is this user

FAILED = 1
_DESCRIPTORS = 1 << 20  # our choice: of one process, for the SOCKS server above all

# What the hands need, and for what.
NEEDED = (
    Cap.NET_ADMIN,  # devices, routes, SAs, packet rules, queues
    Cap.NET_RAW,  # ESP's sockets; the mind marks its own with it
    Cap.NET_BIND_SERVICE,  # UDP ports 500 and 4500
)
_FOR_OTHERS = (Cap.SETUID, Cap.SETGID, Cap.CHOWN, Cap.KILL)  # where the mind has a user of its own
_USED = (
    *(*NEEDED, *_FOR_OTHERS, Cap.SETPCAP),
    *(Cap.DAC_OVERRIDE, Cap.FOWNER),  # files of the mind's user
    Cap.BPF,  # which worker gets a packet
    Cap.SYS_RESOURCE,  # descriptors
)
_MINDS = (Cap.NET_RAW, Cap.NET_BIND_SERVICE)


def run(settings: Settings, config_path: Path, service: Service) -> int:
    """Run a gateway until SIGTERM; returns the exit code (1: could not start, or failed).

    ``service``: who is told when it is ready.
    """
    try:
        user = _user(settings)
        _require_rights(user)
        environment = survey(settings.interfaces.outside, settings.gateway.addresses)
        check_peers(settings, environment)
        if user is not None:
            give(files_of(settings), user)
    except (UnsuitableBox, PolicyError, PowerError, FileNotGivenError, OSError) as error:
        print(f"oegw: cannot start: {in_words(error)}", file=sys.stderr)
        return FAILED
    _raise_limit()
    minds = _minds_rights()
    ours, theirs = Ends.pair()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED)
    sys.stdout.flush()
    sys.stderr.flush()
    mind = os.fork()
    if not mind:
        theirs.close()
        _end(lambda: _mind(ours, user, minds, settings, config_path, environment, service))
    ours.close()
    try:
        dropping.look_up_no_hosts()
        dropping.keep_only(_USED if dropping.last() >= Cap.BPF else (*_USED, Cap.SYS_ADMIN))
        asyncio.run(Hands(_hands_settings(settings, user), theirs, mind).run())
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return _ended(mind)


def files_of(settings: Settings) -> Files:
    """What the processes of another user read and write; the gateway's own key is not among it."""
    gateway, sst, moniker = settings.gateway, settings.sst, settings.moniker
    secrets = (sst.private_key, *sst.old_keys, moniker.private_key if moniker.present else None)
    sockets = [gateway.control_socket]
    if moniker.present:
        sockets.append(moniker.socket)
    if settings.socks.present:
        sockets.append(settings.socks.socket)
    logs = (gateway.trace, settings.audit.file)
    return Files(
        gateway.state,
        tuple(each for each in logs if each),
        tuple(sockets),
        tuple(each for each in secrets if each),
    )


def _user(settings: Settings) -> User | None:
    """Raises PowerError."""
    wanted = settings.gateway.user
    if wanted is None:
        return User.named(USER)
    found = User.named(wanted)
    if found is None:
        raise PowerError(f"gateway.user: there is no user {wanted!r}")
    return found if found.uid != os.geteuid() else None


def _require_rights(user: User | None) -> None:
    """Raises PowerError that names what is lacking, in a container for example."""
    wanted = NEEDED if user is None else (*NEEDED, *_FOR_OTHERS)
    lacking = [f"CAP_{each.name}" for each in wanted if each not in dropping.permitted()]
    if lacking:
        raise PowerError(f"this process lacks {', '.join(lacking)}, although it is root's")


def _hands_settings(settings: Settings, user: User | None) -> HandsSettings:
    queues = {settings.intercept.queue}
    if settings.encrypts_ports:
        queues |= {settings.sst.queue, settings.sst.queue + 1}
    return HandsSettings(
        settings.datapath,
        settings.intercept.mark_mask,
        settings.encrypts_ports,
        frozenset(queues),
        settings.gateway.private_key,
        settings.gateway.guard,
        user,
        files_of(settings),
    )


def _minds_rights() -> tuple[Cap, ...]:
    """To mark a socket takes CAP_NET_RAW since Linux 5.17, and CAP_NET_ADMIN before."""
    with dropping.only_effective(Cap.NET_RAW), socket.socket(type=socket.SOCK_DGRAM) as tried:
        try:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, struct.pack("=I", 1))
        except PermissionError:
            return (*_MINDS, Cap.NET_ADMIN)
    return _MINDS


def _raise_limit() -> None:
    """Of descriptors, for processes that may not raise it themselves."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, max(hard, _DESCRIPTORS)))


def _mind(
    ends: Ends,
    user: User | None,
    rights: tuple[Cap, ...],
    settings: Settings,
    config_path: Path,
    environment: Environment,
    service: Service,
) -> int:
    try:
        dropping.drop(user, rights, pass_on=True)
    except PowerError as error:
        print(f"oegw: cannot start: {error}", file=sys.stderr)
        return FAILED
    from oegw import daemon  # what reads messages of strangers; the hands do without

    return daemon.serve(settings, config_path, environment, ToHands(ends), service)


def _end(work: Callable[[], int]) -> None:
    """The end of a forked process: nothing of what its parent began is its own."""
    code = FAILED
    try:
        code = work()
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _ended(mind: int) -> int:
    """How the mind ended, as our exit code."""
    _, status = os.waitpid(mind, 0)
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        print(
            f"oegw: the mind was ended by signal {-code}; nothing passes until a restart",
            file=sys.stderr,
        )
        return FAILED
    return code
