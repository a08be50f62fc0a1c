"""Something to be known of the box: read when it is first wanted, and only once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Unexamined(Exception):  # noqa: N818  (it names the fact)
    """It can't be known here; the message says why."""


class Fact(Generic[T]):
    """Calling it gives what there is to know.  Raises Unexamined, each time, if that failed."""

    def __init__(self, read: Callable[[], T]) -> None:
        self._read = read
        self._known: list[T] = []
        self._failed: Unexamined | None = None

    @classmethod
    def of(cls, value: T) -> Fact[T]:
        """One that is known already."""
        return cls(lambda: value)

    def __call__(self) -> T:
        if self._failed is not None:
            raise self._failed
        if not self._known:
            try:
                self._known.append(self._read())
            except Unexamined as failed:
                self._failed = failed
                raise
            except Exception as error:
                # Whatever it is, the other subjects are examined, and nobody sees a traceback.
                words = getattr(error, "strerror", None) or str(error) or type(error).__name__
                self._failed = Unexamined(words)
                raise self._failed from error
        return self._known[0]
