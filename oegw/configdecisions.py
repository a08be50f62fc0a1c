"""Decision points in the configuration."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from oegw.configfile import Problems, Section, kind_of, shown
from oegw.decision import DecisionPoint, OnTimeout

# Our choices.
MAX_POINTS = 8  # all are asked for each connection
_NAME = re.compile(r"[\w.-]{1,64}")
_ON_TIMEOUT = {each.value: each for each in OnTimeout}


def read_decision_points(
    values: Any, directory: Path, problems: Problems
) -> tuple[DecisionPoint, ...]:
    """All ``[[decision_point]]``; those with faults are in ``problems`` and left out."""
    if not isinstance(values, list):
        problems.add(
            "decision_point",
            f"must be written [[decision_point]], in double brackets, not {kind_of(values)}",
        )
        return ()
    if len(values) > MAX_POINTS:
        problems.add("decision_point", f"there are more than {MAX_POINTS}")
    points: dict[str, DecisionPoint] = {}
    for number, each in enumerate(values, 1):
        if not isinstance(each, dict):
            problems.add(f"decision_point[{number}]", f"must be a table, not {kind_of(each)}")
            continue
        faults = len(problems)
        section = Section(each, f"decision_point[{number}]", problems)
        point = _point(section, directory)
        if point.name in points:
            section.wrong("name", f"there is another {shown(point.name)}")
        section.end()
        if len(problems) == faults:
            points[point.name] = point
    return tuple(points.values())


def _point(section: Section, directory: Path) -> DecisionPoint:
    default = DecisionPoint("", "")
    for key in ("name", "url"):
        if key not in section:
            section.wrong(key, "is missing")
    name, url = section.text("name") or "", section.text("url") or ""
    if name and not _NAME.fullmatch(name):
        section.wrong("name", "is not 1 to 64 letters, digits, points and hyphens")
    if url and (reason := unusable_url(url)) is not None:
        section.wrong("url", reason)
    ca = section.path_relative_to(directory, "ca", None)
    if ca is not None and not url.lower().startswith("https:"):
        section.wrong("ca", "is for https only")
    return DecisionPoint(
        name,
        url,
        section.seconds("timeout", default.timeout, 0.05, 30),
        section.choice("on_timeout", default.on_timeout, _ON_TIMEOUT),
        section.seconds("longest_ttl", default.longest_ttl, 1, 86400),
        ca,
    )


def unusable_url(url: str) -> str | None:
    """Why a URL can't be asked, or None."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        return str(error)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return f"{shown(url)} does not begin with http:// or https:// and a host"
    if parts.username is not None or parts.password is not None:
        return "has a name or password, which would show in logs"
    if parts.fragment or not url.isprintable() or " " in url or port == 0:
        return f"{shown(url)} is no address of a server"
    return None
