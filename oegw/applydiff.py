"""What changes from one configuration to another, as lines.  Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

SECRET = frozenset({"password"})  # keys whose values are never shown
SHOWN = 60  # characters of a value, our choice

Values = dict[str, Any]


def differences(old: Values, new: Values, at_start: Collection[str]) -> list[str]:
    """One line for each key, and each element of an array of tables, that is not the same.

    ``at_start``: the tables that take effect at a restart.  Rules and others with a name are known
    by that, so that their order counts for nothing.
    """
    lines = []
    for path, before, after in _changes(old, new, ""):
        restart = path.partition(".")[0].partition("[")[0].partition(" ")[0] in at_start
        lines.append(_line(path, before, after) + (" (at a restart)" if restart else ""))
    return lines


def _line(path: str, before: Any, after: Any) -> str:
    secret = path.rpartition(".")[2] in SECRET
    if before is None:
        return f"added: {path}" + ("" if secret else f": {_shown(after)}")
    if after is None:
        return f"removed: {path}" + ("" if secret else f": {_shown(before)}")
    return f"changed: {path}" + ("" if secret else f": {_shown(before)} -> {_shown(after)}")


def _changes(old: Values, new: Values, above: str) -> Iterator[tuple[str, Any, Any]]:
    """Key path, value before and value after; None where there is none."""
    for key in dict.fromkeys((*old, *new)):
        path = f"{above}.{key}" if above else str(key)
        before, after = old.get(key), new.get(key)
        if _listed(before) == _listed(after):
            continue
        tables = [value for value in (before, after) if value is not None]
        if all(isinstance(value, dict) for value in tables):
            yield from _changes(before or {}, after or {}, path)
        elif all(_of_tables(value) for value in tables):
            yield from _elements(before or [], after or [], path)
        else:
            yield path, before, after


def _listed(value: Any) -> Any:
    """One value and a list of it are the same wherever there may be a list."""
    return value if value is None or isinstance(value, list | dict) else [value]


def _elements(old: list[Values], new: list[Values], path: str) -> Iterator[tuple[str, Any, Any]]:
    before, after = _named(old, path), _named(new, path)
    for name in dict.fromkeys((*before, *after)):
        one, other = before.get(name), after.get(name)
        if one is None or other is None:
            yield name, one, other
        else:
            yield from _changes(one, other, name)


def _named(tables: list[Values], path: str) -> dict[str, Values]:
    """Each element by its name, or by its number where names don't tell them apart."""
    names = [table.get("name") for table in tables]
    if all(isinstance(name, str) for name in names) and len(set(names)) == len(names):
        return {f"{path} {name!r}": table for name, table in zip(names, tables, strict=True)}
    return {f"{path}[{number}]": table for number, table in enumerate(tables, 1)}


def _of_tables(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, dict) for v in value)


def _shown(value: Any) -> str:
    """As TOML would have it, more or less, and short."""
    if isinstance(value, dict):
        pairs = (
            f"{key} = {'...' if key in SECRET else _shown(each)}"
            for key, each in value.items()
            if key != "name"
        )
        return "{ " + ", ".join(pairs) + " }"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        text = "[" + ", ".join(_shown(each) for each in value) + "]"
    else:
        text = f'"{value}"' if isinstance(value, str) else str(value)
    return text if len(text) <= SHOWN else text[: SHOWN - 3] + "..."
