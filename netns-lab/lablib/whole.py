"""Files that others read while we write them."""

from __future__ import annotations

from pathlib import Path


def put(path: Path, text: str) -> None:
    """The file holds ``text`` from one moment to the next: nobody sees half of it, or none."""
    fresh = path.with_name(f"{path.name}.new")
    fresh.write_text(text)
    fresh.replace(path)
