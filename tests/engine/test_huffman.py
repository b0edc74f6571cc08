"""Huffman strings against the code of another implementation, natively and in the kernel."""

from __future__ import annotations

import random

import pytest
from hpack.hpack import encode_integer
from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH

from engine.engine import Engine
from engine.hpack_reader import EngineError, HeaderReader, Text

ENCODER = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH)
EOS = 256


@pytest.fixture
def reader(engine: Engine) -> HeaderReader:
    reader = HeaderReader(engine)
    reader.start()
    return reader


def never_indexed(encoded: bytes) -> bytes:
    """A field without a name whose value is `encoded`."""
    length = encode_integer(len(encoded), 7)
    length[0] |= 0x80
    return b"\x10\x00" + bytes(length) + encoded


def bits(symbols: list[int], padding: str) -> bytes:
    text = "".join(f"{REQUEST_CODES[each]:0{REQUEST_CODES_LENGTH[each]}b}" for each in symbols) + padding
    assert len(text) % 8 == 0
    return int(text or "0", 2).to_bytes(len(text) // 8, "big")


def test_every_byte(reader: HeaderReader) -> None:
    for byte in range(256):
        for count in (1, 2, 3, 9):
            value = bytes([byte]) * count
            (field,) = reader.read(never_indexed(ENCODER.encode(value)))
            assert field.value == Text.of(value)


def test_every_pair_of_bytes(reader: HeaderReader) -> None:
    """Each first byte with all second ones, so that every code follows every other at many offsets in a byte."""
    for first in range(256):
        for half in range(2):
            value = bytes(x for second in range(128 * half, 128 * half + 128) for x in (first, second))
            (field,) = reader.read(never_indexed(ENCODER.encode(value)))
            assert field.value == Text.of(value)


def test_beyond_what_is_kept(reader: HeaderReader) -> None:
    generator = random.Random(7541)
    for length in (1023, 1024, 1025, 6000):
        value = generator.randbytes(length)
        (field,) = reader.read(never_indexed(ENCODER.encode(value)))
        assert field.value == Text.of(value)
    value = b"0" * 52000  # 32,500 bytes of five bits each
    (field,) = reader.read(never_indexed(ENCODER.encode(value)))
    assert field.value == Text.of(value)


@pytest.mark.parametrize("last", range(256))
def test_padding(reader: HeaderReader, last: int) -> None:
    """After any symbol: ones up to the byte's end are padding, a byte more or a zero among them is not."""
    missing = -REQUEST_CODES_LENGTH[last] % 8
    (field,) = reader.read(never_indexed(bits([last], "1" * missing)))
    assert field.value == Text.of(bytes([last]))
    with pytest.raises(EngineError, match="HPACK_HUFFMAN"):
        reader.read(never_indexed(bits([last], "1" * (missing + 8))))
    for zero in range(missing):
        padding = "1" * zero + "0" + "1" * (missing - zero - 1)
        if any(
            padding.startswith(f"{code:0{length}b}")
            for code, length in zip(REQUEST_CODES, REQUEST_CODES_LENGTH, strict=True)
        ):
            continue  # a symbol of its own
        with pytest.raises(EngineError, match="HPACK_HUFFMAN"):
            reader.read(never_indexed(bits([last], padding)))


@pytest.mark.parametrize(
    "encoded",
    [
        b"\xff",
        b"\xff\xff",
        b"\xff\xff\xff\xff",
        bits([EOS], "11"),
        bits([97, EOS], "11111"),
        bits([EOS, 97], "11111"),
        bits([249], "1111")[:-1],  # a code that is cut off
        bits([10], "11")[:2],
        b"\x00",  # five zeros are a symbol, three more are no padding
    ],
)
def test_what_is_refused(reader: HeaderReader, encoded: bytes) -> None:
    with pytest.raises(EngineError, match="HPACK_HUFFMAN"):
        reader.read(never_indexed(encoded))


def test_the_bytes_after_a_string_are_not_part_of_it(reader: HeaderReader) -> None:
    for tail in range(256):
        for value in (b"a", b"ab", b"\x00", b"&", b""):
            reader.read(b"\x10\x00\x20" + bytes([tail]) * 32)  # stays behind in the buffer
            (field,) = reader.read(never_indexed(ENCODER.encode(value)))
            assert field.value == Text.of(value)
