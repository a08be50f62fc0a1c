"""Asks a Moniker daemon for a service, in the words of its specification.

    python askmoniker.py '{"address": ..., "port": 1, "by": "tcp", "question": "* - http *", ...}'

It shares no code with the library.  Prints one JSON object: ``answer``, a line without its nonce,
or what went wrong; ``code`` (``+``, the code of a refusal, ``silent``, ``refused``); ``port`` and
``version`` of a service; ``ms`` from the first question on.  With ``until`` the question is
repeated until its answer has that code, for at most ``seconds``.
"""

from __future__ import annotations

import json
import secrets
import socket
import sys
import time
from typing import Any

PADDED = 400  # octets of a question by UDP: no answer is longer than its question
PATIENCE = 2.0  # seconds that one answer may take
PAUSE = 0.02


def _by_tcp(place: tuple[str, int], line: str, patience: float) -> str:
    with socket.create_connection(place, patience) as connection:
        connection.sendall(f"{line}\r\n".encode())
        with connection.makefile("rb") as lines:
            return lines.readline(4096).decode()


def _by_udp(place: tuple[str, int], line: str, patience: float) -> str:
    family = socket.AF_INET6 if ":" in place[0] else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as asking:
        asking.settimeout(patience)
        asking.connect(place)
        question = line.ljust(PADDED).encode()
        asking.send(question)
        answer = asking.recv(65535)
        if len(answer) > len(question):
            raise ValueError(f"{len(answer)} octets for a question of {len(question)}")
        return answer.decode()


def once(order: dict[str, Any]) -> dict[str, Any]:
    """One question.  Where the source must be proven first (UDP), the same again with a cookie."""
    ask = _by_udp if order["by"] == "udp" else _by_tcp
    place, cookie = (order["address"], order["port"]), ""
    for _ in range(2):
        nonce = secrets.token_hex(8)
        line = f"MON/1 Q {nonce} {order['question']}{cookie}"
        try:
            answer = ask(place, line, order.get("patience", PATIENCE)).strip()
        except TimeoutError:
            return {"code": "silent", "answer": ""}
        except ConnectionRefusedError:
            return {"code": "refused", "answer": ""}
        except (OSError, ValueError) as error:
            return {"code": "error", "answer": str(error)}
        words = answer.split()
        if len(words) < 4 or words[0] != "MON/1" or words[2] != nonce:
            return {"code": "error", "answer": answer[:200]}
        if words[1] == "?":
            cookie = f" {words[3]}"
            continue
        seen = " ".join(words[1:2] + words[3:])
        if words[1] == "-":
            return {"code": words[3], "answer": seen}
        return {
            "code": "+", "answer": seen, "port": int(words[3]), "transport": words[4],
            "version": words[5], "families": words[6], "ttl": int(words[7]),
        }  # fmt: skip
    return {"code": "error", "answer": "a second cookie"}


def main(order: dict[str, Any]) -> dict[str, Any]:
    began = time.monotonic()
    while True:
        result = once(order)
        result["ms"] = round(1000 * (time.monotonic() - began))
        over = time.monotonic() - began > order.get("seconds", 0)
        if over or result["code"] == order.get("until", result["code"]):
            return result
        time.sleep(PAUSE)


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
