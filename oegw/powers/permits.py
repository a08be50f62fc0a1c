"""What the hands do for whom: our own tables and queues, and of others' rules only reading.

The text of a transaction is read as far as it takes to see which table each command is about, and
refused where there is a doubt.  libnftables would read files and run macros if it were asked to.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from struct import Struct

from oegw.powers.orders import Iptables, NfMessage

Table = tuple[str, str]
"""Family and name."""


class NotPermittedError(Exception):
    """The hands do not do this for who asks; the message says what."""


_SHOWN = 80  # characters of what was refused
_WRITING = frozenset(("add", "create", "delete", "destroy", "flush", "insert", "replace", "reset"))
_OBJECTS = frozenset(
    ("table", "chain", "rule", "set", "map", "element", "counter", "counters", "limit", "quota")
)
_LISTED = re.compile(
    r"list (?:ruleset|tables|chains|counters|(?:table|chain|set|map|counters table)(?: [\w./-]+)+)"
)
# What the language has beside rules, inside of tables as well; and its words, which may stand right
# behind a digit.
_MACROS = frozenset(("include", "define", "redefine", "undefine"))
_NFT_WORD = re.compile(r"[A-Za-z_.][A-Za-z0-9_./-]*")

_STRUCTURE = re.compile(r'["{};\n]')

# Specification values: linux/netfilter/nf_tables.h, linux/netlink.h.
_MESSAGES = frozenset((6, 12, 14))  # NFT_MSG_NEWRULE, NEWSETELEM, DELSETELEM
_TABLE_NAME = 1  # NFTA_RULE_TABLE, NFTA_SET_ELEM_LIST_TABLE
_KIND_MASK = 0x3FFF
_ATTRIBUTE = Struct("=HH")


@dataclass(frozen=True, slots=True)
class NftPermit:
    """``writes``: the tables that may be written; ``reads``: those that may be read, None: all."""

    writes: frozenset[Table]
    reads: frozenset[Table] | None = None

    def check(self, command: str) -> None:
        """Raises NotPermittedError."""
        for statement, bare in _statements(command):
            if not self._permits(statement, bare):
                shown = statement.strip()[:_SHOWN]
                raise NotPermittedError(f"nft: not done for who asks: {shown!r}")

    def _permits(self, statement: str, bare: str) -> bool:
        if "$" in bare or not _MACROS.isdisjoint(_NFT_WORD.findall(bare)):
            return False
        words = bare.split()
        if words[0] == "list":
            return self._may_list(words)
        if words[0] in _WRITING:
            words = words[1:]
        elif words[0] != "table":
            return False
        return len(words) >= 3 and words[0] in _OBJECTS and (words[1], words[2]) in self.writes

    def _may_list(self, words: list[str]) -> bool:
        if not _LISTED.fullmatch(" ".join(words)):
            return False
        return self.reads is None or any(pair in self.reads for pair in pairwise(words))

    def check_messages(self, messages: tuple[NfMessage, ...]) -> None:
        """Of a transaction by netlink, whose family is inet.  Raises NotPermittedError."""
        for message in messages:
            tables = [
                value.rstrip(b"\0").decode("ascii", "replace")
                for kind, value in _attributes(message.body)
                if kind == _TABLE_NAME
            ]
            if message.kind not in _MESSAGES or not 0 <= message.flags < 1 << 16:
                raise NotPermittedError(f"nf_tables: no message {message.kind} for who asks")
            if len(tables) != 1 or ("inet", tables[0]) not in self.writes:
                raise NotPermittedError("nf_tables: a table that is not for who asks")


def _statements(command: str) -> Iterator[tuple[str, str]]:
    """The commands of a transaction: as they are, and with nothing in their quotations.

    Raises NotPermittedError for a text that might be read otherwise than here.
    """
    if "\\" in command or "#" in command or "\0" in command:
        raise NotPermittedError("nft: a text with a comment, a continued line or a zero")
    depth, quoted, first, seen = 0, False, 0, 0
    bare: list[str] = []
    for mark in _STRUCTURE.finditer(command + "\n"):
        at, character = mark.start(), mark[0]
        if quoted:
            if character == "\n":
                raise NotPermittedError("nft: a quotation without an end")
            if character == '"':
                quoted, seen = False, at + 1
                bare.append('""')
            continue
        bare.append(command[seen:at])
        seen = at
        if character == '"':
            quoted = True
        elif character == "{":
            depth += 1
        elif character == "}":
            depth -= 1
            if depth < 0:
                break
        if depth == 0 and character in "\n;":
            if (text := "".join(bare)).strip():
                yield command[first:at], text
            bare.clear()
            first = seen = at + 1
    if quoted or depth:
        raise NotPermittedError("nft: brackets or quotation marks without a counterpart")


def _attributes(octets: bytes) -> Iterator[tuple[int, bytes]]:
    """Raises NotPermittedError."""
    place = 0
    while place < len(octets):
        if place + _ATTRIBUTE.size > len(octets):
            raise NotPermittedError("nf_tables: a message that breaks off")
        length, kind = _ATTRIBUTE.unpack_from(octets, place)
        if length < _ATTRIBUTE.size or place + length > len(octets):
            raise NotPermittedError("nf_tables: a message that breaks off")
        yield kind & _KIND_MASK, octets[place + _ATTRIBUTE.size : place + length]
        place += length + 3 & ~3


_PROGRAMS = frozenset(("iptables", "ip6tables"))
_IPTABLES = frozenset(("mangle", "raw"))
_HOOKS = frozenset(("PREROUTING", "OUTPUT", "POSTROUTING"))
_OPTIONS = frozenset(("-m", "--mark", "--comment", "-j", "--queue-num"))
_MATCHES = frozenset(("mark", "comment"))  # -m names a library that iptables loads
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_./]*(?:-[A-Za-z0-9_]+)?")


def check_iptables(order: Iptables, comments: frozenset[str], queues: frozenset[int]) -> None:
    """Rules into our queues, with a comment of ours, are put in and taken out; all are listed.

    Raises NotPermittedError.
    """
    if order.program not in _PROGRAMS or order.table not in _IPTABLES:
        raise NotPermittedError(f"iptables: not {order.program} of table {order.table}")
    words = order.words
    if order.action == "-S" and not words:
        return
    options = [word for word in words[1:] if word.startswith("-")]
    said = dict(pairwise(words))
    if (
        order.action not in ("-A", "-D")
        or not words
        or words[0] not in _HOOKS
        or not _OPTIONS.issuperset(options)
        or not _MATCHES.issuperset(b for a, b in pairwise(words) if a == "-m")
        or not all(_WORD.fullmatch(word) for word in words if not word.startswith("-"))
        or said.get("--comment") not in comments
        or said.get("-j") != "NFQUEUE"
    ):
        raise NotPermittedError(f"iptables: no rule of ours: {' '.join(words)[:_SHOWN]}")
    number = said.get("--queue-num", "")
    if order.action == "-A" and (not number.isdecimal() or int(number) not in queues):
        raise NotPermittedError(f"iptables: queue {number[:_SHOWN]} is none of ours")
