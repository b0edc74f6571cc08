"""Header blocks against another implementation (PyPI `hpack`): the same fields, the same table, or an error in both.

There are no differences to allow for: both let an integer have five bytes after its prefix, and the other's limit on
the size of a header list is switched off.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field

from hpack import Decoder, Encoder, HPACKError
from hpack.hpack import encode_integer
from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from hpack.struct import NeverIndexedHeaderTuple
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.engine import Kernel, Native
from engine.hpack_reader import TABLE_SIZE, UNRESOLVED, EngineError, HeaderReader, Text
from support import machine

LONGEST = 32768  # HEADER_BLOCK_SIZE

HUFFMAN = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH)


def examples(short: int, long: int = 40_000) -> settings:
    return settings(
        max_examples=long if machine.long_run() else short,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


def number_of(name: bytes, value: bytes) -> int:
    """What the mesh keeps of a value, said once more in another language."""
    digits = value.isdigit() and len(value) <= 8
    match name:
        case b":method":
            return {b"POST": 1, b"GET": 2}.get(value, 0)
        case b":path":
            return UNRESOLVED
        case b":status":
            return int(value) if digits and len(value) == 3 else 0
        case b"content-type":
            return int(value[:16] == b"application/grpc" and value[16:17] in (b"", b"+", b";"))
        case b"grpc-status":
            return int(value) if digits and int(value) <= 16 else 2
        case b"grpc-timeout":
            unit = b"HMSmun".find(value[-1:]) + 1
            if not unit or not value[:-1].isdigit() or len(value) > 9:
                return 0
            return int(value[:-1]) << 3 | unit
    return 0


class Pair:
    """The engine and the other decoder, fed the same blocks."""

    def __init__(self, engine: Native | Kernel) -> None:
        self.reader = HeaderReader(engine)
        self.reader.start()
        self.decoder = Decoder(max_header_list_size=1 << 62)

    def read(self, block: bytes, offset: int = 0) -> bool:
        """Reads a block with both; False: both refuse it, which ends the connection."""
        try:
            expected = list(self.decoder.decode(block, raw=True))
        except HPACKError:
            expected = None
        fields = []
        try:
            fields = self.reader.read(block, offset=offset)
        except EngineError as error:
            refused = error.reason
        else:
            refused = ""
        assert (expected is None) == bool(refused), f"{refused or 'the engine reads'}: {block[:500].hex()}"
        if expected is None:
            return False
        strings = [(name, value) for name, value in expected]
        assert [(f.name, f.value) for f in fields] == [(Text.of(name), Text.of(value)) for name, value in strings]
        assert [f.number for f in fields] == [number_of(name, value) for name, value in strings]
        assert [f.form == "NEVER" for f in fields] == [isinstance(each, NeverIndexedHeaderTuple) for each in expected]
        table = self.decoder.header_table
        assert self.reader.table() == [(Text.of(name), Text.of(value)) for name, value in table.dynamic_entries]
        assert self.reader.shim.table_max_size == table.maxsize
        return True


KNOWN = [
    b":authority", b":method", b":path", b":scheme", b":status", b":protocol", b"content-type", b"grpc-status",
    b"grpc-timeout", b"grpc-message", b"te", b"user-agent", b"cookie", b"x", b"",
]  # fmt: skip
VALUES = [
    b"", b"GET", b"POST", b"/", b"/index.html", b"/shop.Cart/Add", b"http", b"200", b"404", b"20x", b"application/grpc",
    b"application/grpc+proto", b"application/grpc-web", b"0", b"1", b"16", b"17", b"100m", b"99999999n", b"trailers",
]  # fmt: skip
texts = st.one_of(
    st.binary(max_size=40), st.text("abcdefghijklmnopqrstuvwxyz0123456789-/.:", max_size=40).map(str.encode)
)
long_texts = st.builds(lambda text, times: text * times, st.binary(min_size=1, max_size=9), st.integers(1, 500))
names = st.one_of(st.sampled_from(KNOWN), texts)
values = st.one_of(st.sampled_from(VALUES), texts, long_texts)
sizes = st.one_of(st.integers(0, 200), st.integers(0, TABLE_SIZE))


@dataclass
class Written:
    """A block for the other implementation's encoder to write."""

    headers: list[tuple[bytes, bytes, bool]]
    huffman: bool
    sizes: list[int] = field(default_factory=list)
    offset: int = 0


blocks = st.builds(
    Written,
    headers=st.lists(st.tuples(names, values, st.booleans()), max_size=12),
    huffman=st.booleans(),
    sizes=st.lists(sizes, max_size=2),
    offset=st.sampled_from([0, 1, 4095, 32768]),
)


def written(encoder: Encoder, block: Written) -> bytes:
    for size in block.sizes:
        if size != encoder.header_table_size:  # it forgets an update that is followed by one to the same size
            encoder.header_table_size = size
    return encoder.encode(block.headers, huffman=block.huffman)


def integer(value: int, bits: int, pattern: int, zeros: int = 0) -> bytes:
    """`zeros`: bytes more than needed, which the RFC does not forbid."""
    encoded = encode_integer(value, bits)
    encoded[0] |= pattern
    if len(encoded) > 1 and zeros:
        encoded[-1] |= 0x80
        encoded += b"\x80" * (zeros - 1) + b"\x00"
    return bytes(encoded)


