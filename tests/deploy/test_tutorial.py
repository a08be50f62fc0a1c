"""The tutorial, and the README's short form of it, run as they stand; and their reader."""

from __future__ import annotations

import shutil

import pytest

from tests.deploy.crossing import HOSTS, Crossed, crossing
from tests.deploy.root import REPOSITORY, package
from tests.deploy.site import BOB, Site
from tests.deploy.tutorial import TutorialFailed, blocks, check_output, run_tutorial
from tests.deploy.wholesite import WholeSite

TEXT = f"""
Some words.

```
for readers
```

```sh a b
oegw --version
```
```output
oegw ...
```

```toml a /root/some.toml
version = 1
```

```sh a
oegw check --config /root/some.toml
cat /root/some.toml
```
```output
opportunistic...else clear
version = 1
```

```sh alice
ping -c 1 -W 5 {BOB}
```
```output
1 received
```
"""


def test_blocks_that_name_a_place_are_found() -> None:
    found = [(block.kind, block.places, block.words) for block in blocks(TEXT)]
    assert found == [
        ("sh", ("a", "b"), ()),
        ("output", (), ()),
        ("toml", ("a",), ("/root/some.toml",)),
        ("sh", ("a",), ()),
        ("output", (), ()),
        ("sh", ("alice",), ()),
        ("output", (), ()),
    ]
    [first, *_] = blocks(TEXT)
    assert (first.line, first.text) == (8, "oegw --version\n")


@pytest.mark.parametrize(
    ("printed", "right"),
    [
        ("one\nsome two and three\n", True),
        ("some two and three\none\n", False),  # the order
        ("one\nthree two\n", False),
        ("", False),
    ],
)
def test_what_was_to_be_printed_is_looked_for(printed: str, right: bool) -> None:
    [block] = blocks("```output\none\ntwo...three\n```\n")
    if right:
        check_output(block, printed)
    else:
        with pytest.raises(TutorialFailed, match="line 1"):
            check_output(block, printed)


@pytest.mark.deploy
def test_a_tutorial_runs_as_it_stands(site: Site) -> None:
    run_tutorial(TEXT, site)


@pytest.mark.deploy
@pytest.mark.parametrize(
    "wrong", ["```sh a\nfalse\ntrue\n```\n", "```sh a\necho x\n```\n```output\ny\n```\n"]
)
def test_one_that_does_not_do_what_it_says_fails(site: Site, wrong: str) -> None:
    with pytest.raises(TutorialFailed):
        run_tutorial(wrong, site)


@pytest.mark.deploy
@pytest.mark.timeout(600)
def test_the_tutorial_ends_with_an_encrypted_ping(whole_site: WholeSite, crossed: Crossed) -> None:
    assert crossed.clear == []
    assert {name: len(packets) >= 3 for name, packets in crossed.encrypted.items()} == {
        "a": True, "b": True,
    }  # fmt: skip
    for name in "ab":  # there was no way to fetch anything
        reached = whole_site.machines[name].attempt("curl -sS --max-time 3 http://deb.debian.org/")
        assert reached.returncode != 0


@pytest.mark.deploy
def test_a_ping_in_clear_would_be_seen(whole_site: WholeSite, crossed: Crossed) -> None:
    """The routers are stopped and opened as installing.md says."""
    routers = whole_site.a, whole_site.b
    for router in routers:
        router.run(
            "systemctl disable --now oegw oegw-guard && oegw guard --remove"
        )  # installing.md
    try:
        with crossing(whole_site) as without:
            whole_site.machines["alice"].run(f"ping -c 1 -W 5 {BOB}")
    finally:
        for router in routers:
            router.run("systemctl enable --now oegw && systemctl enable oegw-guard")
    assert {packet[12:16] for packet in without.clear} == HOSTS
    assert without.encrypted == {"a": [], "b": []}
    assert crossed.clear == []


@pytest.mark.deploy
@pytest.mark.timeout(600)
def test_the_readme_does_it_without_updates(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Its lines are put into the zones by hand."""
    with Site(tmp_path_factory.mktemp("readme")) as site:
        for machine in site.machines.values():
            shutil.copy(package(), machine.root / "root")
        site.boot()
        with crossing(site) as crossed:
            run_tutorial((REPOSITORY / "README.md").read_text(), site)
    assert crossed.clear == []
    assert min(len(packets) for packets in crossed.encrypted.values()) >= 3
