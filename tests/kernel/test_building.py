"""What names a kernel in the cache, and when a build is no kernel."""

from __future__ import annotations

import subprocess
import threading
from pathlib import Path

import pytest

from tests.kernel import building
from tests.kernel.building import BuildFailed, Kernel

FRAGMENT = "# reason\nCONFIG_NET=y\nCONFIG_VETH=y\n"


def test_each_thing_that_a_kernel_depends_on_changes_its_name() -> None:
    names = {
        building.key(FRAGMENT, "6.1-1", "x86_64"),
        building.key(FRAGMENT + "CONFIG_TUN=y\n", "6.1-1", "x86_64"),
        building.key(FRAGMENT, "6.1-2", "x86_64"),
        building.key(FRAGMENT, "6.1-1", "i686"),
    }
    assert len(names) == 4


@pytest.mark.parametrize(
    ("configuration", "refused"),
    [
        ("CONFIG_NET=y\nCONFIG_VETH=y\nCONFIG_MORE=y\n", []),
        ("CONFIG_NET=y\n# CONFIG_VETH is not set\n", ["CONFIG_VETH=y"]),
        ("CONFIG_NET=y\nCONFIG_VETH=m\n", ["CONFIG_VETH=y"]),
        ("", ["CONFIG_NET=y", "CONFIG_VETH=y"]),
    ],
)
def test_lines_that_were_not_accepted_are_named(configuration: str, refused: list[str]) -> None:
    assert building.not_accepted(FRAGMENT, configuration) == refused


def test_the_cache_is_where_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("OEGW_KERNEL_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert building.cache_folder() == tmp_path / ".cache/oegw"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert building.cache_folder() == tmp_path / "xdg/oegw"
    monkeypatch.setenv("OEGW_KERNEL_CACHE", str(tmp_path / "own"))
    assert building.cache_folder() == tmp_path / "own"


STEPS = {
    "tar": 'mkdir "$2/linux-source-6.1"',
    "make": 'o=${3#O=}; echo CONFIG_NET=y >"$o/.config"; echo image >"$o/linux"\n'
    'echo "CC net/core.o"; exit "${MAKE_CODE:-0}"',
    "strip": 'cp "$3" "$2"',
}  # programs that stand in for the real ones, by name


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A place where a build takes no time."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, script in STEPS.items():
        (programs / name).write_text(f"#!/bin/sh\necho {name} >>{tmp_path}/calls\n{script}\n")
        (programs / name).chmod(0o755)
    setup = tmp_path / "netns-lab" / "setup"
    setup.parent.mkdir()
    setup.write_text("#!/bin/sh\n")
    setup.chmod(0o755)
    (tmp_path / "fragment").write_text("CONFIG_NET=y\n")
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    monkeypatch.setenv("OEGW_KERNEL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(building, "ROOT", tmp_path)
    monkeypatch.setattr(building, "FRAGMENT", tmp_path / "fragment")
    monkeypatch.setattr(building, "NEEDED_OCTETS", 0)
    monkeypatch.setattr(building, "source_version", lambda: "6.1-1")
    monkeypatch.setattr(building.platform, "machine", lambda: "x86_64")
    return tmp_path


def calls(bench: Path) -> int:
    return (bench / "calls").read_text().count("make")


def test_a_kernel_is_built_once(bench: Path) -> None:
    first = building.built(1)
    assert first.image.read_text() == "image\n"
    assert "CC net/core.o" in (first.folder / "build.log").read_text()
    assert building.built(1) == first
    assert calls(bench) == 2, "one make to configure, one to compile"
    assert [path.name for path in first.folder.parent.iterdir() if path.is_dir()] == [
        first.folder.name
    ]


def test_two_at_once_build_one_kernel(bench: Path) -> None:
    seen: list[Kernel] = []
    threads = [threading.Thread(target=lambda: seen.append(building.built(1))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 2
    assert seen[0] == seen[1]
    assert calls(bench) == 2


def test_a_build_that_fails_says_why_and_leaves_no_kernel(
    bench: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAKE_CODE", "2")
    with pytest.raises(BuildFailed, match=r"exit code 2(.|\n)*CC net/core\.o"):
        building.built(1)
    assert not any(path.is_dir() for path in (bench / "cache").iterdir())
    monkeypatch.delenv("MAKE_CODE")
    assert building.built(1).image.exists()


def test_a_refused_line_is_no_kernel(bench: Path) -> None:
    (bench / "fragment").write_text("CONFIG_NET=y\nCONFIG_NO_SUCH=y\n")
    with pytest.raises(BuildFailed, match="CONFIG_NO_SUCH=y"):
        building.built(1)


def test_what_a_killed_build_left_is_no_kernel(bench: Path) -> None:
    kernel = building.built(1)
    kernel.image.unlink()
    left = kernel.folder.with_name(f"{kernel.folder.name}.building")
    left.mkdir()
    (left / "linux-source-6.1").mkdir()
    assert building.built(1).image.exists()
    assert not left.exists()


def test_another_machine_is_told_that_it_cannot(
    bench: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(building.platform, "machine", lambda: "aarch64")
    with pytest.raises(BuildFailed, match="aarch64"):
        building.built(1)


def test_the_command_ends_with_the_reason_and_exit_code_1(bench: Path) -> None:
    environment = {"PATH": "/usr/bin:/bin", "OEGW_KERNEL_CACHE": "/proc/no/such/place"}
    done = subprocess.run(
        [str(building.HERE / "build"), "-j", "many"],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 2
    assert "usage" in done.stderr
