"""The command ``oegw``, and ``python -m oegw``.

All else is loaded here, which takes a while: who interrupts that sees no traceback either.
"""

import sys


def main() -> int:
    """Run one command; returns the exit code."""
    try:
        from oegw.cli import main as command

        return command()
    except KeyboardInterrupt:
        return 130  # 128 + SIGINT, as shells have it


if __name__ == "__main__":
    sys.exit(main())
