"""YAML text to trees of nodes that know their place. No tree is deeper, and no file longer, than its limit here.

Built from PyYAML's events with a stack of its own: the library's composer recurses, so that deep nesting would end the
process, and keeps the last of two equal keys.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import yaml
from yaml.resolver import Resolver

from zerohop.config.errors import Problems, Source, shown

MAX_DEPTH: Final = 64  # managedFields, the deepest that Kubernetes prints, has about 15

# The C parser is ten times faster; a PyYAML built without libyaml lacks it.
LOADER: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_PREFIX: Final = "tag:yaml.org,2002:"
_SCALAR_TAGS: Final = frozenset({"str", "int", "float", "bool", "null"})
# Line ends that only YAML 1.1 knows (CR alone, U+0085, U+2028, U+2029) count too: editors show other line numbers
# then, and a comment would end where nobody sees it.
_UNPRINTABLE: Final = re.compile(
    "\r(?!\n)|[^\t\n\r\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]"
)
_TYPES: Final = {
    "str": "the string",
    "int": "the number",
    "float": "the number",
    "bool": "the boolean",
    "timestamp": "the date",
}


@dataclass(slots=True)
class Scalar:
    """`type` is YAML 1.1's: str, int, float, bool, null, timestamp, merge, value."""

    source: Source
    text: str
    type: str


@dataclass(slots=True)
class Sequence:
    source: Source
    items: list[Node] = field(default_factory=list)


@dataclass(slots=True)
class Mapping:
    """Keys are strings and unique."""

    source: Source
    entries: dict[str, tuple[Source, Node]] = field(default_factory=dict)


@dataclass(slots=True)
class Unusable:
    """Already reported; whoever meets it says no more."""

    source: Source


Node = Scalar | Sequence | Mapping | Unusable


def kind_of(node: Node) -> str:
    """What a node is, for messages: `a list`, `the number 5`."""
    if isinstance(node, Sequence):
        return "a list"
    if isinstance(node, Mapping):
        return "a mapping"
    if isinstance(node, Scalar):
        if node.type == "null":
            return "empty"
        text = shown(node.text) if node.type == "str" else shown(node.text)[1:-1]
        return f"{_TYPES.get(node.type, 'the word')} {text}"
    return "unusable"


class _Open:
    """A collection whose end has not come yet; in a mapping, the key that waits for its value."""

    __slots__ = ("key", "node", "takes_key")

    def __init__(self, node: Sequence | Mapping) -> None:
        self.node = node
        self.takes_key = isinstance(node, Mapping)
        self.key: tuple[str, Source] | None = None


def compose(text: str, file: str, problems: Problems) -> Iterator[Node]:
    """Yields the root of every document that is not empty; adds what is wrong to `problems`.

    After a syntax error the rest of the file is unknown: every kind counts as lost.
    """
    unprintable = _UNPRINTABLE.search(text)
    if unprintable:
        before = text[: unprintable.start()]
        source = Source(file, before.count("\n") + 1, len(before) - before.rfind("\n"))
        problems.add(source, f"unprintable character {shown(unprintable[0])}", "remove it, or write it as an escape")
        problems.lose_all()
        return
    try:
        yield from _compose(text, file, problems)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        source = Source(file, 1) if mark is None else _place(text, file, mark.line, mark.column)
        what = ", ".join(part for part in (error.context, error.problem) if part)
        hint = "check the indentation, colons and quotes here and in the line above"
        if text.split("\n")[source.line - 1].lstrip(" ").startswith("\t"):
            hint = "indent with spaces, not tabs"
        problems.add(source, f"not valid YAML: {what}", hint)
        problems.lose_all()
    except (yaml.YAMLError, ValueError) as error:
        # The parser written in Python lets chr()'s ValueError through for an escape beyond Unicode.
        problems.add(Source(file, 1), f"not valid YAML: {error}", "check characters and escapes")
        problems.lose_all()


def _place(text: str, file: str, line: int, column: int) -> Source:
    """A parser's place, counted from 0; libyaml puts the end of a file below its last line."""
    lines = text.split("\n")
    if line < len(lines):
        return Source(file, line + 1, column + 1)
    return Source(file, len(lines), len(lines[-1]) + 1)


def _compose(text: str, file: str, problems: Problems) -> Iterator[Node]:
    resolver: Any = Resolver()
    stack: list[_Open] = []
    for event in yaml.parse(text, Loader=LOADER):
        if not isinstance(event, yaml.NodeEvent | yaml.CollectionEndEvent):
            continue
        node: Node
        mark = event.start_mark
        assert mark is not None  # the parsers give every event one
        source = Source(file, mark.line + 1, mark.column + 1)
        if isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
            if len(stack) == MAX_DEPTH:
                problems.add(source, f"nested deeper than {MAX_DEPTH} levels", "no kind needs that: check the brackets")
                problems.lose_all()
                return
            is_mapping = isinstance(event, yaml.MappingStartEvent)
            _check_tag(event.tag, {"map"} if is_mapping else {"seq"}, source, problems)
            stack.append(_Open(Mapping(source) if is_mapping else Sequence(source)))
            continue
        if isinstance(event, yaml.CollectionEndEvent):
            node = stack.pop().node
        elif isinstance(event, yaml.AliasEvent):
            problems.add(source, f"alias *{event.anchor} is not supported", "write the value out")
            node = Unusable(source)
        else:
            node = _scalar(event, source, resolver, problems)
        if stack:
            _attach(stack[-1], node, problems)
        elif not (isinstance(node, Scalar) and node.type == "null"):
            yield node


def _check_tag(tag: str | None, known: set[str] | frozenset[str], source: Source, problems: Problems) -> bool:
    if tag in (None, "!") or (tag.startswith(_PREFIX) and tag.removeprefix(_PREFIX) in known):
        return True
    problems.add(source, f"tag {shown(tag)} is not supported here", "leave the tag out")
    return False


def _scalar(event: Any, source: Source, resolver: Any, problems: Problems) -> Node:
    if not _check_tag(event.tag, _SCALAR_TAGS, source, problems):
        return Unusable(source)
    text: str = event.value
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        problems.add(source, f"{shown(text)} has half of a character", "write it as one \\U escape")
        return Unusable(source)
    if event.tag == "!":
        return Scalar(source, text, "str")
    tag: str = event.tag or resolver.resolve(yaml.ScalarNode, text, event.implicit)
    return Scalar(source, text, tag.removeprefix(_PREFIX))


def _attach(parent: _Open, node: Node, problems: Problems) -> None:
    if isinstance(parent.node, Sequence):
        parent.node.items.append(node)
        return
    if not parent.takes_key:
        if parent.key is not None:
            parent.node.entries[parent.key[0]] = (parent.key[1], node)
        parent.takes_key = True
        return
    parent.takes_key = False
    parent.key = None
    if isinstance(node, Unusable):
        return
    if not isinstance(node, Scalar):
        problems.add(node.source, f"a key must be a string, not {kind_of(node)}", "write a plain name before the ':'")
    elif node.type == "merge":
        problems.add(node.source, "the merge key '<<' is not supported", "write the fields out")
    elif node.type != "str":
        problems.add(node.source, f"a key must be a string, not {kind_of(node)}", f'quote it: "{node.text}"')
    elif node.text in parent.node.entries:
        first = parent.node.entries[node.text][0]
        problems.add(node.source, f"duplicate key {shown(node.text)}", f"it is in line {first.line} already; keep one")
    else:
        parent.key = (node.text, node.source)
