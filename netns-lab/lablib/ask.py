"""Gets a file by HTTP over a socket that asks for sealed ports: runs on a host, started by the lab.

``python3 ask.py ADDRESS PORT HOW [CGROUP]``.  HOW is ``dscp``: by the code point 7 (IP_TOS,
IPV6_TCLASS); ``option``: by the socket option 200, as an unprivileged user, after joining CGROUP.
Prints what getsockopt says of it, and how many octets came.
"""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

REQUEST_DSCP = 7
OPTION = 200
NOBODY = 65534


def main() -> None:
    address, port, how, *group = sys.argv[1:]
    six = ":" in address
    level = socket.IPPROTO_IPV6 if six else socket.IPPROTO_IP
    if group:
        (Path(group[0]) / "cgroup.procs").write_text(f"{os.getpid()}\n")
    if how == "option":
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    with socket.socket(socket.AF_INET6 if six else socket.AF_INET) as caller:
        caller.settimeout(8)
        if how == "option":
            caller.setsockopt(level, OPTION, 1)
            said = str(caller.getsockopt(level, OPTION))
        else:
            kind = socket.IPV6_TCLASS if six else socket.IP_TOS
            caller.setsockopt(level, kind, REQUEST_DSCP << 2)
            said = str(caller.getsockopt(level, kind))
        caller.connect((address, int(port)))
        caller.sendall(b"GET /file HTTP/1.0\r\n\r\n")
        octets = 0
        while more := caller.recv(65536):
            octets += len(more)
    print(f"getsockopt {said}, {octets} octets")


if __name__ == "__main__":
    main()
