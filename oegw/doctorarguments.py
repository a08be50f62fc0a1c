"""What can be written behind `oegw doctor`, and the help that explains it."""

from __future__ import annotations

import argparse
from collections.abc import Callable

Add = Callable[..., argparse.ArgumentParser]
AddConfig = Callable[..., None]


def doctor(arguments: argparse.Namespace) -> int:
    """The command; what it needs is imported when it runs."""
    from oegw.doctor.command import run

    return run(arguments)


def add_doctor(add: Add, add_config: AddConfig) -> None:
    """``add`` makes the parser of a command; ``add_config`` gives it the option ``--config``."""
    parser = add(
        "doctor",
        "Examine this box and say what is wrong, why it matters, and which command mends it. "
        "Changes nothing. The exit code is 1 if there is a problem.",
        "oegw doctor",
        "oegw doctor --only records resolver",
        "oegw doctor --json | jq '.findings[].name'",
    )
    add_config(parser)
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument(
        "--only",
        metavar="NAME",
        nargs="+",
        action="extend",
        default=[],
        help="only these subjects, or findings, by name",
    )
