"""`oegw moniker`: services by name on the command line, and existing programs that know none.

What a command needs is imported when it runs: ssh starts `connect` for each connection.
"""

from __future__ import annotations

from pathlib import Path

from oegw import config
from oegw.arguments import Arguments, Command
from oegw.settings import DEFAULT_CONFIG, Settings


def _settings(arguments: Arguments) -> Settings:
    """The configuration's, or the usual ones where there is no gateway: names are of use to any
    host."""
    path: Path = arguments.config
    if path == DEFAULT_CONFIG and not path.exists():
        return Settings()
    return config.load(path)


def _serve(arguments: Arguments) -> int:
    from oegw import monikerprocess

    return monikerprocess.run(arguments.config)


def _status(arguments: Arguments) -> int:
    raise NotImplementedError


def _query(arguments: Arguments) -> int:
    raise NotImplementedError


def _list(arguments: Arguments) -> int:
    raise NotImplementedError


def _connect(arguments: Arguments) -> int:
    raise NotImplementedError


def _run(arguments: Arguments) -> int:
    raise NotImplementedError


def _url(arguments: Arguments) -> int:
    raise NotImplementedError


def _export(arguments: Arguments) -> int:
    raise NotImplementedError


def _find(arguments: Arguments) -> int:
    raise NotImplementedError


COMMANDS: dict[str, Command] = {
    "moniker": _status,
    "moniker serve": _serve,
    "moniker status": _status,
    "moniker query": _query,
    "moniker list": _list,
    "moniker connect": _connect,
    "moniker run": _run,
    "moniker url": _url,
    "moniker export": _export,
    "moniker find": _find,
}
