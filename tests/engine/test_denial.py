"""Denials: what a server reads of a denied call, and a client of its refusal, with another implementation."""

from __future__ import annotations

from random import Random
from typing import Any, Final

import pytest
from hpack import Decoder
from hpack.table import HeaderTable
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.engine import Kernel, Native, get_bytes, put_bytes
from engine.test_hpack_differential import HUFFMAN, examples, integer
from support import machine

Headers = list[tuple[bytes, bytes]]

OFFSETS: Final = (0, 1, 777)
MESSAGE: Final = b"RBAC: access denied"
LIMIT: Final = 4096  # REWRITE_LIMIT


class Scribe:
    """Writes header blocks in whatever forms HPACK has."""

    def __init__(self, seed: int) -> None:
        self.chance = Random(seed)
        self.table = HeaderTable()
        self.referred: dict[bytes, int] = {}  # of the fields that are references, their last indices

    def _string(self, text: bytes) -> bytes:
        if self.chance.random() < 0.6:
            code = HUFFMAN.encode(text)
            return integer(len(code), 7, 0x80) + code
        return integer(len(text), 7, 0) + text

    def _field(self, name: bytes, value: bytes) -> bytes:
        found = self.table.search(name, value)
        index, whole = (found[0], found[2] is not None) if found else (0, False)
        if whole and self.chance.random() < 0.8:
            self.referred[name] = index
            return integer(index, 7, 0x80)
        bits, pattern = self.chance.choice([(6, 0x40)] * 6 + [(4, 0x00)] * 2 + [(4, 0x10)])
        named = index and self.chance.random() < 0.7
        start = integer(index, bits, pattern) if named else bytes([pattern]) + self._string(name)
        if pattern == 0x40:
            self.table.add(name, value)
        return start + self._string(value)

    def write(self, headers: Headers) -> bytes:
        block = b""
        if self.chance.random() < 0.05:
            size = self.chance.choice([0, 60, 200, 1000, 4096])
            self.table.maxsize = size
            block += integer(size, 5, 0x20)
        return block + b"".join(self._field(*each) for each in headers)


class Direction:
    """One direction of a connection through the engine, to another implementation's decoder."""

    def __init__(self, engine: Native | Kernel, *, client: bool) -> None:
        self.engine = engine
        self.shim: Any = engine.shim
        self.client = client
        engine.reset()
        engine.call("engine_client" if client else "engine_server")
        self.decoder = Decoder(max_header_list_size=1 << 62)

    def _read(self, wire: bytes, offset: int, kind: str = "PLAIN") -> int:
        put_bytes(self.shim, wire)
        self.shim.offset = offset
        self.shim.with_texts = self.client
        self.shim.kind, self.shim.status = self.engine.constants.rewriting[f"REWRITE_{kind}"], 7
        self.engine.call("engine_block")
        return self.engine.call("engine_rewrite")

    def rewritten(self, wire: bytes, offset: int = 0, kind: str = "PLAIN") -> Headers:
        """What is read of a block that is passed on. `kind`: of enum rewriting."""
        assert self._read(wire, offset, kind) == 1, wire.hex()
        if self.shim.changed:
            wire = get_bytes(self.shim, "bytes", self.shim.size)
        return [(bytes(name), bytes(value)) for name, value in self.decoder.decode(wire, raw=True)]

    def fails(self, wire: bytes, kind: str) -> bool:
        """Whether it is no part of a refusal: the connection ends."""
        return self._read(wire, 0, kind) != 1

    def denied(self, wire: bytes, offset: int = 0) -> Headers | None:
        """What is read of a request that is denied; None: it cannot be, and the connection ends."""
        assert self._read(wire, offset) == 1, wire.hex()
        if self.engine.call("engine_neutralise") != 1:
            return None
        changed = bytearray(wire)
        for index in range(self.shim.edits.count):
            changed[self.shim.edits.at[index]] = self.shim.edits.value[index]
        assert len(changed) == len(wire)
        return [(bytes(name), bytes(value)) for name, value in self.decoder.decode(bytes(changed), raw=True)]


WORDS: Final = [b"a", b"bb", b"x-trace", b"0123456789" * 9, b"\xff\x00 ", b"grpc", b"-"]


def some(chance: Random) -> Headers:
    return [
        (b"x-" + chance.choice(WORDS).lower().strip(b"\xff\x00 "), chance.choice(WORDS) * chance.randrange(4))
        for _ in range(chance.choice([0, 0, 1, 2, 5]))
    ]


