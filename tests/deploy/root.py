"""The roots that are booted: a minimal Debian 12, and the package that is installed in it.

Both are made once and kept in the cache that the test kernel has as well, in folders named by a
hash of what they depend on; apt and pip as the environment configures them.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.kernel.building import cache_folder

REPOSITORY = Path(__file__).resolve().parents[2]
BUILD = REPOSITORY / "oegw/deploy/debian/build"

RECIPE = "1"  # counts changes of this file after which a root must be made anew
SUITE = "bookworm"
KEPT = {"root": 4, "package": 6}  # other checkouts may be at work with theirs
DEPENDENCIES = (
    "libnetfilter-queue1", "libnftables1", "libssl3", "libstdc++6", "libgcc-s1",
    "nftables", "iproute2", "iptables", "python3", "systemd",
)  # fmt: skip
"""Of the package: what a router with Debian has, or apt would fetch."""
_AROUND = ("systemd-sysv", "dbus", "iputils-ping", "procps", "man-db", "less")
_CARED_FOR = ("openssh-client", "openssh-server", "curl", "logrotate", "keepalived")
"""What its operator has."""
_SOURCES = ("oegw", "ike", "policy", "dnsrecords", "pyproject.toml")


def base_root(*more: str) -> Path:
    """A folder with the root, which nobody may change: machines lay their own over it.  ``more``:
    packages of Debian beside those that all have."""
    packages = sorted((*DEPENDENCIES, *_AROUND, *_CARED_FOR, *more))
    key = hashlib.sha256(" ".join((RECIPE, SUITE, *packages)).encode()).hexdigest()[:16]
    return _kept("root", key, lambda folder: _bootstrap(folder, packages))


def _bootstrap(folder: Path, packages: list[str]) -> None:
    sources = Path("/etc/apt/sources.list.d/debian.sources")
    # Given none, mmdebstrap would take Debian's own mirror, and not the one that is configured.
    mirrors = [str(path) for path in (sources, Path("/etc/apt/sources.list")) if _says_more(path)]
    archive = folder / "root.tar"
    _run(
        "mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(packages)}",
        SUITE, str(archive), *mirrors[:1],
    )  # fmt: skip
    root = folder / "root"
    root.mkdir()
    _run("tar", "-xpf", str(archive), "-C", str(root))
    archive.unlink()
    (root / "etc/resolv.conf").unlink(missing_ok=True)
    for unit in ("systemd-networkd.service", "systemd-networkd-wait-online.service"):
        _run("systemctl", f"--root={root}", "enable", unit)
    for unit in ("apt-daily.timer", "apt-daily-upgrade.timer", "man-db.timer"):
        _run("systemctl", f"--root={root}", "mask", unit)


def _says_more(path: Path) -> bool:
    try:
        return any(not line.startswith("#") for line in path.read_text().splitlines() if line)
    except FileNotFoundError:
        return False


def package(version: str = "") -> Path:
    """The package of this checkout; ``version``: under another number, for an upgrade."""
    digest = hashlib.sha256(version.encode())
    for source in _SOURCES:
        place = REPOSITORY / source
        for path in sorted(place.rglob("*")) if place.is_dir() else [place]:
            if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".so":
                digest.update(f"{path.relative_to(REPOSITORY)} {path.stat().st_mode}\0".encode())
                digest.update(path.read_bytes())
    options = ("--version", version) if version else ()
    key = digest.hexdigest()[:16]
    folder = _kept("package", key, lambda into: _run(str(BUILD), *options, str(into)))
    [found] = folder.glob("*.deb")
    return found


def _kept(kind: str, key: str, make: Callable[[Path], None]) -> Path:
    """A folder of the cache: made beside its place and renamed, so that it is whole.  Its time is
    that of the last use, and those used longest ago go."""
    cache = cache_folder()
    cache.mkdir(parents=True, exist_ok=True)
    place = cache / f"{kind}-{key}"
    with _locked(cache / f".{kind}.lock"):
        if not place.exists():
            beside = Path(tempfile.mkdtemp(prefix=f".{place.name}.", dir=cache))
            try:
                make(beside)
                beside.chmod(0o755)
                beside.rename(place)
            except BaseException:
                shutil.rmtree(beside, ignore_errors=True)
                raise
        os.utime(place)
        _clear(cache, kind)
    return place


def _clear(cache: Path, kind: str) -> None:
    """Its folders beyond the ``KEPT``."""
    latest_last = sorted(cache.glob(f"{kind}-*"), key=lambda each: each.stat().st_mtime)
    for old in latest_last[: -KEPT[kind]]:
        shutil.rmtree(old)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _run(*command: str) -> None:
    environment = {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
    done = subprocess.run(command, text=True, capture_output=True, env=environment)
    assert done.returncode == 0, f"{' '.join(command[:3])} ...:\n{done.stderr[-3000:]}"
