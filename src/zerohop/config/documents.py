"""YAML text to trees of nodes that know their place. No tree is deeper, and no file longer, than its limit here.

Built from PyYAML's events with a stack of its own: the library's composer recurses, so that deep nesting would end the
process, and keeps the last of two equal keys.
"""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import yaml
from yaml.resolver import Resolver

from zerohop.config.errors import Problems, Source, shown

MAX_DEPTH: Final = 64  # managedFields, the deepest that Kubernetes prints, has about 15

# The C parser is ten times faster; a PyYAML built without libyaml lacks it.
LOADER: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

# What libyaml 0.2.6 says of more nesting than it reads, which is more than is allowed here.
_LIBRARY_DEPTH: Final = "exceeded maximum nesting depth"

_PREFIX: Final = "tag:yaml.org,2002:"
_SCALAR_TAGS: Final = frozenset({"str", "int", "float", "bool", "null"})
# Line ends that only YAML 1.1 knows (CR alone, U+0085, U+2028, U+2029) count too: editors show other line numbers
# then, and a comment would end where nobody sees it.
_UNPRINTABLE: Final = re.compile(
    "\r(?!\n)|[^\t\n\r\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]"
)
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_RESOLVER: Final[Any] = Resolver()
# First letters of what may be another type without quotes.
_NOT_ALWAYS_STRINGS: Final = frozenset(_RESOLVER.yaml_implicit_resolvers)
_OTHER_EVENTS: Final = frozenset({yaml.StreamStartEvent, yaml.DocumentStartEvent, yaml.DocumentEndEvent})
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
    items: list[Node]


@dataclass(slots=True)
class Mapping:
    """Keys are strings and unique."""

    source: Source
    entries: dict[str, tuple[Source, Node]]


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

    def __init__(self, node: Sequence | Mapping, takes_key: bool) -> None:
        self.node = node
        self.takes_key = takes_key
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
        if _LIBRARY_DEPTH in (error.problem or ""):
            _report_depth(text, file, problems)
            return
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


def _add_too_deep(source: Source, problems: Problems) -> None:
    problems.add(source, f"nested deeper than {MAX_DEPTH} levels", "no kind needs that: check the brackets")
    problems.lose_all()


def _report_depth(text: str, file: str, problems: Problems) -> None:
    """libyaml reads ahead, and gives up before it says where the nesting began; the parser in Python says it."""
    depth = 0
    source = Source(file, 1)
    with contextlib.suppress(yaml.YAMLError, ValueError):
        for event in _events(text, yaml.SafeLoader):
            if isinstance(event, yaml.CollectionStartEvent):
                mark: Any = event.start_mark
                source = Source(file, mark.line + 1, mark.column + 1)
                if depth == MAX_DEPTH:
                    break
                depth += 1
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
    _add_too_deep(source, problems)


def _place(text: str, file: str, line: int, column: int) -> Source:
    """A parser's place, counted from 0; libyaml puts the end of a file below its last line."""
    lines = text.split("\n")
    if line < len(lines):
        return Source(file, line + 1, column + 1)
    return Source(file, len(lines), len(lines[-1]) + 1)


def _compose(text: str, file: str, problems: Problems) -> Iterator[Node]:
    stack: list[_Open] = []
    # Big files have millions of events: their classes are compared, nothing is made that is not needed.
    for event in _events(text):
        kind = type(event)
        node: Node
        if kind is yaml.MappingEndEvent or kind is yaml.SequenceEndEvent:
            node = stack.pop().node
        elif kind in _OTHER_EVENTS:
            continue
        else:
            mark = event.start_mark  # the parsers give every event one
            source = Source(file, mark.line + 1, mark.column + 1)
            if kind is yaml.ScalarEvent:
                node = _scalar(event, source, problems)
            elif kind is yaml.AliasEvent:
                problems.add(source, f"alias *{event.anchor} is not supported", "write the value out")
                node = Unusable(source)
            else:
                if len(stack) == MAX_DEPTH:
                    _add_too_deep(source, problems)
                    return
                is_mapping = kind is yaml.MappingStartEvent
                if event.tag is not None:
                    _check_tag(event.tag, {"map"} if is_mapping else {"seq"}, source, problems)
                stack.append(_Open(Mapping(source, {}) if is_mapping else Sequence(source, []), is_mapping))
                continue
        if stack:
            _attach(stack[-1], node, problems)
        elif not (isinstance(node, Scalar) and node.type == "null"):
            yield node


def _events(text: str, kind: Any = None) -> Iterator[Any]:
    loader = (kind or LOADER)(text)
    try:
        event = loader.get_event()
        while event is not None and type(event) is not yaml.StreamEndEvent:
            yield event
            event = loader.get_event()
    finally:
        loader.dispose()


def _check_tag(tag: str | None, known: set[str] | frozenset[str], source: Source, problems: Problems) -> bool:
    if tag in (None, "!") or (tag.startswith(_PREFIX) and tag.removeprefix(_PREFIX) in known):
        return True
    problems.add(source, f"tag {shown(tag)} is not supported here", "leave the tag out")
    return False


def _scalar(event: Any, source: Source, problems: Problems) -> Node:
    given: str | None = event.tag
    if given is not None and not _check_tag(given, _SCALAR_TAGS, source, problems):
        return Unusable(source)
    text: str = event.value
    if not text.isascii() and _SURROGATE.search(text):
        problems.add(source, f"{shown(text)} has half of a character", "write it as one \\U escape")
        return Unusable(source)
    if given is None:
        plain, _ = event.implicit
        return Scalar(source, text, _plain_type(text) if plain and text[:1] in _NOT_ALWAYS_STRINGS else "str")
    return Scalar(source, text, "str" if given == "!" else given.removeprefix(_PREFIX))


@functools.lru_cache(4096)
def _plain_type(text: str) -> str:
    """The type of a scalar without quotes."""
    tag: str = _RESOLVER.resolve(yaml.ScalarNode, text, (True, False))
    return tag.removeprefix(_PREFIX)


def _attach(parent: _Open, node: Node, problems: Problems) -> None:
    collection = parent.node
    if type(collection) is Sequence:
        collection.items.append(node)
        return
    assert type(collection) is Mapping
    if not parent.takes_key:
        if parent.key is not None:
            collection.entries[parent.key[0]] = (parent.key[1], node)
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
    elif node.text in collection.entries:
        first = collection.entries[node.text][0]
        problems.add(node.source, f"duplicate key {shown(node.text)}", f"it is in line {first.line} already; keep one")
    else:
        parent.key = (node.text, node.source)
