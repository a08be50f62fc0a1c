"""Which core runs, and what is said where the compiled one cannot."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from oegw.datapath.interface import DatapathError
from oegw.datapath.userspace.core import compiled
from oegw.datapath.userspace.core.choice import choose, what_is_missing
from oegw.datapath.userspace.core.compiled import CoreMissingError, load


def test_the_compiled_one_runs_where_it_is() -> None:
    assert (choose("auto").name, choose("auto").reason) == ("compiled", "it is there")
    assert choose("compiled").name == "compiled"


def test_pure_python_runs_where_it_is_asked_for() -> None:
    choice = choose("python")
    assert (choice.name, choice.reason) == ("python", "the configuration asks for it")


def test_an_unknown_core_is_refused() -> None:
    with pytest.raises(DatapathError, match="'rust' is none of auto, compiled, python"):
        choose("rust")


def test_what_is_missing_is_the_reason_for_pure_python(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise CoreMissingError("it was not built")

    monkeypatch.setattr(compiled, "library", missing)
    assert what_is_missing() == "it was not built"
    choice = choose("auto")
    assert (choice.name, choice.reason) == ("python", "it was not built")
    with pytest.raises(DatapathError, match="the compiled core cannot run: it was not built"):
        choose("compiled")


def test_why_it_was_not_built(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(compiled, "_HERE", tmp_path)
    monkeypatch.setattr(compiled, "_HEADERS", (str(tmp_path / "evp.h"),))
    monkeypatch.setenv("PATH", str(tmp_path))
    compiled.library.cache_clear()
    missing = what_is_missing() or ""
    compiled.library.cache_clear()
    assert "a C compiler (Debian: build-essential)" in missing
    assert "OpenSSL's header openssl/evp.h (Debian: libssl-dev) is missing" in missing


def test_what_is_no_library_cannot_be_loaded(tmp_path: Path) -> None:
    broken = tmp_path / "broken.so"
    broken.write_bytes(b"no library")
    with pytest.raises(CoreMissingError, match="cannot be loaded"):
        load(broken)


@pytest.mark.parametrize(
    ("version", "said"),
    [("999", "from another version"), ("OEGW_CORE_VERSION", "from other files than these")],
)
def test_one_of_another_version_is_not_used(tmp_path: Path, version: str, said: str) -> None:
    declared = (Path(compiled.__file__).parent / "core.h").read_text()
    source = tmp_path / "other.c"
    source.write_text(
        f"#include <stdint.h>\n{declared}\n"
        f"uint32_t oegw_core_version(void) {{ return {version}; }}\n"
        "uint32_t oegw_core_layout(void) { return 7; }\n"
    )
    other = tmp_path / "other.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(other), str(source)], check=True)
    with pytest.raises(CoreMissingError, match=said):
        load(other)
