"""`oegw sst run` in a real kernel: unmodified programs ask, and are otherwise run as by anybody."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from oegw.sst.asking import attachment, cgroups, kernel
from oegw.sst.asking.programs import AT_SOCKET, MARK_NAME
from tests.support.intercept_net import wait_for
from tests.support.sst_host import BIT, NOBODY, SstHost

pytestmark = pytest.mark.netns

# What `oegw sst run` does, without what it takes to read a command line: that is slow to start.
RUN = (
    sys.executable,
    "-c",
    f"import sys; from oegw.sst.asking.running import run;sys.exit(run({BIT}, sys.argv[2:]))",
)
DATAGRAM = """
import socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
socket.socket(family, socket.SOCK_DGRAM).sendto(b"x", (sys.argv[1], 9))
"""


def groups(host: SstHost) -> list[Path]:
    return list(cgroups.run_groups(host.group))


@pytest.fixture
def server(host: SstHost) -> Iterator[str]:
    """A server of HTTP on the host, which does not ask: its URL."""
    process = host.start(
        sys.executable, "-u", "-m", "http.server", "--bind", "127.0.0.1", "0",
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert process.stdout is not None
    port = process.stdout.readline().split(" port ")[1].split()[0]
    yield f"http://127.0.0.1:{port}/pyproject.toml"
    process.kill()
    process.wait()
    process.stdout.close()


def test_sst_27_unmodified_program_asks_by_oegw_sst_run(host: SstHost, server: str) -> None:
    """curl, which knows nothing of it, and the same without."""
    curl = shutil.which("curl")
    assert curl, "the tests need curl, as the lab does: netns-lab/setup lab"
    assert 'name = "oegw"' in host.oegw("sst", "run", "--", curl, "-s", server)
    asked, silent = host.counted()
    assert asked >= 4  # what curl sent
    assert silent >= 3  # what the server sent
    host.run(curl, "-s", server)
    assert host.counted()[0] == 0
    host.oegw("sst", "run", "--", curl, "--no-such-option", code=2)  # curl's own exit code


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "::ffff:127.0.0.1"])
def test_sst_27_children_of_the_program_ask_as_well(host: SstHost, address: str) -> None:
    host.run(
        *RUN, "--", "sh", "-c", 'sh -c "\\"$@\\"; true" sh "$@"; "$@"', "sh",
        sys.executable, "-c", DATAGRAM, address,
    )  # fmt: skip
    host.run(sys.executable, "-c", DATAGRAM, address)
    asked, silent = host.counted()
    assert (asked, silent) == (1, 1) or (asked, silent) == (2, 1)


def test_sst_27_programs_of_a_group_ask_without_knowing(host: SstHost) -> None:
    """As of a systemd unit, whose group there is before its program starts."""
    unit, mounted = host.group / "unit.service", host.mount / "unit.service"
    unit.mkdir()
    within = ("sh", "-c", f'echo 0 > {mounted}/cgroup.procs; exec "$@"', "sh")
    datagram = (sys.executable, "-c", DATAGRAM, "127.0.0.1")
    try:
        host.oegw("sst", "enable", "--all", "--cgroup", mounted)
        assert f"{mounted}, all sockets ask" in host.oegw("sst")
        host.run(*within, *datagram)
        host.run(*datagram)
        assert host.counted() == (1, 1)
        assert host.oegw("sst", "disable") == f"disabled: {mounted}\n"
        host.run(*within, *datagram)
        assert host.counted() == (0, 1)
    finally:
        unit.rmdir()


def test_disable_leaves_commands_that_run_alone(host: SstHost) -> None:
    process = host.start(*RUN, "--", "cat", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with process:
        wait_for(lambda: groups(host) and (groups(host)[0] / "cgroup.procs").read_text())
        assert host.oegw("sst", "disable") == ""
        with cgroups.opened(groups(host)[0]) as group:
            assert [each.name for each in kernel.attached(group, AT_SOCKET)] == [MARK_NAME]
        process.communicate("")


def test_sockets_that_carry_no_ports_are_not_marked(host: SstHost) -> None:
    said = host.run(
        *RUN, "--", sys.executable, "-c",
        "import socket as s; print([x.getsockopt(1, 36) for x in (s.socket(s.AF_INET, s.SOCK_RAW, 1"
        "), s.socket(), s.socket(s.AF_INET6, s.SOCK_DGRAM), s.socket(s.AF_INET6, s.SOCK_RAW, 58),"
        "s.socket(s.AF_INET, s.SOCK_STREAM, 262))])",  # the last is MPTCP
    )  # fmt: skip
    assert said == f"[0, {BIT}, {BIT}, 0, 0]\n"


def test_nested_runs(host: SstHost) -> None:
    said = host.run(
        *RUN, "--", *RUN, "--", *RUN, "--", sys.executable, "-c",
        "import socket; print(socket.socket().getsockopt(1, 36)); raise SystemExit(5)",
        code=5,
    )  # fmt: skip
    assert said == f"{BIT}\n"
    assert groups(host) == []


def test_program_may_still_say_no(host: SstHost) -> None:
    attachment.enable(BIT, host.group)
    said = host.run(
        *RUN, "--", sys.executable, "-c",
        "import socket; s = socket.socket(); print(s.getsockopt(0, 200)); s.setsockopt(0, 200, 0);"
        "print(s.getsockopt(1, 36))",
    )  # fmt: skip
    assert said == "1\n0\n"


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (("true",), 0),
        (("sh", "-c", "exit 3"), 3),
        (("sh", "-c", "exit 255"), 255),
        (("sh", "-c", "kill -TERM $$"), 128 + 15),
        (("sh", "-c", "kill -KILL $$"), 128 + 9),
        (("no-such-command",), 127),
        (("/etc/passwd",), 126),
        (("/tmp",), 126),
    ],
    ids=str,
)
def test_exit_code_is_the_commands(host: SstHost, command: tuple[str, ...], code: int) -> None:
    said = host.run(*RUN, "--", *command, code=code)
    assert said.startswith(f"oegw: {command[0]}: ") == (code in (126, 127))
    assert groups(host) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
def test_signals_are_handed_on(host: SstHost, number: signal.Signals) -> None:
    process = host.start(
        *RUN, "--", "sh", "-c",
        f"trap 'exit 42' {number.value}; echo up; while :; do sleep 0.02; done",
        stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    with process:
        assert process.stdout.readline() == "up\n"
        process.send_signal(number)
        assert process.wait(10) == 42
    assert groups(host) == []


def test_what_the_terminal_sends_arrives_once(host: SstHost) -> None:
    """Ctrl-C goes to the whole foreground group: the command has it already."""
    primary, secondary = os.openpty()
    process = host.start(
        "setsid", "--ctty", "--wait", *RUN, "--", sys.executable, "-u", "-c",
        "import signal, time\n"
        "count = []\n"
        "signal.signal(signal.SIGINT, lambda *_: count.append(1))\n"
        "print('up')\n"
        "end = time.monotonic() + 10\n"
        "while not count and time.monotonic() < end: time.sleep(0.01)\n"
        "time.sleep(0.2)\n"
        "raise SystemExit(10 + len(count))\n",
        stdin=secondary, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    with process:
        assert process.stdout.readline() == "up\n"
        os.write(primary, b"\x03")
        assert process.wait(20) == 11
    os.close(primary)
    os.close(secondary)


def test_command_has_the_signals_of_a_shell(host: SstHost) -> None:
    """None blocked, none ignored: Python ignores SIGPIPE for itself."""
    said = host.run(*RUN, "--", "grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status")
    assert {line.split()[1] for line in said.splitlines()} == {"0" * 16}


@pytest.mark.parametrize(
    "before",
    ["trap '' CHLD", "exec >&-", "exec <&- >&- 2>&-"],
    ids=["ends of children ignored", "no stdout", "nothing open"],
)
def test_started_by_somebody_odd(host: SstHost, before: str) -> None:
    """Some daemons ignore SIGCHLD, of which then nobody is told, or have closed their files."""
    command = f"timeout --kill-after=1 20 {sys.executable} -m oegw sst run -- sh -c 'exit 5'"
    host.run("bash", "-c", f"{before}; {command}", code=5)
    assert groups(host) == []


def test_other_user_runs_it(host: SstHost) -> None:
    assert host.oegw("sst", "run", "--user", NOBODY, "--", "id", "-ru") == f"{NOBODY}\n"
    said = host.oegw("sst", "run", "--user", "nobody", "--", "sh", "-c", "id -u; id -G")
    assert said.split() == [str(NOBODY)] * 2
    assert "no user" in host.oegw("sst", "run", "--user", "nix", "--", "id", code=2)


def test_what_a_command_leaves_behind_goes_on_asking(host: SstHost) -> None:
    """And its group goes with the next run after its end."""
    pid = int(host.run(*RUN, "--", "sh", "-c", "sleep 300 >/dev/null 2>&1 & echo $!").strip())
    (left,) = groups(host)
    assert (left / "cgroup.procs").read_text() == f"{pid}\n"
    assert str(left.name) in host.oegw("sst")
    host.run(*RUN, "--", "true")
    assert groups(host) == [left]
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not (left / "cgroup.procs").read_text())
    host.run(*RUN, "--", "true")
    assert groups(host) == []


def test_killed_run_is_swept_away(host: SstHost) -> None:
    process = host.start(*RUN, "--", "cat", stdin=subprocess.PIPE)
    with process:
        wait_for(lambda: groups(host) and (groups(host)[0] / "cgroup.procs").read_text())
        (left,) = groups(host)
        host.run(*RUN, "--", "true")
        assert groups(host) == [left]  # its owner is alive
        process.kill()
    wait_for(lambda: not (left / "cgroup.procs").read_text())
    host.run(*RUN, "--", "true")
    assert groups(host) == []


def test_group_is_below_the_callers(host: SstHost) -> None:
    """Whose limits so stay in force."""
    below = host.group / "limited"
    below.mkdir()
    try:
        said = host.run(
            "sh", "-c", f'echo 0 > {host.mount}/limited/cgroup.procs; exec "$@"', "sh",
            *RUN, "--", "grep", "^0::", "/proc/self/cgroup",
        )  # fmt: skip
        assert said.startswith("0::/limited/oegw-sst-run.")
    finally:
        below.rmdir()