rarely = st.integers(0, 199).map(lambda chance: chance == 137)  # things that end the connection
zeros = st.sampled_from([0] * 20 + [1, 2, 3])


@st.composite
def strings(draw: st.DrawFn) -> bytes:
    text, pattern = draw(values), 0
    if draw(st.booleans()):
        text, pattern = HUFFMAN.encode(text), 0x80
    if draw(rarely):
        pattern ^= 0x80
    length = len(text)
    if draw(rarely):
        length = draw(st.sampled_from([max(length - 1, 0), length + 1, 1 << 20, 1 << 32]))
    return integer(length, 7, pattern, draw(zeros)) + text


@st.composite
def representations(draw: st.DrawFn, entries: int) -> bytes:
    """One field in any form; an index is mostly of one of the two tables, and of the newest entries more often."""
    last = 61 + entries
    index = draw(st.one_of(st.integers(1, 61), st.integers(1, last), st.integers(max(1, last - 5), last)))
    if draw(rarely):
        index = draw(st.sampled_from([0, 62 + entries, 1 << 20, 1 << 32]))
    form = draw(st.sampled_from(["indexed", "incremental", "indexed", "incremental", "literal", "never"]))
    if form == "indexed":
        return integer(index, 7, 0x80, draw(zeros))
    bits, pattern = {"incremental": (6, 0x40), "literal": (4, 0x00), "never": (4, 0x10)}[form]
    if draw(st.booleans()):
        return integer(max(index, 1), bits, pattern, draw(zeros)) + draw(strings())
    return bytes([pattern]) + draw(strings()) + draw(strings())


@st.composite
def wires(draw: st.DrawFn) -> list[bytes]:
    """Header blocks in any representation, of which few are wrong."""
    decoder = Decoder(max_header_list_size=1 << 62)
    story = []
    for _ in range(draw(st.integers(1, 6))):
        block = b""
        updates = draw(st.integers(0, 3)) if draw(st.booleans()) else 0
        for place in range(updates + draw(st.integers(0, 10))):
            if place < updates or draw(rarely):
                piece = integer(TABLE_SIZE + 1 if draw(rarely) else draw(sizes), 5, 0x20, draw(zeros))
            else:
                piece = draw(representations(len(decoder.header_table.dynamic_entries)))
            block += piece
            with contextlib.suppress(HPACKError):  # what follows an error is not read, whatever it is
                decoder.decode(piece, raw=True)
        story.append(block)
    return story


@st.composite
def mutations(draw: st.DrawFn) -> list[tuple[int, int, int]]:
    """(place, how, byte): bytes that are changed, inserted or taken away."""
    return draw(
        st.lists(st.tuples(st.integers(0, 400), st.integers(0, 2), st.integers(0, 255)), min_size=1, max_size=4)
    )


def mutated(block: bytes, changes: list[tuple[int, int, int]]) -> bytes:
    changed = bytearray(block)
    for place, how, byte in changes:
        place %= len(changed) + 1
        changed[place : place + (how > 0)] = b"" if how == 2 else bytes([byte])
    return bytes(changed)


def what_an_encoder_writes(engine: Native | Kernel, story: list[Written]) -> None:
    pair, encoder = Pair(engine), Encoder()
    for block in story:
        wire = written(encoder, block)
        if len(wire) > LONGEST:
            return
        assert pair.read(wire, block.offset)


def what_may_be_written(engine: Native | Kernel, story: list[bytes]) -> None:
    pair = Pair(engine)
    for block in story:
        if len(block) > LONGEST or not pair.read(block):
            return


def what_was_damaged(engine: Native | Kernel, story: list[Written], changes: list[tuple[int, int, int]]) -> None:
    pair, encoder = Pair(engine), Encoder()
    for number, block in enumerate(story, 1):
        wire = written(encoder, block)
        if number == len(story):
            wire = mutated(wire, changes)
        if len(wire) > LONGEST:
            return
        assert pair.read(wire) or number == len(story)


stories = st.lists(blocks, min_size=1, max_size=8)


@examples(300)
@given(story=stories)
def test_what_an_encoder_writes(native: Native, story: list[Written]) -> None:
    what_an_encoder_writes(native, story)


@examples(300, 20_000)
@given(story=wires())
def test_what_may_be_written(native: Native, story: list[bytes]) -> None:
    what_may_be_written(native, story)


@examples(300)
@given(story=stories, changes=mutations())
def test_what_was_damaged(native: Native, story: list[Written], changes: list[tuple[int, int, int]]) -> None:
    what_was_damaged(native, story, changes)


@examples(100, 5_000)
@given(story=stories, more=wires(), changes=mutations())
def test_all_of_it_in_the_kernel(
    in_kernel: Kernel, story: list[Written], more: list[bytes], changes: list[tuple[int, int, int]]
) -> None:
    what_an_encoder_writes(in_kernel, story)
    what_may_be_written(in_kernel, more)
    what_was_damaged(in_kernel, story, changes)


@examples(300)
@given(block=st.binary(max_size=200))
def test_random_bytes(native: Native, block: bytes) -> None:
    pair = Pair(native)
    pair.read(block)
