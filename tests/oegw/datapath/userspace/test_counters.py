"""Counters of workers: they outlive who counts."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import oegw.datapath.userspace
from oegw.datapath.userspace.counters import NAMES, PAGE, CounterPages, page_of

ROOM = Path(oegw.datapath.userspace.__file__).parent
TRIGGERS = re.findall(
    r'PacketError\("(\w+)"\)', (ROOM.parents[1] / "packet" / "ip.py").read_text(encoding="utf-8")
)


def test_a_successor_goes_on_with_the_page_of_its_predecessor() -> None:
    pages = CounterPages(2)
    for _ in range(3):
        page = page_of(pages.descriptor, 1)
        page["keepalives"] += 2
    page_of(pages.descriptor, 0)["keepalives"] += 1
    page_of(pages.descriptor, 0)["drop_in_replay"] += 1
    assert pages.counted() == {"keepalives": 7, "drop_in_replay": 1}
    pages.close()
    assert pages.counted()["keepalives"] == 7


def test_what_has_no_name_in_the_list_is_counted_nevertheless() -> None:
    pages = CounterPages(1)
    page = page_of(pages.descriptor, 0)
    page["drop_in_a_new_way"] += 2
    page["drop_in_a_new_way"] += 1
    assert page["drop_in_a_new_way"] == 0
    assert pages.counted() == {"counted_elsewhere": 3}
    pages.close()


def test_a_page_has_room_for_all_names_each_once() -> None:
    assert len(set(NAMES)) == len(NAMES) < PAGE // 8


def test_every_name_that_a_worker_counts_by_is_in_the_list() -> None:
    counted = {
        node.value
        for path in ROOM.rglob("*.py")
        if path.name not in ("keyingsocket.py", "counters.py")  # of the control process
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and re.fullmatch(r"(drop|esp)_(in|out)_\w+|icmp_\w+|keepalives", node.value)
    }
    for direction in ("in", "out"):
        counted |= {f"drop_{direction}_{trigger}" for trigger in TRIGGERS}
    assert len(TRIGGERS) > 10
    assert counted - set(NAMES) - {"drop_in_", "drop_out_"} == set()
