"""Reads header blocks with the engine, and says what it read as strings.

The engine keeps no strings in its mirror of the dynamic table, only a number for each entry. This reader keeps the
strings by that number, so a wrong reference, a wrong eviction or a wrong number shows as a wrong string.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from hpack.table import HeaderTable

from engine.engine import Engine, get_bytes, put_bytes

TEXT_SIZE: Final = 1024
TABLE_SIZE: Final = 4096
UNRESOLVED: Final = 0xFFFFFFFF


class EngineError(Exception):
    """The engine refused its input; `reason` is a name in `enum reason`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class Text:
    """A string as the engine keeps it: its length, and no more than its first TEXT_SIZE bytes."""

    length: int
    beginning: bytes

    @classmethod
    def of(cls, whole: bytes) -> Text:
        return cls(len(whole), whole[:TEXT_SIZE])


@dataclass(frozen=True)
class Field:
    form: str
    name: Text
    value: Text
    kind: str  # of enum hpack_name
    number: int  # what the engine makes of the value


class HeaderReader:
    """Header blocks of one direction, in order."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.shim: Any = engine.shim
        self.entries: dict[int, tuple[Text, Text]] = {}

    def start(self) -> None:
        self.engine.reset()
        self.engine.call("engine_client")

    def table(self) -> list[tuple[Text, Text]]:
        """The dynamic table, newest entry first; checks that its size is that of its entries."""
        newest = self.shim.table_inserted
        table = [self.entries[newest - age] for age in range(self.shim.table_count)]
        assert self.shim.table_size == sum(name.length + value.length + 32 for name, value in table)
        return table

    def read(self, block: bytes, *, offset: int = 0) -> list[Field]:
        """The fields of a whole block; raises `EngineError`."""
        put_bytes(self.shim, block)
        self.shim.offset = offset
        self.engine.call("engine_block")
        return self.rest()

    def rest(self) -> list[Field]:
        """The fields of the block that the engine stands in."""
        fields = []
        while (result := self.engine.call("engine_field")) > 0:
            field = self._field()
            if field is not None:
                fields.append(field)
            assert self.shim.fields == len(fields)
        assert result != -self.engine.constants.reason["REASON_MAX"], "the engine contradicts itself"
        if result < 0:
            raise EngineError(self.engine.constants.reason(self.shim.reason).name.removeprefix("REASON_"))
        return fields

    def remember(self, entry: int, value: int) -> None:
        self.shim.remember_entry = entry
        self.shim.remember_value = value
        self.engine.call("engine_remember")

    def _field(self) -> Field | None:
        shim, constants = self.shim, self.engine.constants
        form = constants.form(shim.form).name.removeprefix("FORM_")
        if form == "SIZE_UPDATE":
            assert shim.table_max_size == shim.value
            return None
        name, value = self._name(), self._value(form)
        assert (name.length, value.length) == (shim.name_length, shim.value_length)
        if form == "INCREMENTAL" and shim.entry:
            assert shim.entry == shim.table_inserted
            self.entries[shim.entry] = (name, value)
        kind = constants.name(shim.name).name.removeprefix("NAME_")
        if kind == "PATH" and (form != "INDEXED" or shim.static_index):
            assert shim.path_length == value.length
            assert get_bytes(shim, "path_text", value.length) == value.beginning
            assert shim.path_entry == shim.entry
        return Field(form, name, value, kind, shim.value)

    def _name(self) -> Text:
        shim = self.shim
        if shim.static_index:
            return Text.of(HeaderTable.STATIC_TABLE[shim.static_index - 1][0])
        if shim.form == self.engine.constants.form["FORM_INDEXED"]:
            return self.entries[shim.entry][0]
        if shim.name_entry:
            return self.entries[shim.name_entry][0]
        return Text(shim.name_length, get_bytes(shim, "name_text", shim.name_length))

    def _value(self, form: str) -> Text:
        shim = self.shim
        if form != "INDEXED":
            return Text(shim.value_length, get_bytes(shim, "value_text", shim.value_length))
        if shim.static_index:
            return Text.of(HeaderTable.STATIC_TABLE[shim.static_index - 1][1])
        return self.entries[shim.entry][1]
