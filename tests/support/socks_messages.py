"""The vectors of SOCKS messages, and the messages that their fields describe."""

from __future__ import annotations

import json
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from oegw.socks5 import wire
from oegw.socks5.wire import (
    Address,
    AddressId,
    ControlRequest,
    Credentials,
    CredentialsAnswer,
    Datagram,
    Greeting,
    MethodChoice,
    Reply,
    Request,
)

VECTORS_FILE = Path(__file__).parents[1] / "vectors" / "socks5" / "messages.json"
VECTORS = json.loads(VECTORS_FILE.read_text())

PARSERS: dict[str, Any] = {
    "greeting": wire.parse_greeting,
    "method_choice": wire.parse_method_choice,
    "credentials": wire.parse_credentials,
    "credentials_answer": wire.parse_credentials_answer,
    "request": wire.parse_request,
    "reply": wire.parse_reply,
    "control_request": wire.parse_control_request,
}


def address_of(written: dict[str, Any]) -> Address:
    match written["type"]:
        case 8:
            return AddressId(written["realid"], written["class"])
        case 3:
            return str(written["value"])
        case kind:
            address = ip_address(written["value"])
            assert address.version == {1: 4, 4: 6}[kind]
            return address


def message_of(kind: str, fields: dict[str, Any]) -> Any:
    match kind:
        case "greeting":
            return Greeting(tuple(fields["methods"]))
        case "method_choice":
            return MethodChoice(fields["method"])
        case "credentials":
            return Credentials(fields["user"].encode(), fields["password"].encode())
        case "credentials_answer":
            return CredentialsAnswer(fields["status"])
    place = address_of(fields["address"]), fields["port"]
    match kind:
        case "request":
            return Request(fields["command"], *place, fields["flag"])
        case "reply":
            return Reply(fields["code"], *place, fields["flag"])
        case "control_request":
            return ControlRequest(fields["subcommand"], *place, fields["flag"])
        case _:
            return Datagram(*place, bytes.fromhex(fields["payload"]), fields["fragment"])
