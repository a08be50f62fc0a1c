"""What can go wrong with the lab itself, as opposed to a fact that turns out false."""

from __future__ import annotations


class LabError(Exception):
    """The lab can't do what was asked; the text says what and where."""


class DeadlineMissed(LabError):  # noqa: N818  (it names the fact)
    """A condition did not come true in time."""
