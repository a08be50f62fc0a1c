"""What can be written behind `oegw docs`, and the help that explains it."""

from __future__ import annotations

import argparse
from collections.abc import Callable

Add = Callable[..., argparse.ArgumentParser]


def add_docs(add: Add) -> None:
    """The command ``oegw docs``; ``add`` makes its parser."""
    docs = add(
        "docs",
        "List the pages of the documentation, or show one. On a terminal $PAGER shows it, or less.",
        "oegw docs",
        "oegw docs tutorial",
        "oegw docs nat | grep -i private",
    )
    docs.add_argument("page", metavar="PAGE", nargs="?", help="its name; default: all are listed")
    docs.add_argument(
        "--path", action="store_true", help="print where the pages are, or where this one is"
    )
