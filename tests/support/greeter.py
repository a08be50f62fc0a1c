"""A server written with the library, as the paper's listing 2: it forks for each connection.

    greeter.py NAME VERSION [namespace=-] [tcpmux=1] [export=1] [transport=udp]

It greets with its name, version and user, and repeats what it hears; a datagram it repeats to its
sender.
"""

from __future__ import annotations

import os
import pwd
import signal
import sys

from oegw import moniker


def serve(name: str, version: str, options: dict[str, str]) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with moniker.serve(
        name,
        version=version,
        namespace={"-": ""}.get(options.get("namespace", ""), options.get("namespace")),
        tcpmux="tcpmux" in options,
        exported="export" in options,
        transport=options.get("transport", "tcp"),
    ) as service:
        print("serving", flush=True)
        while options.get("transport") == "udp":
            octets, sender = service.receive(4096)
            service.answer(f"{name} {version} heard {octets.decode()}".encode(), sender)
        for session in service:
            if os.fork() == 0:
                me = f"{name} {version}"
                session.send(f"{me} of {pwd.getpwuid(os.getuid()).pw_name}\n".encode())
                while octets := session.recv(4096):
                    session.send(f"{me} heard {octets.decode()}".encode())
                os._exit(0)
            session.close()


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2], dict(word.split("=", 1) for word in sys.argv[3:]))
