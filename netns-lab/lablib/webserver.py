"""A web server on a host, and the files that it has."""

from __future__ import annotations

import sys
from pathlib import Path

from lablib.stage import Stage

FILE_LINE = b"oegw lab download, line %012d, %020d\n"
HTTP_PORT = 8000


def content(octets: int) -> bytes:
    """A file of numbered lines, so that any 100 octets of it contain words that can be found."""
    size = len(FILE_LINE % (0, 0))
    count = octets // size + 1
    return b"".join(FILE_LINE % (n, n * 2654435761) for n in range(count))[:octets]


def web_server(stage: Stage, host: str) -> Path:
    """Starts a web server on ``host``, unless there is one; returns the folder of its files."""
    name = f"http-{host}"
    folder = stage.lab.run.directory / name
    if name in stage.background:
        return folder
    folder.mkdir(exist_ok=True)
    arguments = ["-u", "-m", "http.server", "--bind", "::", "--directory", str(folder)]
    server = stage.lab.run.start(name, host, [sys.executable, *arguments, str(HTTP_PORT)])
    server.await_text("Serving HTTP")
    stage.background[name] = server
    return folder
