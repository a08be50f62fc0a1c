"""What can be wrong with a policy; every error names the place where it was written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from policy.flow import IPAddress
    from policy.rule import Rule


class PolicyError(Exception):
    """A policy that can't be used."""


@dataclass(frozen=True, slots=True)
class PrefixFileProblem:
    """One bad line of a prefix list; ``line`` counts from 1, and is 0 for the file as a whole."""

    file: str
    line: int
    reason: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.reason}"


class PrefixFileError(PolicyError):
    """A prefix list that can't be read.

    ``problems`` are the first of them; ``unreported`` says how many bad lines
    were left out.
    """

    def __init__(self, problems: Sequence[PrefixFileProblem], unreported: int = 0) -> None:
        self.problems = tuple(problems)
        self.unreported = unreported
        lines = [str(problem) for problem in self.problems]
        if unreported:
            lines.append(f"{self.problems[0].file}: and {unreported} more")
        super().__init__("\n".join(lines))

    @property
    def file(self) -> str:
        return self.problems[0].file

    @property
    def line(self) -> int:
        """The line of the first problem."""
        return self.problems[0].line


def described(rule: Rule) -> str:
    """A rule's name and where it was written."""
    return f'rule "{rule.name}" ({rule.origin})' if rule.origin else f'rule "{rule.name}"'


@dataclass(frozen=True, slots=True)
class MeaninglessRule:
    """A rule that can't match any packet, though its author meant something by it."""

    rule: Rule
    reason: str

    def __str__(self) -> str:
        return f"{described(self.rule)}: {self.reason}"


@dataclass(frozen=True, slots=True)
class RuleConflict:
    """Two rules that match a common flow; ``source`` and ``destination`` are one such pair."""

    first: Rule
    second: Rule
    source: IPAddress
    destination: IPAddress

    @property
    def _example(self) -> str:
        return f"for example from {self.source} to {self.destination}"


@dataclass(frozen=True, slots=True)
class AmbiguousRules(RuleConflict):
    """Neither rule precedes the other in the order."""

    def __str__(self) -> str:
        return (
            f"{described(self.first)} and {described(self.second)} match the same traffic "
            f"and neither is more specific, {self._example}"
        )


@dataclass(frozen=True, slots=True)
class UndeclaredOverride(RuleConflict):
    """``first``, opportunistic or permit, takes traffic of ``second``, configured or deny."""

    def __str__(self) -> str:
        return (
            f"{described(self.first)}, {self.first.category.value}, takes traffic of "
            f"{described(self.second)}, {self.second.category.value}, {self._example}; "
            f"if that is meant, write override = true in the former"
        )


class PolicyConflicts(PolicyError):  # noqa: N818 - it is the conflicts, of which each is an error
    """All that is wrong with a set of rules, each pair of rules once for each kind of error."""

    def __init__(self, errors: Sequence[MeaninglessRule | RuleConflict]) -> None:
        self.errors = list(errors)
        super().__init__("\n".join(str(error) for error in self.errors))
