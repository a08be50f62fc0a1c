"""A decision point: answers `oegw`'s questions from a table (oegw/docs/decision-points.md).

    python decisionserver.py ADDRESS PORT TABLE

TABLE is a JSON file: a list of objects with perhaps ``role``, ``local``, ``remote``, which must be
those of the question, and ``reply``, the object to answer with; the first that fits is used, and
without one the answer is 204, no opinion.  A ``reply`` of "silence" is never sent.  Each question
is printed as a line of JSON.
"""

from __future__ import annotations

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

KEYS = ("role", "local", "remote")
LONGEST = 16384  # octets of a question
SILENCE = threading.Event()  # never set


class Decisions(BaseHTTPRequestHandler):
    """Answers one question."""

    table: ClassVar[list[dict[str, Any]]] = []
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        try:
            question = json.loads(self.rfile.read(min(length, LONGEST)))
        except ValueError:
            self.send_error(400)
            return
        print(json.dumps(question), flush=True)
        reply = next((row["reply"] for row in self.table if fits(row, question)), None)
        if reply == "silence":
            SILENCE.wait()
        body = b"" if reply is None else json.dumps({"version": 1, **reply}).encode()
        self.send_response(200 if body else 204)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        """What is asked is printed already."""


def fits(row: dict[str, Any], question: dict[str, Any]) -> bool:
    return all(row[key] == question.get(key) for key in KEYS if key in row)


def main(address: str, port: int, table: Path) -> None:
    Decisions.table = json.loads(table.read_text())
    server = ThreadingHTTPServer((address, port), Decisions)
    server.daemon_threads = True
    print("deciding", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
