"""What can be written behind `oegw guard`, and the help that explains it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Add = Callable[..., Any]
AddOption = Callable[..., None]


def add_guard(add: Add, add_config: AddOption, add_socket: AddOption) -> None:
    """The command ``oegw guard``; ``add`` makes its parser, the others give it their options."""
    guard = add(
        "guard",
        "Say what keeps protected traffic from leaving in clear while no gateway runs: rules in "
        "the kernel, and the file that is loaded at a boot before the network. With --remove take "
        "both away, so that everything passes.",
        "oegw guard",
        "systemctl stop oegw && oegw guard --remove",
    )
    guard.add_argument(
        "--remove", action="store_true", help="open everything, now and at the next boot"
    )
    add_config(guard, "says where the file is")
    add_socket(guard)
