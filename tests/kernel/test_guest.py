"""The runner of the test kernel, from outside: outputs, exit codes, what stays."""

from __future__ import annotations

import hashlib
import subprocess
import time
from pathlib import Path

import pytest

from tests.kernel.building import HERE, built

pytestmark = pytest.mark.guest


@pytest.fixture(autouse=True, scope="module")
def _there() -> None:
    """The kernel and all that it needs: what `boot` would say about that belongs to no test."""
    built()


def boot(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([str(HERE / "boot"), *arguments], capture_output=True, timeout=100)


def test_outputs_are_apart_and_the_exit_code_is_the_commands() -> None:
    done = boot("--", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.stdout, done.stderr, done.returncode) == (b"out\n", b"err\n", 7)


def test_every_octet_passes_unchanged(tmp_path: Path) -> None:
    octets = b"".join(hashlib.sha512(bytes([n % 256, n // 256])).digest() for n in range(8000))
    (tmp_path / "octets").write_bytes(octets + bytes(range(256)))
    done = boot("--", "cat", str(tmp_path / "octets"))
    assert done.stdout == octets + bytes(range(256))


def test_it_is_another_kernel_with_our_files_and_nothing_of_our_network() -> None:
    done = boot("--", "sh", "-c", f"uname -r; cat {HERE}/kernel.config; ls /sys/class/net; id -u")
    version, rest = done.stdout.decode().split("\n", 1)
    assert version.startswith("6.1.")
    assert rest == (HERE / "kernel.config").read_text() + "lo\n0\n"


def test_only_what_is_written_to_a_shared_folder_stays(tmp_path: Path) -> None:
    shared, other = tmp_path / "shared", tmp_path / "other"
    shared.mkdir()
    other.mkdir()
    script = f"echo kept >{shared}/a; echo lost >{other}/a; cat {other}/a"
    done = boot("--share", str(shared), "--", "sh", "-c", script)
    assert done.stdout == b"lost\n"
    assert (shared / "a").read_text() == "kept\n"
    assert not list(other.iterdir())


def test_the_environment_is_what_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OEGW_TEST_GIVEN", "from here")
    monkeypatch.setenv("OEGW_TEST_HIDDEN", "x")
    done = boot("--env", "OEGW_TEST_GIVEN", "--env", "OTHER=a b'c", "--", "env")
    lines = done.stdout.decode().splitlines()
    assert "OEGW_TEST_GIVEN=from here" in lines
    assert "OTHER=a b'c" in lines
    assert not any(line.startswith("OEGW_TEST_HIDDEN") for line in lines)


def test_a_guest_ends_after_its_time_and_leaves_nothing() -> None:
    mark = f"86399.{time.time_ns()}"
    started = time.monotonic()
    done = boot("--timeout", "4", "--", "sleep", mark)
    assert done.returncode == 124
    assert b"ended after 4 s" in done.stderr
    assert time.monotonic() - started < 15
    alive = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True)
    assert mark not in alive.stdout
    assert "oegw_job=" not in alive.stdout or "sleep" not in alive.stdout


def test_a_process_left_running_does_not_keep_the_guest() -> None:
    done = boot("--timeout", "30", "--", "sh", "-c", "sleep 1000 & echo done")
    assert (done.stdout, done.returncode) == (b"done\n", 0)


def test_a_kernel_that_does_not_start_is_told(tmp_path: Path) -> None:
    broken = tmp_path / "linux"
    broken.write_text("#!/bin/sh\necho no such luck\n")
    broken.chmod(0o755)
    done = boot("--kernel", str(broken), "--", "true")
    assert done.returncode == 125
    assert b"no such luck" in done.stderr
    assert boot("--kernel", str(tmp_path / "none"), "--", "true").returncode == 125


def test_a_guest_out_of_memory_is_told() -> None:
    """Its kernel dies before the command can begin."""
    done = boot("--memory", "12", "--timeout", "30", "--", "true")
    assert done.returncode == 125
    assert b"without an exit code" in done.stderr


def test_virtual_time_lets_hours_pass_in_seconds() -> None:
    started = time.monotonic()
    script = "a=$(date +%s); sleep 7200; echo $(( $(date +%s) - a ))"
    done = boot("--time-travel", "--timeout", "60", "--", "sh", "-c", script)
    assert 7200 <= int(done.stdout) <= 7202
    assert time.monotonic() - started < 60


def test_two_guests_run_at_once() -> None:
    command = [str(HERE / "boot"), "--", "sh", "-c", "sleep 3; echo here"]
    started = time.monotonic()
    guests = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(2)]
    assert [guest.communicate(timeout=60)[0] for guest in guests] == [b"here\n"] * 2
    assert time.monotonic() - started < 30
