"""What can be written behind `oegw apply`, `oegw confirm` and `oegw check --diff`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

Add = Callable[..., argparse.ArgumentParser]
AddOption = Callable[..., None]

LONGEST = 86400  # seconds of a trial, our choice


def add_apply(add: Add, add_config: AddOption, add_socket: AddOption) -> None:
    """The commands; ``add`` makes the parser of one, the others give it their options."""
    apply = add(
        "apply",
        "Check the configuration and have the running gateway go over to it; what takes effect at "
        "a restart only is told. With --confirm it is on trial: without oegw confirm within the "
        "time the gateway goes back to the configuration that was in use before, whatever becomes "
        "of this command or of the connection that it was given by; so does one that starts "
        "meanwhile. The files stay as they are.",
        "oegw apply",
        "oegw apply --confirm 60",
    )
    apply.add_argument(
        "--confirm",
        metavar="SECONDS",
        type=_seconds,
        help=f"on trial for so long, 1 to {LONGEST}; on a terminal Enter confirms",
    )
    add_config(apply)
    add_socket(apply)

    confirm = add(
        "confirm",
        "Keep the configuration that is on trial; or, with --refuse, go back at once to the one "
        "before it.",
        "oegw confirm",
        "oegw confirm --refuse",
    )
    confirm.add_argument("--refuse", action="store_true", help="go back now")
    add_config(confirm)
    add_socket(confirm)


def add_diff(check: argparse.ArgumentParser) -> None:
    """The option of ``oegw check``."""
    check.add_argument(
        "--diff",
        metavar="OTHER",
        type=Path,
        nargs="?",
        const=Path(),
        help="print instead what would change against the running gateway, or against the "
        "configuration OTHER; the exit code is then 1 if something would",
    )


def _seconds(text: str) -> int:
    if len(text) > 9 or not (text.isascii() and text.isdigit()) or not 1 <= int(text) <= LONGEST:
        reason = f"{text[:60]!r} is not a number of seconds within 1 to {LONGEST}"
        raise argparse.ArgumentTypeError(reason)
    return int(text)