# What the blocks of a server's are written anew for: refusals by gRPC alone, in trailers after headers, by HTTP with a
# body or without, and what has nothing to do with denials.
ANSWERS: Final = {
    "headers": "PLAIN", "trailers": "PLAIN", "lone": "PLAIN",
    "refusal": "LAST", "opening": "FIRST", "ending": "LAST", "early": "FIRST", "error": "FIRST", "bare error": "LAST",
}  # fmt: skip
ERRORS: Final = (b"400", b"401", b"403", b"404", b"405", b"415", b"500", b"501", b"503")
REPLACED: Final = (b"grpc-status", b"grpc-message", b"grpc-statut", b"grpc-messaga", b"content-type", b":status")


def answer(chance: Random, kind: str) -> Headers:
    """A header block of a server's."""
    begin = [(b":status", b"200")]
    if chance.random() < 0.8:
        begin.append((b"content-type", chance.choice([b"application/grpc", b"application/grpc+proto"])))
    status = str(chance.choice([0, 0, 0, 5, 12, 13, 16])).encode()
    verdict = [(b"grpc-status", b"12")]
    if chance.random() < 0.8:
        verdict.append((b"grpc-message", b"refused " + chance.choice(WORDS)))
    match kind:
        case "headers" | "opening":
            return [*begin, *some(chance)]
        case "refusal" | "early":
            return [*begin, *some(chance), *verdict, *some(chance)]
        case "ending":
            return [*some(chance), *verdict, *some(chance)]
        case "error" | "bare error":
            # Some of the others refer to what the table has of such a one.
            return [(b":status", chance.choice(ERRORS)), (b"content-type", b"text/plain"), *some(chance)]
    message = [(b"grpc-message", b"because " + chance.choice(WORDS))] if status != b"0" else []
    if kind == "lone" and chance.random() < 0.3:
        begin = [(b":status", chance.choice(ERRORS))]
    return [*(begin if kind == "lone" else []), *some(chance), (b"grpc-status", status), *message]


def check_denial(kind: str, headers: Headers, found: Headers) -> None:
    """`found` is what a client is to read in place of `headers`."""
    names = [name for name, _ in found]
    assert [each for each in found if each[0] not in REPLACED] == [each for each in headers if each[0] not in REPLACED]
    assert [value for name, value in found if name == b":status"] == (
        [] if kind == "ending" else [b"403" if "error" in kind else b"200"]
    )
    assert names.index(b":status") == 0 if kind != "ending" else True
    told = [] if kind in ("opening", "error") else [b"7"]
    assert [value for name, value in found if name == b"grpc-status"] == told
    assert [value for name, value in found if name == b"grpc-message"] == [MESSAGE for _ in told]
    types = [value for name, value in found if name == b"content-type"]
    if kind in ("refusal", "early"):
        assert len(types) == 1
        assert types[0].startswith(b"application/grpc")
    else:
        assert types == [value for name, value in headers if name == b"content-type"]


def answers(engine: Native | Kernel, seed: int, count: int) -> None:
    """A server's header blocks, some of them refusals of denied calls."""
    scribe, direction, chance = Scribe(seed), Direction(engine, client=False), Random(seed + 1)
    for _ in range(count):
        kind = chance.choice(list(ANSWERS))
        headers = answer(chance, kind)
        found = direction.rewritten(scribe.write(headers), chance.choice(OFFSETS), ANSWERS[kind])
        if ANSWERS[kind] == "PLAIN":
            assert found == headers
        else:
            check_denial(kind, headers, found)


PATHS: Final = [b"/shop.Cart/Add", b"/shop.Cart/Remove", b"/a/b", b"/p/" + b"m" * 300, b"/very.long.package.Name/M"]


def requests(engine: Native | Kernel, seed: int, count: int) -> None:
    """A client's header blocks, some of calls that are denied."""
    scribe, direction, chance = Scribe(seed), Direction(engine, client=True), Random(seed + 1)
    for _ in range(count):
        path = chance.choice(PATHS)
        pseudo = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", path), (b":authority", b"cart")]
        chance.shuffle(pseudo)
        headers = [*pseudo, (b"content-type", b"application/grpc"), *some(chance), (b"te", b"trailers")]
        scribe.referred.clear()
        wire, offset = scribe.write(headers), chance.choice(OFFSETS)
        if chance.random() < 0.5:
            assert direction.rewritten(wire, offset) == headers
            continue
        found = direction.denied(wire, offset)
        if found is None:
            # A reference of two bytes, and no other reason: the connection would end here.
            assert scribe.referred[b":path"] >= 0x7F
            return
        ((name, value),) = [each for each in found if each not in headers]
        assert name == b":path"
        assert value.startswith(b"/")
        assert value not in PATHS
        assert [each for each in found if each[0] != b":path"] == [each for each in headers if each[0] != b":path"]


