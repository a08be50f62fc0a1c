"""Where groups are: what the kernel says of mounts and of ourselves, read."""

from __future__ import annotations

from pathlib import Path

import pytest

from oegw.sst.asking import cgroups

V1 = "26 25 0:22 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n"
V2 = "29 22 0:26 / {} rw,nosuid shared:4 master:1 - cgroup2 cgroup2 rw,nsdelegate\n"


@pytest.mark.parametrize(
    ("written", "place"),
    [
        ("/sys/fs/cgroup", "/sys/fs/cgroup"),
        ("/sys/fs/cgroup/unified", "/sys/fs/cgroup/unified"),
        ("/a\\040b\\134c", "/a b\\c"),
    ],
)
def test_mount_is_found(tmp_path: Path, written: str, place: str) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(V1 + V2.format(written))
    assert cgroups.mounted(mounts) == Path(place)


def test_without_version_2_it_is_said_what_to_do(tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(V1)
    with pytest.raises(cgroups.CgroupError, match="mount -t cgroup2"):
        cgroups.mounted(mounts)


@pytest.mark.parametrize(
    ("listing", "found"),
    [
        ("0::/\n", ""),
        ("4:memory:/x\n0::/a/b\n", "a/b"),
        ("0::/gone\n", ""),
        ("0::/../other\n", ""),  # outside of our namespace (cgroup_namespaces(7))
        ("4:memory:/a\n", ""),
    ],
)
def test_own_group(tmp_path: Path, listing: str, found: str) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    text = tmp_path / "cgroup"
    text.write_text(listing)
    assert cgroups.own(tmp_path, text) == tmp_path / found


def test_folder_that_is_no_group(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(cgroups.CgroupError, match=str(place)), cgroups.opened(place):
            pass
    (tmp_path / "cgroup.procs").touch()
    (tmp_path / "tasks").touch()
    with pytest.raises(cgroups.CgroupError, match="version 2"), cgroups.opened(tmp_path):
        pass  # of version 1


def test_other_groups_are_not_taken_for_ours(tmp_path: Path) -> None:
    for name in ("oegw-sst-run.1.2.ab", "oegw-sst-run", "user.slice", "oegw-sst-run.x.2.ab"):
        (tmp_path / name).mkdir()
    assert list(cgroups.run_groups(tmp_path)) == [tmp_path / "oegw-sst-run.1.2.ab"]
    cgroups.sweep(tmp_path)  # process 1 did not start at 2
    assert not list(cgroups.run_groups(tmp_path))
    assert len(list(tmp_path.iterdir())) == 3
