"""Pings through the tunnel, and how many of them were lost."""

from __future__ import annotations

import re
import signal
from pathlib import Path

from tests.interop.processes import InteropError, Process, call, wait_until

MARK = b"oegw-interop-01!"  # 16 octets, repeated in each ping: a capture must not contain it
_ANSWER = re.compile(r"icmp_seq=(\d+) ttl=")


def ping(namespace: str, destination: str, count: int = 3, within: int = 10) -> None:
    """Send some packets; InteropError if one of the first ``count`` is not answered.

    By itself ping waits for the last answer no longer than for two round trips; told when to give
    up (``-w``), it sends on until it has ``count`` answers.
    """
    done = call(
        namespace,
        *("ping", "-n", "-c", str(count), "-i", "0.1", "-w", str(within), "-p", MARK.hex()),
        destination,
        check=False,
    )
    answers = {int(n) for n in _ANSWER.findall(done.stdout)}
    if not answers >= set(range(1, count + 1)):
        raise InteropError(
            f"of {count} pings to {destination} these were answered: {sorted(answers)}\n"
            f"{done.stdout}{done.stderr}"
        )


def first_packets(namespace: str, destination: str, seconds: float = 15.0) -> None:
    """Send one packet after the other until one is answered."""

    def answered() -> bool:
        return not call(
            namespace,
            *("ping", "-n", "-c", "1", "-W", "1", "-p", MARK.hex(), destination),
            check=False,
        ).returncode

    wait_until(f"a first answer of {destination}", answered, seconds)


class Stream:
    """A ping without end, 10 packets each second."""

    def __init__(self, name: str, namespace: str, destination: str, directory: Path) -> None:
        log = directory / f"ping-{name}.log"
        log.unlink(missing_ok=True)
        self._process = Process.start(
            f"ping {name}",
            namespace,
            ["ping", "-n", "-i", "0.1", "-p", MARK.hex(), destination],
            log,
        )

    def answered(self) -> set[int]:
        return {int(n) for n in _ANSWER.findall(self._process.text())}

    def await_more(self, number: int, seconds: float = 30.0) -> None:
        """Wait until as many more packets have been answered."""
        goal = len(self.answered()) + number

        def enough() -> bool:
            self._process.require()
            return len(self.answered()) >= goal

        wait_until(f"{number} more answers of {self._process.name}", enough, seconds)

    def end(self) -> list[int]:
        """Stop; the numbers of the packets that were lost: those before the last answered one."""
        self._process.end(signal.SIGINT)
        answered = self.answered()
        return sorted(set(range(1, max(answered, default=0) + 1)) - answered)
