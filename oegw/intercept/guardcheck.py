"""Does the guard stand?  Asked by processes that have their packets kept from leaving in clear."""

from __future__ import annotations

import json
import threading
from typing import Any

from oegw.intercept.demanded import SET
from oegw.intercept.interface import InterceptError
from oegw.intercept.nft import Nft


class GuardCheck:
    """Whether a table of ours, named ``table``, drops what leaves in clear with ``mark``.

    It may be asked by several threads, and is about the network namespace of the one that made it.
    """

    def __init__(self, table: str, mark: int) -> None:
        """Raises InterceptError without libnftables."""
        self._command = f"list set inet {table} {SET}"
        self._mark = mark
        self._nft = Nft()
        self._turn = threading.Lock()

    def stands(self) -> bool:
        """The kernel is asked each time.  False as well if it does not answer."""
        try:
            with self._turn:
                listing = json.loads(self._nft.listing(self._command))
        except (InterceptError, ValueError):
            return False
        return self._mark in _elements(listing)

    def close(self) -> None:
        self._nft.close()


def _elements(listing: Any) -> list[Any]:
    """Of the first set in a listing."""
    for each in listing.get("nftables", ()):
        if "set" in each:
            found = each["set"].get("elem", [])
            return found if isinstance(found, list) else [found]
    return []
