"""The reader of tutorials, and that it runs what it has read."""

from __future__ import annotations

import pytest

from tests.deploy.site import BOB, Site
from tests.deploy.tutorial import TutorialFailed, blocks, check_output, run_tutorial

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
