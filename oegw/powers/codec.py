"""Frozen values as JSON and back, by what their fields are declared to be, and nothing else.

What is read was written by a process that may have been taken over: whatever is not exactly of
the declared type is an error, and nothing is executed, imported or looked up by a name that was
sent.  Values are dataclasses (by the name of their class, where there is a choice), enums, bytes,
addresses and networks, tuples, frozen sets, dicts, str, int, float, bool and None.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import json
import math
import types
import typing
from collections.abc import Callable
from enum import Enum
from functools import cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any

_ADDRESSES = (IPv4Address, IPv6Address, IPv4Network, IPv6Network)
_LONGEST_NUMBER = 1 << 64

_Read = Callable[[Any], Any]


class CodecError(Exception):
    """What was read is not what was declared; the message quotes nothing of it."""


def encode(value: Any, declared: Any) -> bytes:
    """``declared``: the type, as an annotation would say it.  Raises TypeError for our mistakes."""
    return json.dumps(_writer(declared)(value), separators=(",", ":")).encode()


def decode(octets: bytes, declared: Any) -> Any:
    """Raises CodecError."""
    try:
        plain = json.loads(octets, parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise CodecError("this is no JSON") from None
    return _reader(declared)(plain)


def _no_number(_: str) -> Any:
    raise CodecError("a number that is none")


@cache
def _fields(kind: type) -> tuple[tuple[str, Any], ...]:
    hints = typing.get_type_hints(kind)
    return tuple((field.name, hints[field.name]) for field in dataclasses.fields(kind))


def _alternatives(declared: Any) -> tuple[Any, ...] | None:
    origin = typing.get_origin(declared)
    if origin is types.UnionType or origin is typing.Union:
        return typing.get_args(declared)
    return None


# ------------------------------------------------------------------------------ writing


@cache
def _writer(declared: Any) -> Callable[[Any], Any]:
    choices = _alternatives(declared)
    if choices is not None:
        return _written_choice(choices)
    origin = typing.get_origin(declared)
    if origin in (tuple, frozenset):
        inner = [_writer(each) for each in typing.get_args(declared) if each is not Ellipsis]
        if len(inner) == 1:
            return lambda value: [inner[0](each) for each in value]
        return lambda value: [write(each) for write, each in zip(inner, value, strict=True)]
    if origin is dict:
        key, item = map(_writer, typing.get_args(declared))
        return lambda value: [[key(name), item(each)] for name, each in value.items()]
    if declared is bytes:
        return lambda value: base64.b64encode(value).decode("ascii")
    if declared in _ADDRESSES:
        return str
    if isinstance(declared, type) and issubclass(declared, Enum):
        return lambda value: value.value
    if isinstance(declared, type) and dataclasses.is_dataclass(declared):
        writers = [(name, _writer(kind)) for name, kind in _fields(declared)]
        return lambda value: [write(getattr(value, name)) for name, write in writers]
    if declared in (str, int, float, bool, None, types.NoneType):
        return lambda value: value
    raise TypeError(f"the codec has no form for {declared}")


def _written_choice(choices: tuple[Any, ...]) -> Callable[[Any], Any]:
    """By the very class of the value: a dataclass says which."""
    tagged = sum(map(dataclasses.is_dataclass, choices)) > 1
    writers = {_class_of(each): _writer(each) for each in choices}
    if len(writers) != len(choices):
        raise TypeError(f"the codec can't tell these apart: {choices}")

    def write(value: Any) -> Any:
        kind = type(value)
        if kind not in writers:
            raise TypeError(f"{kind.__name__} is none of what is declared")
        plain = writers[kind](value)
        return [kind.__name__, *plain] if tagged and dataclasses.is_dataclass(kind) else plain

    return write


def _class_of(declared: Any) -> Any:
    return types.NoneType if declared is None else typing.get_origin(declared) or declared


# ------------------------------------------------------------------------------ reading


@cache
def _reader(declared: Any) -> _Read:
    choices = _alternatives(declared)
    if choices is not None:
        return _read_choice(choices)
    origin = typing.get_origin(declared)
    if origin in (tuple, frozenset):
        return _read_sequence(origin, typing.get_args(declared))
    if origin is dict:
        return _read_pairs(*map(_reader, typing.get_args(declared)))
    if declared is bytes:
        return _bytes
    if declared in _ADDRESSES:
        return _read_text_form(declared)
    if isinstance(declared, type) and issubclass(declared, Enum):
        return _read_enum(declared)
    if isinstance(declared, type) and dataclasses.is_dataclass(declared):
        return _read_fields(declared)
    plain: dict[Any, _Read] = {
        str: _text, int: _number, float: _real, bool: _truth, None: _none, types.NoneType: _none
    }  # fmt: skip
    if declared in plain:
        return plain[declared]
    raise TypeError(f"the codec has no form for {declared}")


def _read_choice(choices: tuple[Any, ...]) -> _Read:
    classes: list[Any] = [each for each in choices if dataclasses.is_dataclass(each)]
    named = {each.__name__: _reader(each) for each in classes}
    tagged = len(named) > 1
    others = [_reader(each) for each in choices if not (tagged and dataclasses.is_dataclass(each))]

    def read(plain: Any) -> Any:
        if tagged and isinstance(plain, list):
            reader = named.get(plain[0]) if plain and isinstance(plain[0], str) else None
            if reader is None:
                raise CodecError("a value of none of the classes that are declared")
            return reader(plain[1:])
        for each in others:
            try:
                return each(plain)
            except CodecError:
                continue
        raise CodecError("a value of none of the types that are declared")

    return read


def _read_sequence(origin: Any, kinds: tuple[Any, ...]) -> _Read:
    readers = [_reader(each) for each in kinds if each is not Ellipsis]
    any_length = Ellipsis in kinds or origin is frozenset

    def read(plain: Any) -> Any:
        if not isinstance(plain, list):
            raise CodecError("no list")
        if any_length:
            return origin(readers[0](each) for each in plain)
        if len(plain) != len(readers):
            raise CodecError("a list of another length")
        return tuple(reader(each) for reader, each in zip(readers, plain, strict=True))

    return read


def _read_pairs(key: _Read, item: _Read) -> _Read:
    def read(plain: Any) -> Any:
        if not isinstance(plain, list):
            raise CodecError("no list of pairs")
        found = {}
        for each in plain:
            if not isinstance(each, list) or len(each) != 2:
                raise CodecError("no list of pairs")
            found[key(each[0])] = item(each[1])
        if len(found) != len(plain):
            raise CodecError("the same key twice")
        return found

    return read


def _read_fields(declared: Any) -> _Read:
    readers = [_reader(kind) for _, kind in _fields(declared)]

    def read(plain: Any) -> Any:
        if not isinstance(plain, list) or len(plain) != len(readers):
            raise CodecError(f"no {declared.__name__}")
        return declared(*(reader(each) for reader, each in zip(readers, plain, strict=True)))

    return read


def _read_enum(declared: Any) -> _Read:
    members = {(type(member.value), member.value): member for member in declared}

    def read(plain: Any) -> Any:
        if isinstance(plain, list | dict) or (type(plain), plain) not in members:
            raise CodecError(f"no {declared.__name__}")
        return members[type(plain), plain]

    return read


def _read_text_form(declared: Any) -> _Read:
    def read(plain: Any) -> Any:
        if not isinstance(plain, str):
            raise CodecError(f"no {declared.__name__}")
        try:
            value = declared(plain)
        except ValueError:
            raise CodecError(f"no {declared.__name__}") from None
        if str(value) != plain:
            raise CodecError(f"no {declared.__name__} as it is written")
        return value

    return read


def _bytes(plain: Any) -> bytes:
    if not isinstance(plain, str):
        raise CodecError("no octets")
    try:
        return base64.b64decode(plain, validate=True)
    except (binascii.Error, ValueError):
        raise CodecError("no octets") from None


def _text(plain: Any) -> str:
    if not isinstance(plain, str):
        raise CodecError("no text")
    try:
        plain.encode()
    except UnicodeEncodeError:  # half a character
        raise CodecError("no text") from None
    return plain


def _number(plain: Any) -> int:
    if type(plain) is not int or not -_LONGEST_NUMBER < plain < _LONGEST_NUMBER:
        raise CodecError("no whole number")
    return plain


def _real(plain: Any) -> float:
    if type(plain) not in (int, float) or not math.isfinite(plain):
        raise CodecError("no number")
    return plain  # type: ignore[no-any-return]  # an int stays one


def _truth(plain: Any) -> bool:
    if not isinstance(plain, bool):
        raise CodecError("neither true nor false")
    return plain


def _none(plain: Any) -> None:
    if plain is not None:
        raise CodecError("not nothing")
