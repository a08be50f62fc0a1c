"""Texts by key, bounded, with what has changed."""

from __future__ import annotations

from oegw.shelf import Shelf


def test_strangers_displace_only_their_like() -> None:
    shelf = Shelf([("ours", "1")], 3)
    for number in range(5):
        shelf.put(f"guest {number}", "2", guest=True)
    assert shelf.keys() == ["ours", "guest 3", "guest 4"]


def test_more_than_fits_loses_the_oldest_and_says_so() -> None:
    shelf = Shelf([(str(number), "text") for number in range(4)], 3)
    assert shelf.keys() == ["1", "2", "3"]
    assert shelf.take(whole=False) == {"0": None}
    assert not shelf.changed
