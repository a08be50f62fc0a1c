"""Which of the two cores runs, and why: what ``core`` in the configuration asks for, and what
there is."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Protocol

from oegw.datapath.interface import DatapathError
from oegw.datapath.userspace.core.interface import OpeningCore, SealingCore
from oegw.datapath.userspace.transform import Random

AUTO, COMPILED, PYTHON = "auto", "compiled", "python"
WANTED = (AUTO, COMPILED, PYTHON)
PYTHON_BY_OPENSSL = "python-by-openssl"  # for workers only: after crashes


class MakesSealing(Protocol):
    def __call__(self, offloads: bool, random: Random) -> SealingCore: ...


class MakesOpening(Protocol):
    def __call__(self, offloads: bool, joins_udp: bool, random: Random) -> OpeningCore: ...


Libraries = tuple[tuple[str, str, str], ...]
"""What they do for a core, their names, and why no faster one does; empty if there is none."""


@dataclass(frozen=True, slots=True)
class CoreChoice:
    """``name``: "compiled" or "python"; ``reason`` completes "compiled core: ..." or "pure Python
    core: ..." for an operator.  The callables make the cores of one worker."""

    name: str
    reason: str
    libraries: Libraries
    sealing: MakesSealing
    opening: MakesOpening


def choose(wanted: str) -> CoreChoice:
    """The core for ``wanted``, one of WANTED.  What is missing for the compiled core is the reason
    for pure Python.  Raises DatapathError if the compiled core is asked for by name and missing."""
    if wanted == PYTHON_BY_OPENSSL:
        return _pure("the compiled one crashed", fast=False)
    if wanted not in WANTED:
        raise DatapathError(f"core {wanted!r} is none of {', '.join(WANTED)}")
    if wanted == PYTHON:
        return _pure("the configuration asks for it")
    missing = what_is_missing()
    if missing is None:
        return _compiled("it is there" if wanted == AUTO else "the configuration asks for it")
    if wanted == COMPILED:
        raise DatapathError(f"the compiled core cannot run: {missing}")
    return _pure(missing)


def what_is_missing() -> str | None:
    """Why the compiled core cannot run here; None if it can."""
    try:
        from oegw.datapath.userspace.core import compiled
    except ModuleNotFoundError as error:
        return f"the Python package {error.name} is not installed, by which the compiled one is run"
    try:
        compiled.library()
    except compiled.CoreMissingError as error:
        return str(error)
    return None


def _compiled(reason: str) -> CoreChoice:
    from oegw.datapath.userspace.core.compiled import (
        CompiledOpeningCore,
        CompiledSealingCore,
        aes_gcm,
    )

    libraries = (("AES-GCM", *aes_gcm()[1:]),)
    return CoreChoice(COMPILED, reason, libraries, CompiledSealingCore, CompiledOpeningCore)


def _pure(reason: str, fast: bool = True) -> CoreChoice:
    from oegw.datapath.userspace.core.bursts import bursts
    from oegw.datapath.userspace.core.multibuffer import NoLibraryError
    from oegw.datapath.userspace.core.pureopening import PureOpeningCore
    from oegw.datapath.userspace.core.puresealing import PureSealingCore
    from oegw.datapath.userspace.core.summing import told

    by, why = None, "others are not tried after crashes"
    if fast:
        try:
            by, why = bursts(), ""
        except NoLibraryError as error:
            why = str(error)
    name = "OpenSSL" if by is None else f"{by.name}, and alone by OpenSSL"
    libraries = (("AES-GCM", name, why), ("checksums", *told()))
    return CoreChoice(
        PYTHON,
        reason,
        libraries,
        partial(PureSealingCore, bursts=by),
        partial(PureOpeningCore, bursts=by),
    )
