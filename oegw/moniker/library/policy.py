"""What applications of this host may ask for (MK-17): its daemon says it, or the configuration.

A library can be gone around; a host that must not be trusted needs the gateway's rules too.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from oegw.moniker.library.errors import DaemonAbsent, PolicyUnreadable, RegistrationRefused
from oegw.moniker.library.local import ask_daemon
from oegw.moniker.settings import DEFAULT_SOCKET, ClientSettings, IPNetwork, ServiceRule

# The usual one of `oegw.settings`, which takes a while to import.
DEFAULT_CONFIG = Path("/etc/oegw/oegw.toml")

# Our choice.
LONGEST = 2.0  # seconds for a daemon that is there to say it

_WORDS = ("never", "prefer", "require")

_read: dict[Path, tuple[tuple[int, int], ClientSettings]] = {}  # by its time and size


def policy_of_this_host(
    daemon: Path = DEFAULT_SOCKET,
    configuration: Path = DEFAULT_CONFIG,
    *,
    seconds: float = LONGEST,
) -> ClientSettings:
    """Without daemon and configuration there is none, and everything is allowed.  ``seconds``: for
    the daemon's answer; a daemon that gives none in LONGEST is none.

    Raises PolicyUnreadable: what can't be read may forbid.
    """
    try:
        return parsed(
            ask_daemon({"do": "policy"}, daemon=daemon, timeout=max(min(seconds, LONGEST), 0.001))
        )
    except RegistrationRefused as error:
        raise PolicyUnreadable(
            f"{daemon}: does not tell the policy of this host: {error}"
        ) from None
    except DaemonAbsent:
        return _configured(configuration)


def parsed(answer: Mapping[str, Any]) -> ClientSettings:
    """What `localwire` says of ``policy``.  Raises PolicyUnreadable."""
    try:
        encrypt = answer["encrypt"]
        if encrypt not in _WORDS:
            raise ValueError("encrypt")
        return ClientSettings(tuple(_rule(each) for each in answer["rules"]), encrypt)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise PolicyUnreadable(f"the policy of this host can't be read: {error}") from None


def _rule(row: Mapping[str, Any]) -> ServiceRule:
    allow = row["allow"]
    if not isinstance(allow, bool):
        raise ValueError("allow")
    return ServiceRule(
        allow,
        str(row.get("service", "*")),
        str(row.get("namespace", "*")),
        _networks(row.get("clients", ())),
        _networks(row.get("hosts", ())),
        row.get("encrypted", False) is True,
        str(row.get("origin", "")),
    )


def _networks(texts: list[str]) -> tuple[IPNetwork, ...]:
    return tuple(ip_network(each) for each in texts)


def _configured(path: Path) -> ClientSettings:
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return ClientSettings()
    except OSError as error:
        raise PolicyUnreadable(f"{path}: {error.strerror}") from None
    state = (status.st_mtime_ns, status.st_size)
    if path in _read and _read[path][0] == state:
        return _read[path][1]
    from oegw.config import ConfigError, load

    try:
        settings = load(path).moniker.client
    except ConfigError as error:
        raise PolicyUnreadable(f"the policy of this host can't be read: {error}") from None
    _read.clear()
    _read[path] = (state, settings)
    return settings
