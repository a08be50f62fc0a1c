"""`oegw sst`: how applications of this host ask for port encryption."""

from __future__ import annotations

import base64
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from oegw import config
from oegw.arguments import Arguments, Command, UsageError
from oegw.bpf.kernel import BpfError, BpfNotPermitted
from oegw.exitcodes import FAILED, FINE, NOT_PERMITTED, Failure
from oegw.settings import DEFAULT_CONFIG, Settings
from oegw.sst import SstUnavailable, enabled
from oegw.sst.asking import attachment, cgroups, running
from oegw.sst.asking.cgroups import CgroupError, CgroupNotPermitted
from oegw.sst.plane.marks import PlaneMarks
from oegw.sst.settings import DEFAULT_KEY, Request
from oegw.status import columns


def _settings(arguments: Arguments) -> Settings:
    """The gateway's, or the usual ones where there is no gateway: `oegw sst` is of use for an
    application whose host only sends to one."""
    path: Path = arguments.config
    if path == DEFAULT_CONFIG and not path.exists():
        return Settings()
    return config.load(path)


def _bit(settings: Settings) -> int:
    """The bit of the packet mark by which a socket asks."""
    return PlaneMarks(settings.sst.mark_mask).request


@contextmanager
def _failing() -> Iterator[None]:
    try:
        yield
    except (CgroupNotPermitted, BpfNotPermitted) as error:
        raise Failure(NOT_PERMITTED, str(error)) from error
    except (CgroupError, BpfError) as error:
        raise Failure(FAILED, str(error)) from error
    except PermissionError:
        raise  # of which the command line speaks
    except OSError as error:  # no process or file to be had, or what was there is gone
        raise Failure(FAILED, str(error)) from error


def _enable(arguments: Arguments) -> int:
    settings = _settings(arguments)
    with _failing():
        place = attachment.enable(_bit(settings), arguments.cgroup, every=arguments.all)
    print(f"enabled: {place}")
    return FINE


def _disable(arguments: Arguments) -> int:
    with _failing():
        places = attachment.disable(arguments.cgroup)
    for place in places:
        print(f"disabled: {place}")
    return FINE


def _run(arguments: Arguments) -> int:
    command = list(arguments.argv)
    if command[:1] == ["--"]:
        del command[0]
    if not command:
        raise UsageError("which command? oegw sst run -- COMMAND (oegw sst run --help explains)")
    settings = _settings(arguments)
    with _failing():
        try:
            return running.run(_bit(settings), command, arguments.user)
        except running.UnknownUser as error:
            raise UsageError(f"--user: {error}") from error


def _keygen(arguments: Arguments) -> int:
    from oegw.sst.keys import KeyFileError, generate, roll  # takes a while to import

    path = arguments.file or _settings(arguments).sst.private_key or DEFAULT_KEY
    try:
        key, old = roll(path) if arguments.roll else (generate(path), None)
    except KeyFileError as error:
        forbidden = isinstance(error.__cause__, PermissionError)
        raise Failure(NOT_PERMITTED if forbidden else FAILED, str(error)) from error
    print(f"{path}: {base64.b64encode(key.public).decode()}")
    if old is not None:
        print(f"{old}: the key until now; put it into sst.old_keys")
    return FINE


def _state(arguments: Arguments) -> int:
    settings = _settings(arguments)
    rows = [["gateway", _gateway(settings)], ["socket option", _option(settings)]]
    with _failing():
        try:
            root = cgroups.mounted()
            for place in attachment.places(_bit(settings)):
                rows.append(["", _place(place)])
        except BpfNotPermitted:
            rows.append(["", "in which groups: only root can see it"])
            root = cgroups.mounted()
        rows += [["oegw sst run", str(group)] for group in cgroups.run_groups(root)]
    print("\n".join(columns(rows)))
    return FINE


def _place(place: attachment.Place) -> str:
    text = f"{place.group}{', all sockets ask' if place.every else ''}"
    return text if place.current else f"{text}: not for this sst.mark_mask; oegw sst enable again"


def _gateway(settings: Settings) -> str:
    """What the configuration makes of requests."""
    if not settings.encrypts_ports:
        return "port encryption is off: no private_key in [sst], and no rule with sst"
    if Request.SOCKET not in settings.sst.requests:
        return 'does not listen to sockets: sst.requests has no "socket"'
    return f"listens to mark 0x{_bit(settings):x} of packets"


def _option(settings: Settings) -> str:
    """Whether a process like this one has it, which needs no rights to see."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            asks = enabled(probe)
        except SstUnavailable:
            return "this process does not have it"
    return "this process has it" + (", and all its sockets ask" if asks else "")


COMMANDS: dict[str, Command] = {
    "sst": _state,
    "sst enable": _enable,
    "sst disable": _disable,
    "sst run": _run,
    "sst keygen": _keygen,
}
