"""Python layouts of the structures that kernel and user space share, generated from the object's own BTF.

BTF: Documentation/bpf/btf.rst. Only what C structures of scalars, arrays and structures need is read.
"""

from __future__ import annotations

import ctypes
import enum
from pathlib import Path
from typing import Any, Final

from zerohop.kernel import libbpf

_KIND_INT: Final = 1
_KIND_PTR: Final = 2
_KIND_ARRAY: Final = 3
_KIND_STRUCT: Final = 4
_KIND_ENUM: Final = 6
_TRANSPARENT: Final = (8, 9, 10, 11, 18)  # typedef, volatile, const, restrict, type tag

_UNSIGNED: Final = {1: ctypes.c_uint8, 2: ctypes.c_uint16, 4: ctypes.c_uint32, 8: ctypes.c_uint64}
_SIGNED: Final = {1: ctypes.c_int8, 2: ctypes.c_int16, 4: ctypes.c_int32, 8: ctypes.c_int64}


class _Type(ctypes.Structure):
    _fields_ = (("name_off", ctypes.c_uint32), ("info", ctypes.c_uint32), ("size_or_type", ctypes.c_uint32))

    name_off: int
    info: int
    size_or_type: int


class _Member(ctypes.Structure):
    _fields_ = (("name_off", ctypes.c_uint32), ("type", ctypes.c_uint32), ("offset", ctypes.c_uint32))


class _Array(ctypes.Structure):
    _fields_ = (("type", ctypes.c_uint32), ("index_type", ctypes.c_uint32), ("nelems", ctypes.c_uint32))


class _EnumValue(ctypes.Structure):
    _fields_ = (("name_off", ctypes.c_uint32), ("value", ctypes.c_int32))


class Layouts:
    """The types of one object. `struct("end")` is a `ctypes.Structure` class, `enum("reason")` an `IntEnum`."""

    def __init__(self, btf: ctypes.c_void_p) -> None:
        self._btf = btf
        self._structures: dict[int, type[ctypes.Structure]] = {}
        self._enums: dict[str, type[enum.IntEnum]] = {}

    @classmethod
    def of_object(cls, file: Path) -> Layouts:
        return cls(libbpf.pointer(f"reading the types of {file}", "btf__parse", str(file).encode(), None))

    @classmethod
    def of_map(cls, fd: int) -> Layouts:
        """Those that the kernel keeps with a map: of the object that made it, whichever that was."""
        number = libbpf.map_info(fd).btf_id
        return cls(libbpf.pointer("reading the types of a map", "btf__load_from_kernel_by_id", number))

    def close(self) -> None:
        """Frees libbpf's copy; classes already made stay valid."""
        if self._btf:
            libbpf.library().btf__free(self._btf)
            self._btf = ctypes.c_void_p(None)

    def struct(self, name: str) -> type[Any]:
        """The class of `struct name`: fields by their C names, no implicit padding left out."""
        return self._structure(self._find(name, _KIND_STRUCT))

    def enum(self, name: str) -> type[enum.IntEnum]:
        """`enum name` with its C constants."""
        if name not in self._enums:
            identifier = self._find(name, _KIND_ENUM)
            address, head = self._type(identifier)
            values = (_EnumValue * (head.info & 0xFFFF)).from_address(address + ctypes.sizeof(_Type))
            members = {self._name(value.name_off): value.value for value in values}
            made: type[enum.IntEnum] = enum.IntEnum(name, members)  # type: ignore[misc]
            self._enums[name] = made
        return self._enums[name]

    def _find(self, name: str, kind: int) -> int:
        return libbpf.call(f"looking up the type {name}", "btf__find_by_name_kind", self._btf, name.encode(), kind)

    def _type(self, identifier: int) -> tuple[int, _Type]:
        address = libbpf.pointer("reading a type", "btf__type_by_id", self._btf, identifier).value
        assert address is not None
        return address, _Type.from_address(address)

    def _name(self, offset: int) -> str:
        name: bytes = libbpf.library().btf__name_by_offset(self._btf, offset)
        return name.decode()

    def _structure(self, identifier: int) -> type[ctypes.Structure]:
        if identifier in self._structures:
            return self._structures[identifier]
        address, head = self._type(identifier)
        members = (_Member * (head.info & 0xFFFF)).from_address(address + ctypes.sizeof(_Type))
        fields = [(self._name(member.name_off), self._ctype(member.type)) for member in members]
        made = type(self._name(head.name_off), (ctypes.Structure,), {"_fields_": fields})
        for member, (name, _) in zip(members, fields, strict=True):
            if getattr(made, name).offset * 8 != member.offset:
                raise TypeError(f"struct {made.__name__}: {name} is not where C puts it")
        if ctypes.sizeof(made) != head.size_or_type:
            raise TypeError(f"struct {made.__name__}: its size differs from C's")
        self._structures[identifier] = made
        return made

    def _ctype(self, identifier: int) -> Any:
        address, head = self._type(identifier)
        kind = (head.info >> 24) & 0x1F
        if kind in _TRANSPARENT:
            return self._ctype(head.size_or_type)
        if kind == _KIND_INT:
            encoding = ctypes.c_uint32.from_address(address + ctypes.sizeof(_Type)).value >> 24
            if head.size_or_type == 1 and encoding & 1:
                return ctypes.c_char
            return (_SIGNED if encoding & 1 else _UNSIGNED)[head.size_or_type]
        if kind == _KIND_ENUM:
            return _UNSIGNED[head.size_or_type]
        if kind == _KIND_PTR:
            return ctypes.c_uint64
        if kind == _KIND_ARRAY:
            array = _Array.from_address(address + ctypes.sizeof(_Type))
            return self._ctype(array.type) * array.nelems
        if kind == _KIND_STRUCT:
            return self._structure(identifier)
        raise TypeError(f"BTF kind {kind} does not occur in shared structures")
