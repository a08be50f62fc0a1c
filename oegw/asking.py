"""Asking the running gateway something, for the commands that do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from oegw import config
from oegw.arguments import Arguments
from oegw.control import request
from oegw.exitcodes import FAILED, Failure
from oegw.settings import DEFAULT_CONFIG, GatewaySettings

ANSWER_SECONDS = 30.0


def control_socket(arguments: Arguments) -> Path:
    """Where the gateway listens: as said, as configured, or as usual.  Raises ConfigError."""
    if arguments.socket is not None:
        return Path(arguments.socket)
    if arguments.config == DEFAULT_CONFIG and not arguments.config.exists():
        return GatewaySettings().control_socket
    return config.control_socket(arguments.config)


def ask(arguments: Arguments, **message: Any) -> dict[str, Any]:
    """The answer to a request that is answered in one piece.  Raises ControlError and Failure."""
    answer: dict[str, Any] = {}
    for line in request(control_socket(arguments), message, ANSWER_SECONDS):
        answer |= line
    return without_error(answer)


def without_error(answer: dict[str, Any]) -> dict[str, Any]:
    """The answer.  Raises Failure if it is that something failed."""
    if "error" in answer:
        raise Failure(FAILED, str(answer["error"]))
    return answer
