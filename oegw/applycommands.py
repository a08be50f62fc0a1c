"""`oegw apply`, `oegw confirm`, `oegw check --diff`."""

from __future__ import annotations

import select
import sys
from contextlib import suppress
from pathlib import Path

from oegw import config
from oegw.applydiff import differences
from oegw.arguments import Arguments, Command
from oegw.asking import ask
from oegw.exitcodes import CONFIGURATION, FAILED, FINE, Failure
from oegw.moniker.settings import restart_notes as moniker_notes
from oegw.settings import AT_START_ONLY, Settings
from oegw.socks5.settings import restart_notes as socks_notes
from oegw.status import plain
from policy.builtin import builtin_rules
from policy.errors import PolicyError
from policy.table import PolicyTable

_AGAIN = "the configuration before it is in use again"


def _apply(arguments: Arguments) -> int:
    settings = config.load(arguments.config)
    try:
        PolicyTable((*settings.rules, *builtin_rules()), settings.default)
    except PolicyError as error:
        raise Failure(CONFIGURATION, str(error)) from error
    file = str(arguments.config.absolute())
    answer = ask(arguments, command="apply", file=file, confirm=arguments.confirm)
    for note in answer.get("notes") or ():
        print(plain(note))
    if not answer.get("trial"):
        print("in use")
        return FINE
    print(
        f"in use, on trial: without oegw confirm within {arguments.confirm} s {_AGAIN}", flush=True
    )
    if all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stdout)):
        return _await_enter(arguments)
    return FINE


def _await_enter(arguments: Arguments) -> int:
    print("Enter confirms: ", end="", flush=True)
    try:
        ready = select.select([sys.stdin], [], [], arguments.confirm)[0]
    except KeyboardInterrupt:
        print("\nnot confirmed yet: oegw confirm does, oegw confirm --refuse goes back now")
        raise
    if not ready:
        print()
        raise Failure(FAILED, f"not confirmed: {_AGAIN}")
    if not sys.stdin.readline():  # the terminal is gone
        raise Failure(FAILED, "not confirmed yet: oegw confirm does")
    ask(arguments, command="confirm")
    print("confirmed")
    return FINE


def _confirm(arguments: Arguments) -> int:
    ask(arguments, command="confirm", refuse=arguments.refuse)
    print(_AGAIN if arguments.refuse else "confirmed")
    return FINE


def difference(arguments: Arguments, settings: Settings) -> int:
    """What would change with ``settings``, a line each.  Returns 1 if something would.

    Raises ConfigError, ControlError and Failure.
    """
    if arguments.diff == Path():
        answer = ask(arguments, command="configuration")
        texts = tuple((Path(path), text) for path, text in answer.get("files") or ())
        if not texts:
            raise Failure(FAILED, "the running gateway does not tell its configuration")
    else:
        texts = config.load(arguments.diff).texts
    old = config.merged_values(texts)
    lines = differences(old, config.merged_values(settings.texts), AT_START_ONLY)
    for line in lines:
        print(plain(line))
    if not lines:
        print("nothing would change")
        return FINE
    with suppress(config.ConfigError):  # a file that a rule names has gone meanwhile
        before = config.load_texts(texts)
        for note in (
            *moniker_notes(before.moniker, settings.moniker),
            *socks_notes(before.socks, settings.socks),
        ):
            print(plain(note))
    return FAILED


COMMANDS: dict[str, Command] = {"apply": _apply, "confirm": _confirm}
