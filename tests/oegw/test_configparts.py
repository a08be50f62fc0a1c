"""A configuration of several files: what is merged, what is refused, and who is named."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path

import pytest

from oegw import config
from oegw.config import ConfigError
from oegw.configparts import directory_of, line_of

MAIN = """\
version = 1
[gateway]
watch = 3 # seconds
private_key = "gateway.pem"
[[rule]]
name = "first"
category = "permit"
destination = "10.1.0.0/16"
"""
RULE = """\
[[rule]]
name = "{}"
category = "permit"
destination = "10.2.0.0/16"
protocol = 99
override = true
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    path = tmp_path / "oegw.toml"
    path.write_text(MAIN)
    directory_of(path).mkdir()
    return path


def beside(place: Path, name: str, text: str) -> Path:
    path = directory_of(place) / name
    path.write_text(text)
    return path


def problems(place: Path) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        config.load(place)
    return caught.value.problems


def test_tables_are_merged_and_rules_appended_in_the_order_of_names(place: Path) -> None:
    beside(place, "20.toml", RULE.format("third"))
    text = '[gateway]\nfqdn = "sg.example"\n[dns]\ntries = 2\n'
    beside(place, "10.toml", "version = 1\n" + RULE.format("second").replace("99", "98") + text)
    beside(place, "30.toml.off", "nonsense")
    beside(place, ".40.toml", "nonsense")
    settings = config.load(place)
    assert [rule.name for rule in settings.rules] == ["first", "second", "third"]
    assert (settings.gateway.watch, settings.gateway.fqdn) == (3, "sg.example")
    assert settings.dns.tries == 2
    assert [path.name for path, _ in settings.texts] == ["oegw.toml", "10.toml", "20.toml"]
    origins = [rule.origin.rpartition("/")[2] for rule in settings.rules]
    assert origins == ["oegw.toml: rule[1]", "10.toml: rule[1]", "20.toml: rule[1]"]
    assert {directory_of(place), directory_of(place) / "10.toml"} <= set(settings.files)


def test_the_same_key_twice_names_both_files_and_lines(place: Path) -> None:
    part = beside(place, "10.toml", "# more\n[gateway]\nwatch = 4\n")
    assert problems(place) == (f"{part}: gateway.watch, line 3: stands in {place}, line 3 too",)
    other = beside(place, "20.toml", "gateway.watch = 3\n[[gateway.private_key]]\nx = 1\n")
    found = problems(place)
    assert f"{other}: gateway.watch, line 1: stands in {place}, line 3 too" in found
    assert f"{other}: gateway.private_key, line 2: stands in {place}, line 4 too" in found


def test_faults_name_the_file_and_count_from_1_in_it(place: Path) -> None:
    part = beside(
        place, "10.toml", '[[rule]]\nname = "b"\ncategory = "permt"\n[gatewy]\n[ike]\npfs = 1'
    )
    assert problems(place) == (
        f"{part}: ike.pfs: must be a text in quotes, not the number 1",
        f'{part}: rule[1].category: \'permt\' is not "deny" or "permit" or "opportunistic" or '
        '"configured"; did you mean "permit"?',
        f'{part}: gatewy: unknown key; did you mean "gateway"?',
    )


def test_the_version_is_the_main_file_s_and_others_may_repeat_it(place: Path) -> None:
    part = beside(place, "10.toml", "version = 2\n")
    assert problems(place) == (f"{part}: version, line 1: stands in {place}, line 1 too",)
    part.write_text("version = 1\n")
    place.write_text("[gateway]\n")
    assert problems(place) == (f"{place}: version: is missing: write version = 1 in front",)


def test_relative_paths_start_at_the_file_s_own_directory(place: Path) -> None:
    (directory_of(place) / "nets").write_text("10.9.0.0/16\n")
    text = RULE.format("b").replace('destination = "10.2.0.0/16"', 'destination_file = "nets"')
    more = '[sst]\nold_keys = ["old.pem"]\n[publish]\ntsig_key = "tsig"\n'
    beside(place, "10.toml", text + more)
    settings = config.load(place)
    assert settings.gateway.private_key == place.parent / "gateway.pem"
    assert settings.publish.tsig_key == directory_of(place) / "tsig"
    assert settings.sst.old_keys == (directory_of(place) / "old.pem",)
    assert list(settings.rules[1].destination or ()) == [ip_network("10.9.0.0/16")]


def test_a_file_of_the_directory_that_cannot_be_read_is_named(place: Path) -> None:
    part = beside(place, "10.toml", "x = \n")
    assert problems(place)[0].startswith(f"{part}: ")
    part.unlink()
    part.mkdir()
    assert problems(place) == (f"{part}: Is a directory",)


def test_the_sockets_are_found_in_any_of_the_files(place: Path) -> None:
    beside(place, "10.toml", '[gateway]\ncontrol_socket = "/run/x"\n[socks]\nsocket = "s"\n')
    assert config.control_socket(place) == Path("/run/x")
    assert config.socks_socket(place) == directory_of(place) / "s"


def test_settings_are_made_again_from_what_was_read(place: Path) -> None:
    beside(place, "10.toml", "[dns]\ntries = 2\n")
    before = config.load(place)
    place.write_text("version = 1\n")
    assert config.load_texts(before.texts) == before
    assert config.merged_values(before.texts)["dns"] == {"tries": 2}


def test_a_byte_order_mark_and_lines_of_another_system_are_read(place: Path) -> None:
    place.write_bytes(b"\xef\xbb\xbf" + MAIN.replace("\n", "\r\n").encode())
    assert config.load(place).gateway.watch == 3


@pytest.mark.parametrize(
    ("text", "path", "line"),
    [
        ("a = 1\n[b]\nc = 2\n", "b.c", 3),
        ("a = 1\n[b]\nc = 2\n", "a", 1),
        ("[ b ] # here\n c=2\n", "b.c", 2),
        ("b.c = 2\n", "b.c", 1),
        ("[[rule]]\nname = 1\n", "rule", 1),
        ("b = { c = 2 }\n", "b.c", None),
    ],
)
def test_lines_are_found(text: str, path: str, line: int | None) -> None:
    assert line_of(text, path) == line


def test_the_directory_goes_by_the_name_of_the_file() -> None:
    assert directory_of(Path("/etc/oegw/oegw.toml")) == Path("/etc/oegw/oegw.d")
    assert directory_of(Path("/etc/oegw/conf")) == Path("/etc/oegw/conf.d")
