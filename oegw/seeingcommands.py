"""`oegw top`, `oegw watch`, `oegw metrics`: what each needs is imported when it runs."""

from __future__ import annotations

import os

from oegw.arguments import Arguments, Command
from oegw.asking import control_socket


def _top(arguments: Arguments) -> int:
    from oegw.top.command import top

    return top(
        control_socket(arguments), arguments.interval, arguments.order, arguments.filter,
        once=arguments.once, colour=not os.environ.get("NO_COLOR"),  # https://no-color.org
        term=os.environ.get("TERM", ""),
    )  # fmt: skip


def _watch(arguments: Arguments) -> int:
    from oegw.watchcommand import watch

    return watch(control_socket(arguments), arguments.category, arguments.address)


def _metrics(arguments: Arguments) -> int:
    from oegw.metrics.command import print_once, serve

    socket = control_socket(arguments)
    return print_once(socket) if arguments.once else serve(socket, *arguments.listen)


COMMANDS: dict[str, Command] = {"top": _top, "watch": _watch, "metrics": _metrics}
