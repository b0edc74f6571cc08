"""Reads a mapping field by field, strictly: what nobody asked for is an error with the nearest name."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from zerohop.config.documents import Mapping, Node, Scalar, Sequence, Unusable, kind_of
from zerohop.config.errors import Problems, Source, shown, suggest
from zerohop.config.names import Check

_DECIMAL: Final = re.compile(r"-?(0|[1-9][0-9]{0,17})")
_BOOLEANS: Final = {"true": True, "false": False}


@dataclass(frozen=True, slots=True)
class Text:
    value: str
    source: Source


@dataclass(slots=True)
class Places:
    """Where the fields of one object stand: `spec.ports[0].port` to its place, unless nobody will ask (`kept`)."""

    start: Source
    fields: dict[str, Source] = field(default_factory=dict)
    kept: bool = True

    def of(self, path: str) -> Source:
        """The field's place, or the object's where the field is not written."""
        return self.fields.get(path, self.start)


class Path(NamedTuple):
    """Names a field in messages, as in `spec.rules[3]`: written out when there is one."""

    parent: Path | str
    name: str
    place: int | None = None  # in a list

    def __str__(self) -> str:
        before = str(self.parent)
        whole = f"{before}.{self.name}" if before else self.name
        return whole if self.place is None else f"{whole}[{self.place}]"


class Fields:
    """One mapping. Each reader marks its field as known and reports what is wrong with it; `finish` reports the rest.

    A field that is absent or null reads as None (or as nothing). `path` names the mapping in messages.
    """

    __slots__ = ("_known", "_unsaid", "node", "path", "places", "problems")

    def __init__(self, node: Mapping, path: Path | str, problems: Problems, places: Places) -> None:
        self.node = node
        self.path = path
        self.problems = problems
        self.places = places
        self._known: set[str] = set()
        self._unsaid: set[str] = set()  # known, but nothing to suggest

    def name_of(self, name: str) -> str:
        path = str(self.path)
        return f"{path}.{name}" if path else name

    def has(self, name: str) -> bool:
        """Whether the field is there and not null."""
        return self._take(name) is not None

    def is_empty(self, name: str) -> bool:
        """Whether a list is absent, or there with nothing in it."""
        node = self._take(name)
        return node is None or (isinstance(node, Sequence) and not node.items)

    def absent(self, *names: str) -> bool:
        """Whether none of the fields is there."""
        self._known.update(names)
        return self.node.entries.keys().isdisjoint(names)

    def place(self, name: str) -> Source:
        entry = self.node.entries.get(name)
        return self.node.source if entry is None else entry[1].source

    def error(self, name: str, message: str, hint: str | None = None) -> None:
        """Reports something about a field, at its value."""
        self.problems.add(self.place(name), f"{self.name_of(name)}: {message}", hint)

    def text(self, name: str, check: Check | None = None, *, required: bool = False) -> str | None:
        """A string that passes `check`; None otherwise."""
        node = self._take(name, required=required)
        return self._string(node, Path(self.path, name), check) if node is not None else None

    def raw(self, name: str) -> Node | None:
        """Whatever the field holds."""
        return self._take(name)

    def choice(self, name: str, values: Iterable[str], *, required: bool = False) -> str | None:
        """One of the strings."""
        value = self.text(name, required=required)
        known = list(values)
        if value is None or value in known:
            return value
        self.error(name, f"{shown(value)} is not one of its values", suggest(value, known, "value"))
        return None

    def integer(self, name: str, low: int, high: int, *, required: bool = False) -> int | None:
        """A decimal number between the two, both included."""
        node = self._take(name, required=required)
        return self.number(node, self.name_of(name), low, high) if node is not None else None

    def boolean(self, name: str) -> bool | None:
        """`true` or `false`; YAML 1.1's other spellings are refused."""
        node = self._take(name)
        if node is None or isinstance(node, Unusable):
            return None
        if isinstance(node, Scalar) and node.type == "bool" and node.text in _BOOLEANS:
            return _BOOLEANS[node.text]
        self.error(name, f"must be true or false, not {kind_of(node)}", "write true or false, without quotes")
        return None

    def mapping(self, name: str, *, required: bool = False) -> Fields | None:
        """The readers of a mapping in this one."""
        node = self._take(name, required=required)
        return self.fields_of(node, Path(self.path, name)) if node is not None else None

    def items(self, name: str) -> list[tuple[Node, Path]]:
        """A list's elements, each with its path."""
        node = self._take(name)
        if node is None or isinstance(node, Unusable):
            return []
        if not isinstance(node, Sequence):
            message = f"{self.name_of(name)}: must be a list, not {kind_of(node)}"
            self.problems.add(node.source, message, "write [a, b], or lines with '- '")
            return []
        elements = [(element, Path(self.path, name, index)) for index, element in enumerate(node.items)]
        if self.places.kept:
            self.places.fields.update({str(where): element.source for element, where in elements})
        return elements

    def texts(self, name: str, check: Check | None = None) -> list[Text]:
        """A list of strings that pass `check`."""
        values = ((self._string(node, path, check), node.source) for node, path in self.items(name))
        return [Text(value, source) for value, source in values if value is not None]

    def strings(self, name: str, check: Check | None = None) -> tuple[str, ...]:
        """A list of strings that pass `check`, without their places."""
        node = self._take(name)
        if type(node) is not Sequence or self.places.kept:
            return tuple(each.value for each in self.texts(name, check))
        read: list[str] = []
        for index, each in enumerate(node.items):
            if type(each) is Scalar and each.type == "str" and (check is None or check(each.text) is None):
                read.append(each.text)
            else:
                self._string(each, Path(self.path, name, index), check)
        return tuple(read)

    def pairs(self, name: str, key: Check, value: Check | None = None) -> dict[str, str]:
        """A mapping of names to strings, such as labels."""
        inner = self.mapping(name)
        if inner is None:
            return {}
        read: dict[str, str] = {}
        for word, (source, node) in inner.node.entries.items():
            inner.places.fields[inner.name_of(word)] = node.source
            fault = key(word)
            if fault is not None:
                self.problems.add(source, f"{inner.path}: {fault.message}", fault.hint)
            text = self._string(node, inner.name_of(word), value)
            if fault is None and text is not None:
                read[word] = text
        return read

    def accept(self, *names: str) -> None:
        """Fields that are valid and mean nothing to zerohop (docs/configuration.md says why), whatever they hold."""
        self._known.update(names)
        self._unsaid.update(names)

    def refuse(self, name: str, why: str, hint: str) -> None:
        """A field that exists and cannot be honoured: an error if it is there."""
        if self._take(name) is not None:
            self.error(name, why, hint)
        self._unsaid.add(name)

    def finish(self) -> None:
        """Reports every field that no reader asked for."""
        if self.node.entries.keys() <= self._known:
            return
        for name, (source, _) in self.node.entries.items():
            if name not in self._known:
                hint = suggest(name, self._known - self._unsaid, "field here")
                where = f"{self.path}: " if self.path else ""
                self.problems.add(source, f"{where}unknown field {shown(name)}", hint)

    def without_places(self) -> Fields:
        """The same readers, of whose fields nobody will ask where they stand once they are read."""
        return Fields(self.node, self.path, self.problems, Places(self.places.start, kept=False))

    def fields_of(self, node: Node, path: Path) -> Fields | None:
        """The readers of a mapping; None, with an error, where the node is something else."""
        if isinstance(node, Mapping):
            return Fields(node, path, self.problems, self.places)
        if not isinstance(node, Unusable):
            message = f"{path}: must be a mapping, not {kind_of(node)}"
            self.problems.add(node.source, message, "write 'name: value' in lines below it")
        return None

    def number(self, node: Node, path: Path | str, low: int, high: int) -> int | None:
        """The number that a node holds; None, with an error, where it holds none between the two."""
        if isinstance(node, Unusable):
            return None
        asked = f"a number from {low} to {high}"
        if not isinstance(node, Scalar) or node.type != "int":
            unquoted = isinstance(node, Scalar) and _DECIMAL.fullmatch(node.text)
            hint = "write it without quotes" if unquoted else f"write {asked}"
            self.problems.add(node.source, f"{path}: must be {asked}, not {kind_of(node)}", hint)
            return None
        if not _DECIMAL.fullmatch(node.text):
            # YAML 1.1 reads 010 as 8 and 1:30 as 90; huge ones are out of every range.
            message = f"{path}: {shown(node.text)} is not {asked} in plain decimal digits"
            self.problems.add(node.source, message, "write decimal digits, without a leading 0, '_' or ':'")
            return None
        value = int(node.text)
        if not low <= value <= high:
            self.problems.add(node.source, f"{path}: {value} is out of range", f"write {asked}")
            return None
        return value

    def _string(self, node: Node, path: Path | str, check: Check | None) -> str | None:
        if isinstance(node, Unusable):
            return None
        if not isinstance(node, Scalar) or node.type != "str":
            quotable = isinstance(node, Scalar) and node.type != "null"
            hint = f'quote it: "{node.text[:60]}"' if isinstance(node, Scalar) and quotable else "write a string"
            self.problems.add(node.source, f"{path}: must be a string, not {kind_of(node)}", hint)
            return None
        fault = check(node.text) if check is not None else None
        if fault is not None:
            self.problems.add(node.source, f"{path}: {fault.message}", fault.hint)
            return None
        return node.text

    def _take(self, name: str, *, required: bool = False) -> Node | None:
        self._known.add(name)
        entry = self.node.entries.get(name)
        if entry is not None:
            node = entry[1]
            if self.places.kept:
                self.places.fields[self.name_of(name)] = node.source
            if not (isinstance(node, Scalar) and node.type == "null"):
                return node
        if required:
            source = self.place(name)
            self.problems.add(source, f"{self.name_of(name)} is missing", f"add '{name}:'" + self._of_path())
        return None

    def _of_path(self) -> str:
        return f" under {self.path}" if self.path else " to the object"
