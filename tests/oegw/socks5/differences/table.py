"""The differences as a page of the documentation.

``python -m tests.oegw.socks5.differences.table`` writes it.
"""

from __future__ import annotations

from pathlib import Path

from tests.oegw.socks5.differences.cases import CASES
from tests.oegw.socks5.differences.expected import OTHERS, expected

PAGE = Path(__file__).parents[4] / "oegw" / "docs" / "socks-differences.md"

_HEAD = """\
# The SOCKS server beside others

## Clients

Programs and libraries of others that our server is tested with, over both families wherever they
can (`tests/oegw/socks5/clients`):

| client | what it can |
| --- | --- |
| curl | CONNECT; names by the server with `socks5h`; passwords |
| dante-client (`socksify`) | CONNECT, BIND, UDP ASSOCIATE; passwords. Finds servers at IPv4 \
addresses only; its programs reach IPv6 by names |
| PySocks | CONNECT, UDP ASSOCIATE; passwords. UDP by servers at IPv4 addresses only |
| python-socks | CONNECT, blocking and asyncio; passwords |
| npm's `socks` | CONNECT, BIND, UDP ASSOCIATE; passwords. It may declare its \
destination as its own address |
| OpenSSH | by ProxyCommand: `nc -X 5`, `oegw socks connect` |
| proxychains4 | CONNECT; passwords. IPv4 addresses, and names of both families |
| redsocks | redirected TCP by CONNECT, UDP by UDP ASSOCIATE. IPv4 only |

## Servers

The same octets told to ours and to Dante 1.4.2, microsocks 1.0.3 and OpenSSH's `ssh -D`, those of
Debian 12, each on a host with IPv4 and IPv6 on both sides; what was heard, and why it is not the
same. A test plays all of it anew: `tests/oegw/socks5/differences`, where `cases.py` has the octets.
This page is written by `python -m tests.oegw.socks5.differences.table`.

"method 02" and "reply 05" are codes of RFC 1928, a reply's with the place in it: `in4` and `in6`
are the server's addresses towards the client, `out4` and `out6` those towards the destination,
which is at `bob4` and `bob6`; `any4` is 0.0.0.0. A port is "client's" or "peer's" if it is the
number that they have, else "port". "seen from" is what the destination says; "ended" means that the
server ended the connection, "silence" that it said nothing for two seconds. An empty cell: the same
as ours. Letters are the reasons, at the end of the page.

"""
_GROUPS = {
    "Greeting": ("greeting-", "all-at-once", "version-4", "http"),
    "Password": ("password-",),
    "CONNECT": ("connect-", "request-"),
    "BIND": ("bind-",),
    "UDP ASSOCIATE": ("udp-",),
    "Other commands": ("command-", "id-"),
}


def _letters(number: int) -> str:
    """a to z, then aa, ab, and so on."""
    letters = ""
    number += 1
    while number:
        number, rest = divmod(number - 1, 26)
        letters = chr(ord("a") + rest) + letters
    return letters


def _cell(words: list[str]) -> str:
    return "; ".join(words).replace("|", "\\|").replace("\\x", "\\\\x").replace("*", "\\*")


def page() -> str:
    known = expected()
    labels: dict[str, str] = {}

    def label(reason: str) -> str:
        return labels.setdefault(reason, _letters(len(labels)))

    lines = [_HEAD]
    for title, prefixes in _GROUPS.items():
        lines.append(f"### {title}\n\n| what is sent | ours | {' | '.join(OTHERS.values())} |\n")
        lines.append("| --- " * (2 + len(OTHERS)) + "|\n")
        for case, work in CASES.items():
            if not case.startswith(prefixes):
                continue
            cells = [(work.__doc__ or "").strip().replace("\n    ", " "), _cell(known.ours[case])]
            for server in OTHERS:
                difference = known.differences.get((case, server))
                if difference is None:
                    cells.append("")
                    continue
                marks = ", ".join(label(reason) for reason in difference.why)
                cells.append(f"{_cell(difference.heard[0])} <sup>{marks}</sup>")
            lines.append(f"| {' | '.join(cells)} |\n")
        lines.append("\n")
    lines.append("### Reasons\n\n| | |\n| --- | --- |\n")
    lines += [f"| {mark} | {known.reasons[reason]} |\n" for reason, mark in labels.items()]
    return "".join(lines)


def main() -> None:
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
