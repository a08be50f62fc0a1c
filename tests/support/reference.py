"""The reference of the configuration, `oegw/docs/configuration.md`, against the settings."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection
from enum import Enum
from pathlib import Path
from typing import Any

from oegw import settings

DOCUMENT = Path(settings.__file__).parent / "docs" / "configuration.md"


def documented() -> dict[str, str]:
    """The text under each heading ``[name]`` or ``[[name]]``."""
    parts = re.split(r"^##+ `\[+([\w.]+)\]+`$", DOCUMENT.read_text(encoding="utf-8"), flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def check_table(
    table: str, kind: Any, ours: Collection[str] = (), elsewhere: Collection[str] = ()
) -> None:
    """Each field of ``kind`` is a key of the table, with its default.

    ``ours``: fields that are no keys; ``elsewhere``: keys whose default another table gives.
    """
    text = documented()[table]
    top = table.split(".", maxsplit=1)[0]
    for each in dataclasses.fields(kind):
        if each.name in ours or each.default_factory is not dataclasses.MISSING:
            continue
        if f"{top}.{each.name.removesuffix('s')}" in documented():  # a table of its own
            continue
        row = re.search(rf"^\| `{each.name}` \| (.*?) \| ", text, re.M)
        assert row is not None, f"[{table}] {each.name} is not in {DOCUMENT.name}"
        default = each.default.value if isinstance(each.default, Enum) else each.default
        if default is dataclasses.MISSING:
            assert row[1] == "needed"
        elif default not in ((), None, "") and each.name not in elsewhere:
            shown = row[1].strip("`").strip('"')
            short = f"{default:g}" if isinstance(default, float) else ""
            assert shown in (str(default), f"{default}".lower(), short), f"{each.name}: {row[1]}"


def keys_of(top: str) -> set[str]:
    """All that the reference has for a table and those below it."""
    return {
        key
        for table, text in documented().items()
        if table.split(".", maxsplit=1)[0] == top
        for key in re.findall(r"^\| `(\w+)` \|", text, re.M)
    }
