"""HPACK by the examples and the rules of RFC 7541, natively and in the kernel."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hpack.hpack import encode_integer
from hpack.table import HeaderTable

from engine import build
from engine.engine import Engine, Kernel, Native, kernel
from engine.hpack_reader import TABLE_SIZE, UNRESOLVED, EngineError, HeaderReader, Text

VECTORS: list[dict[str, Any]] = json.loads((Path(__file__).parent / "vectors" / "rfc7541-c.json").read_text())

# What the verifier may walk for one field; the hooks call the same functions.
INSTRUCTIONS = 10_000


@pytest.fixture
def reader(engine: Engine) -> HeaderReader:
    reader = HeaderReader(engine)
    reader.start()
    return reader


def integer(value: int, bits: int, pattern: int) -> bytes:
    encoded = encode_integer(value, bits)
    encoded[0] |= pattern
    return bytes(encoded)


def string(text: bytes) -> bytes:
    return integer(len(text), 7, 0) + text


def literal(name: bytes, value: bytes, pattern: int = 0x40) -> bytes:
    return bytes([pattern]) + string(name) + string(value)


def pair(name: bytes, value: bytes) -> tuple[Text, Text]:
    return Text.of(name), Text.of(value)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: str(vector["section"]))
def test_examples_of_the_rfc(reader: HeaderReader, vector: dict[str, Any]) -> None:
    if vector["table_size"] != TABLE_SIZE:
        assert reader.read(integer(vector["table_size"], 5, 0x20)) == []
    for block in vector["blocks"]:
        fields = reader.read(bytes.fromhex(block["wire"]))
        assert [(f.name, f.value) for f in fields] == [pair(n.encode(), v.encode()) for n, v in block["headers"]]
        assert reader.table() == [pair(name.encode(), value.encode()) for name, value in block["table"]]
        assert reader.shim.table_size == block["size"]


@pytest.mark.parametrize(("wire", "value"), [("2a", 10), ("3f9a0a", 1337)], ids=["C.1.1", "C.1.2"])
def test_integers_of_the_rfc(reader: HeaderReader, wire: str, value: int) -> None:
    # C.1.3 has a prefix of eight bits, which no field has.
    assert reader.read(bytes.fromhex(wire)) == []
    assert reader.shim.table_max_size == value


@pytest.mark.parametrize("index", range(1, 62))
def test_static_table(reader: HeaderReader, index: int) -> None:
    """Each entry as a whole and for its name; what it is remembered as is what the same strings give as a literal."""
    name, value = HeaderTable.STATIC_TABLE[index - 1]
    (whole,) = reader.read(integer(index, 7, 0x80))
    (named,) = reader.read(integer(index, 4, 0x00) + string(value))
    (spelt,) = reader.read(literal(name, value, 0x10))
    for field in (whole, named, spelt):
        assert (field.name, field.value) == pair(name, value)
    assert (whole.form, named.form, spelt.form) == ("INDEXED", "LITERAL", "NEVER")
    assert whole.kind == named.kind == spelt.kind
    assert whole.number == named.number == spelt.number
    assert reader.table() == []


NUMBERS = [
    (b":authority", b"a", "AUTHORITY", 0),
    (b":method", b"POST", "METHOD", 1),
    (b":method", b"GET", "METHOD", 2),
    (b":method", b"HEAD", "METHOD", 0),
    (b":method", b"POSTS", "METHOD", 0),
    (b":path", b"/a.B/C", "PATH", UNRESOLVED),
    (b":path", b"", "PATH", UNRESOLVED),
    (b":scheme", b"http", "SCHEME", 0),
    (b":status", b"200", "STATUS", 200),
    (b":status", b"099", "STATUS", 99),
    (b":status", b"20", "STATUS", 0),
    (b":status", b"2000", "STATUS", 0),
    (b":status", b"2x0", "STATUS", 0),
    (b":protocol", b"websocket", "PSEUDO", 0),
    (b":", b"", "PSEUDO", 0),
    (b"", b"", "OTHER", 0),
    (b"Grpc-status", b"1", "OTHER", 0),
    (b"grpc-statu", b"1", "OTHER", 0),
    (b"grpc-statuss", b"1", "OTHER", 0),
    (b"content-type", b"application/grpc", "CONTENT_TYPE", 1),
    (b"content-type", b"application/grpc+proto", "CONTENT_TYPE", 1),
    (b"content-type", b"application/grpc;x=y", "CONTENT_TYPE", 1),
    (b"content-type", b"application/grpc-web", "CONTENT_TYPE", 0),
    (b"content-type", b"application/grp", "CONTENT_TYPE", 0),
    (b"content-type", b"application/json", "CONTENT_TYPE", 0),
    (b"content-type", b"", "CONTENT_TYPE", 0),
    (b"grpc-status", b"", "GRPC_STATUS", 2),
    (b"grpc-status", b"17", "GRPC_STATUS", 2),
    (b"grpc-status", b"00000", "GRPC_STATUS", 0),
    (b"grpc-status", b"-1", "GRPC_STATUS", 2),
    (b"grpc-status", b"4294967296", "GRPC_STATUS", 2),
    (b"grpc-timeout", b"1H", "GRPC_TIMEOUT", 1 << 3 | 1),
    (b"grpc-timeout", b"20M", "GRPC_TIMEOUT", 20 << 3 | 2),
    (b"grpc-timeout", b"0S", "GRPC_TIMEOUT", 3),
    (b"grpc-timeout", b"300m", "GRPC_TIMEOUT", 300 << 3 | 4),
    (b"grpc-timeout", b"99999999u", "GRPC_TIMEOUT", 99999999 << 3 | 5),
    (b"grpc-timeout", b"7n", "GRPC_TIMEOUT", 7 << 3 | 6),
    (b"grpc-timeout", b"100000000n", "GRPC_TIMEOUT", 0),
    (b"grpc-timeout", b"n", "GRPC_TIMEOUT", 0),
    (b"grpc-timeout", b"1s", "GRPC_TIMEOUT", 0),
    (b"grpc-timeout", b"1 S", "GRPC_TIMEOUT", 0),
    (b"grpc-timeout", b"", "GRPC_TIMEOUT", 0),
    *((b"grpc-status", str(status).encode(), "GRPC_STATUS", status) for status in range(17)),
]


@pytest.mark.parametrize(("name", "value", "kind", "number"), NUMBERS)
def test_values_that_the_mesh_knows(reader: HeaderReader, name: bytes, value: bytes, kind: str, number: int) -> None:
    # A longer value is there before: what it left behind must not count.
    reader.read(literal(b"x" * 40, b"application/grpc0123456789"))
    (first,) = reader.read(literal(name, value))
    (again,) = reader.read(b"\xbe")
    assert (first.kind, first.number) == (again.kind, again.number) == (kind, number)
    (other,) = reader.read(integer(62, 6, 0x40) + string(value))
    assert (other.kind, other.number) == (kind, number)


def test_a_path_is_remembered_with_its_entry(reader: HeaderReader) -> None:
    (field,) = reader.read(literal(b":path", b"/shop.Cart/Add"))
    entry = reader.shim.path_entry
    assert (field.number, entry) == (UNRESOLVED, 1)
    reader.remember(entry, 7)
    (field,) = reader.read(b"\xbe")
    assert field.number == 7
    reader.remember(2, 8)  # not there yet
    reader.read(literal(b"a", b"b"))
    (field,) = reader.read(b"\xbe")
    assert field.number == 0
    reader.read(literal(b"x", b"y" * 4000))  # evicts both
    reader.read(literal(b":path", b"/other"))
    reader.remember(entry, 9)
    (field,) = reader.read(b"\xbe")
    assert field.number == UNRESOLVED


def test_an_entry_that_went_is_not_remembered_in_its_successors_place(reader: HeaderReader) -> None:
    reader.read(literal(b"", b"") * 129)  # one more than the ring has places
    reader.remember(1, 7)
    assert {field.number for field in reader.read(b"".join(integer(index, 7, 0x80) for index in range(62, 190)))} == {0}


def test_the_last_path_of_a_block_counts(reader: HeaderReader) -> None:
    fields = reader.read(literal(b":path", b"/first") + b"\x84")
    assert [field.value.beginning for field in fields] == [b"/first", b"/"]
    assert (reader.shim.path_length, reader.shim.path_entry) == (1, 0)
    reader.read(literal(b":path", b"/long" * 300, 0x00))
    assert reader.shim.path_length == 1500


def test_entries_come_and_go_for_longer_than_the_ring_is(reader: HeaderReader) -> None:
    expected: list[tuple[Text, Text]] = []
    for number in range(1000):
        name, value = b"n%d" % (number % 7), b"v" * (number % 50)
        reader.read(literal(name, value))
        expected.insert(0, pair(name, value))
        while sum(n.length + v.length + 32 for n, v in expected) > TABLE_SIZE:
            expected.pop()
        assert reader.table() == expected


def test_as_many_entries_as_there_can_be(reader: HeaderReader) -> None:
    reader.read(literal(b"", b"") * 200)
    assert (reader.shim.table_count, reader.shim.table_size) == (128, 4096)
    assert len(reader.read(b"".join(integer(index, 7, 0x80) for index in range(62, 62 + 128)))) == 128
    with pytest.raises(EngineError, match="HPACK_INDEX"):
        reader.read(integer(62 + 128, 7, 0x80))


def test_an_entry_that_fits_exactly_and_one_that_does_not(reader: HeaderReader) -> None:
    reader.read(literal(b"a", b"b"))
    reader.read(literal(b"name", b"v" * (TABLE_SIZE - 32 - 4)))
    assert reader.table() == [pair(b"name", b"v" * (TABLE_SIZE - 36))]
    reader.read(integer(62, 6, 0x40) + string(b"v" * (TABLE_SIZE - 35)))  # its own name's entry goes
    assert reader.table() == []
    assert reader.shim.entry == 0


def test_a_size_update_evicts(reader: HeaderReader) -> None:
    reader.read(literal(b"a", b"1") + literal(b"b", b"2") + literal(b"c", b"3"))
    reader.read(integer(70, 5, 0x20) + integer(100, 5, 0x20))
    assert reader.table() == [pair(b"c", b"3"), pair(b"b", b"2")]
    reader.read(integer(0, 5, 0x20) + integer(TABLE_SIZE, 5, 0x20))
    assert reader.table() == []
    assert reader.shim.table_max_size == TABLE_SIZE


@pytest.mark.parametrize("length", [0, 126, 127, 128, 1023, 1024, 1025, 5000, 32000])
def test_strings_of_every_length(reader: HeaderReader, length: int) -> None:
    value = bytes(index * 7 & 0xFF for index in range(length))
    (field,) = reader.read(literal(b":path", value, 0x00), offset=32768)
    assert (field.value, field.number) == (Text.of(value), UNRESOLVED)


ERRORS = [
    ("80", "HPACK_INDEX"),
    ("be", "HPACK_INDEX"),
    ("ff00", "HPACK_INDEX"),
    ("7f000000", "HPACK_INDEX"),
    ("ffffffffff0f", "HPACK_INTEGER"),  # 127 + 2^32 - 1
    ("ff80ffffff0f", "HPACK_INDEX"),  # 2^32 - 1
    ("ff8080808080", "HPACK_INTEGER"),
    ("ff808080808000", "HPACK_INTEGER"),
    ("ff8080808000", "HPACK_INDEX"),  # 127 in five more bytes than it needs
    ("ff", "HPACK_TRUNCATED"),
    ("ff80", "HPACK_TRUNCATED"),
    ("40", "HPACK_TRUNCATED"),
    ("4001", "HPACK_TRUNCATED"),
    ("400161", "HPACK_TRUNCATED"),
    ("40016101", "HPACK_TRUNCATED"),
    ("4001617fffffff7f", "HPACK_TRUNCATED"),
    ("41", "HPACK_TRUNCATED"),
    ("0f", "HPACK_TRUNCATED"),
    ("3fe21f", "HPACK_TABLE_SIZE"),  # 4097
    ("8220", "HPACK_TABLE_SIZE"),
    ("202082003f", "HPACK_TRUNCATED"),
]


@pytest.mark.parametrize(("wire", "reason"), ERRORS)
def test_what_is_refused(reader: HeaderReader, wire: str, reason: str) -> None:
    with pytest.raises(EngineError) as caught:
        reader.read(bytes.fromhex(wire))
    assert caught.value.reason == reason


def test_nothing_is_read_beyond_the_block(reader: HeaderReader) -> None:
    """What an earlier block left behind does not complete a later one."""
    block = literal(b"abc", b"def") * 3
    reader.read(block)
    for length in range(1, len(block)):
        part = block[:length]
        if length % len(literal(b"abc", b"def")):
            with pytest.raises(EngineError, match="HPACK_TRUNCATED"):
                reader.read(part)
        else:
            assert len(reader.read(part)) == length * 3 // len(block)


@pytest.mark.parametrize("compiler", ["zig", "clang-19"])
def test_instructions_that_the_verifier_walks(in_kernel: Kernel, native: Native, compiler: str, tmp_path: Path) -> None:
    if compiler == "zig":
        assert in_kernel.verified["engine_field"] < INSTRUCTIONS
        return
    if shutil.which(compiler) is None:
        pytest.skip("clang-19 is not installed (the cross-check compiler)")
    with kernel(build.harness_object(tmp_path, compiler=compiler)) as engine:
        assert engine.verified["engine_field"] < INSTRUCTIONS
        reader = HeaderReader(engine)
        reader.start()
        for block in VECTORS[-1]["blocks"]:
            reader.read(bytes.fromhex(block["wire"]))
        assert reader.shim.table_inserted == 8