@pytest.mark.parametrize("status", [0, 99, 100, 103, 199, 200, 201, 204, 206, 302, 399, 400, 404, 599, 999])
def test_what_is_answered(native: Native, status: int) -> None:
    """An interim response, a beginning, an error; whatever else is answered has been done, and is no refusal."""
    wire = Scribe(status).write([(b":status", b"%03d" % status)])
    first = Direction(native, client=False).fails(wire, "FIRST")
    last = Direction(native, client=False).fails(wire, "LAST")
    assert (first, last) == (status < 100 or 200 < status < 400, status < 200 or 200 < status < 400)


seeds = st.integers(0, 1 << 60)


@examples(300, 50_000)
@given(seed=seeds)
def test_refusals_become_denials(native: Native, seed: int) -> None:
    answers(native, seed, 40)


@examples(300, 50_000)
@given(seed=seeds)
def test_denied_calls_show_no_method(native: Native, seed: int) -> None:
    requests(native, seed, 40)


@settings(max_examples=2_000 if machine.long_run() else 30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=seeds)
def test_all_of_it_in_the_kernel(in_kernel: Kernel, seed: int) -> None:
    answers(in_kernel, seed, 20)
    requests(in_kernel, seed, 20)


@pytest.mark.parametrize("huffman", [False, True])
def test_every_place_of_the_slash(native: Native, huffman: bool) -> None:
    """In Huffman code it begins at any of a byte's bits, and may lie in two of them."""
    seen = set()
    for length in range(1, 300):
        service = bytes(Random(length).choices(b"abcdefghijklmnopqrstuvwxyzABC.0129_", k=length))
        path = b"/" + service + b"/Method"
        text = HUFFMAN.encode(path) if huffman else path
        wire = b"\x83\x86" + b"\x44" + integer(len(text), 7, 0x80 if huffman else 0) + text + b"\x41\x01a"
        direction = Direction(native, client=True)
        found = direction.denied(wire, length % 5)
        assert found is not None
        assert dict(found)[b":path"] == b"/" + service + b"-Method"
        seen.add(direction.shim.edits.count)
        # The server has kept what it was given: a later reference is written out.
        assert direction.rewritten(b"\x83\x86\xbf\xbe") == [
            (b":method", b"POST"), (b":scheme", b"http"), (b":path", path), (b":authority", b"a"),
        ]  # fmt: skip
    assert seen == ({1, 2} if huffman else {1})


def literal_path(path: bytes, *, huffman: bool) -> bytes:
    code = HUFFMAN.encode(path) if huffman else path
    return b"\x83\x04" + integer(len(code), 7, 0x80 if huffman else 0) + code


@pytest.mark.parametrize("huffman", [False, True])
@pytest.mark.parametrize("path", [b"/", b"/one", b"/shop.Cart"])
def test_a_path_of_one_part(native: Native, path: bytes, huffman: bool) -> None:
    """No method's, but its server should not be asked."""
    found = Direction(native, client=True).denied(literal_path(path, huffman=huffman))
    assert found is not None
    assert dict(found)[b":path"] == b"-" + path[1:]


@pytest.mark.parametrize("huffman", [False, True])
@pytest.mark.parametrize("path", [b"", b"no/slash/first", b"*"], ids=["empty", "relative", "star"])
def test_what_is_no_path(native: Native, path: bytes, huffman: bool) -> None:
    """The connection ends instead."""
    assert Direction(native, client=True).denied(literal_path(path, huffman=huffman)) is None


def test_two_paths(native: Native) -> None:
    assert Direction(native, client=True).denied(b"\x83\x84\x84") is None
    assert Direction(native, client=True).denied(b"\x83\x86") is None


@examples(200, 20_000)
@given(seed=seeds)
def test_texts_are_what_was_sent(native: Native, seed: int) -> None:
    """Names and values in full, whatever referred to them, also after eviction."""
    scribe, chance = Scribe(seed), Random(seed + 1)
    direction = Direction(native, client=True)
    for _ in range(30):
        headers = [
            (
                b"x-%d" % chance.randrange(40),
                bytes([chance.randrange(256)]) * chance.choice([0, 3, 50, 900, 1024, 1500]),
            )
            for _ in range(chance.randrange(6))
        ]
        wire = scribe.write(headers)
        put_bytes(direction.shim, wire)
        direction.shim.offset, direction.shim.with_texts = 0, 1
        direction.engine.call("engine_block")
        for name, value in headers:
            while (result := direction.engine.call("engine_field")) == 1 and direction.shim.form == SIZE_UPDATE:
                pass
            assert result == 1
            assert get_bytes(direction.shim, "full_name_text", len(name)) == name
            assert get_bytes(direction.shim, "value_text", len(value)) == value[:1024]
        while (result := direction.engine.call("engine_field")) == 1:
            assert direction.shim.form == SIZE_UPDATE
        assert result == 0


SIZE_UPDATE: Final = 4  # FORM_SIZE_UPDATE
