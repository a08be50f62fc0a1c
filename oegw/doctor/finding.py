"""What is found: kinds of findings with stable names, and one of them on this box."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from enum import Enum


class Severity(Enum):
    """``problem``: the gateway does not do what it is there for, or will not soon; ``warning``: it
    does so by luck; ``note``: it is good to know."""

    PROBLEM = "problem"
    WARNING = "warning"
    NOTE = "note"


PROBLEM, WARNING, NOTE = Severity


class Shell(str):
    """A piece of a command that is shell language already: not quoted once more."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing found; ``mend`` is a command for a shell, empty if none is of use."""

    name: str
    severity: Severity
    what: str
    why: str
    mend: str


@dataclass(frozen=True, slots=True)
class Kind:
    """What can be found.  ``name`` never changes its meaning.

    ``about`` says what it is, for a reader who has not found it; ``mend`` is the command with its
    variable words in braces.
    """

    name: str
    severity: Severity
    about: str
    why: str
    mend: str

    def found(self, what: str, severity: Severity | None = None, /, **words: object) -> Finding:
        """One of these, with the words of its command; those that are no `Shell` get quoted."""
        quoted = {
            name: word if isinstance(word, Shell) else shlex.quote(str(word))
            for name, word in words.items()
        }
        return Finding(
            self.name, severity or self.severity, what, self.why, self.mend.format(**quoted)
        )
