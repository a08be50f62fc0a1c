"""Reading ``[audit]``: file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from oegw.audit import AuditSettings
from oegw.configfile import Problems, Section


def read_audit(values: Any, directory: Path, problems: Problems) -> AuditSettings:
    """The settings of the table ``audit``; what is wrong is in ``problems``.

    Relative paths start at ``directory``.
    """
    section = Section({} if values is None else values, "audit", problems)
    settings = AuditSettings(section.path_relative_to(directory, "file", None))
    section.end()
    return settings
