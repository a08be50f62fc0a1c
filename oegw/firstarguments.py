"""What can be written behind `oegw init`, and the help that explains it."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from oegw.settings import DEFAULT_CONFIG

Add = Callable[..., argparse.ArgumentParser]
Read = Callable[[str], Any]


def add_init(add: Add, address: Read, host: Read, network: Read, fqdn: Read, bits: Read) -> None:
    """The command ``oegw init``; ``add`` makes its parser, the others read its values."""
    init = add(
        "init",
        "Write a first configuration and the gateway's key, and print the DNS records that publish "
        "it. Interfaces, addresses, resolvers and who came by ssh are found out; on a terminal "
        "two questions are asked. What is there already is never replaced.",
        "oegw init",
        "oegw init --yes --client 192.1.0.65 192.1.0.66 --management 198.51.100.7",
        "oegw init --yes --update --tsig-key /etc/oegw/tsig.key",
    )
    init.add_argument("--yes", action="store_true", help="ask nothing")
    init.add_argument(
        "--dir",
        metavar="DIR",
        type=Path,
        default=DEFAULT_CONFIG.parent,
        help=f"where both files go; default {DEFAULT_CONFIG.parent}",
    )
    _add_several(init, "--client", host, "host that this gateway encrypts for, besides itself")
    _add_several(init, "--gateway", address, "outer address; default: found out")
    _add_several(
        init, "--management", network, "who manages this box, always permitted; default: by ssh"
    )
    init.add_argument("--fqdn", metavar="NAME", type=fqdn, help="the gateway's domain name")
    init.add_argument(
        "--update", action="store_true", help="put the records into the DNS by dynamic update, too"
    )
    init.add_argument("--tsig-key", metavar="FILE", type=Path, help="signs the updates")
    init.add_argument(
        "--server", metavar="ADDRESS", type=address, help="takes them; default: by the zones' SOA"
    )
    init.add_argument("--bits", metavar="N", type=bits, help="of the key; default 3072")


def _add_several(init: argparse.ArgumentParser, option: str, read: Read, text: str) -> None:
    init.add_argument(
        option,
        metavar="ADDRESS",
        type=read,
        nargs="+",
        action="extend",
        default=[],
        help=f"{text}; may be several",
    )
