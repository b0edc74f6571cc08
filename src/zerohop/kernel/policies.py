"""Writes compiled policies into the maps: a generation whole, then its number in one step."""

from __future__ import annotations

import ctypes
import errno
import itertools
import os
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final, cast

from zerohop.compiler.policies import TERMINAL, Attribute, Automaton, Destination, PolicyTables
from zerohop.compiler.policies.walk import IN_DOUBT, Call, take_fields, walk
from zerohop.config.policies import Existing, Unreadable
from zerohop.kernel import libbpf
from zerohop.kernel.datapath import DataPath

# As bpf/shared/bounds.h and policy.h have them.
SLOTS: Final = 32
_NODE, _DECISION, _IDENTITY, _LINE = 32, 33, 34, 35
_DENY: Final = 0x40000000

_KEY: Final = struct.Struct("=IIQ")
_VALUE: Final = struct.Struct("=II")
_BATCH: Final = 1 << 16
_FILE_BYTES: Final = 255

# How long an older generation stays whole at least, for hooks that have begun to judge by it.
GRACE_SECONDS: Final = 1.0

Row = tuple[tuple[int, int, int], tuple[int, int]]


class Generations:
    """What the kernel judges by, and since when it does not judge by older ones any more."""

    def __init__(self) -> None:
        self._tables: PolicyTables | None = None
        self._replaced: dict[int, float] = {}

    def apply(self, path: DataPath, tables: PolicyTables, workloads: dict[str, int]) -> None:
        """Makes `tables` what the kernel judges by. `workloads`: `NS/NAME` to number. Raises `BpfError`."""
        settings = path.settings()
        current = settings.policies
        if tables == self._tables or (not tables.destinations and not current):
            self._tables = tables
            return
        following = current % 0xFFFFFFFF + 1
        self._make_room(path, following % SLOTS, current % SLOTS)
        if tables.destinations:
            self._write(path, following % SLOTS, tables, workloads)
        settings = path.settings()
        settings.policies = following
        path.write_settings(settings)
        self._replaced[current % SLOTS] = time.monotonic()
        self._tables = tables
        self.forget(path)

    def forget(self, path: DataPath) -> None:
        """Frees generations that were replaced long enough ago."""
        now = time.monotonic()
        for slot, since in list(self._replaced.items()):
            if now - since >= GRACE_SECONDS:
                _clear(path, slot)
                del self._replaced[slot]

    def _make_room(self, path: DataPath, slot: int, current: int) -> None:
        since = self._replaced.pop(slot, None)
        if since is not None:
            time.sleep(max(0.0, since + GRACE_SECONDS - time.monotonic()))
        # Also what another agent has left: this one does not know how old it is, but it is not the current one.
        if slot != current:
            _clear(path, slot)

    def _write(self, path: DataPath, slot: int, tables: PolicyTables, workloads: dict[str, int]) -> None:
        numbers = _name(path, tables)
        rows = _rows(tables, workloads, numbers)
        keys, values = bytearray(), bytearray()
        for key, value in rows:
            keys += _KEY.pack(*key)
            values += _VALUE.pack(*value)
        count = len(keys) // _KEY.size
        fd = libbpf.hash_map("policy_rows", _KEY.size, _VALUE.size, max(1, count))
        try:
            for start in range(0, count, _BATCH):
                end = min(start + _BATCH, count)
                libbpf.call(
                    "writing policies", "bpf_map_update_batch", fd, bytes(keys[start * _KEY.size : end * _KEY.size]),
                    bytes(values[start * _VALUE.size : end * _VALUE.size]), ctypes.byref(ctypes.c_uint32(end - start)),
                    None,
                )  # fmt: skip
            path.maps["policy_rows"].put(ctypes.c_uint32(slot), ctypes.c_uint32(fd))
        finally:
            os.close(fd)
        for (prefix, address), number in tables.blocks.items():
            path.maps["policy_blocks"].put(_block_key(path, slot, prefix, address), ctypes.c_uint32(number))
        key_type = path.layouts.struct("policy_key")
        for name, destination in tables.destinations.items():
            path.maps["policies"].put(key_type(slot, workloads[name]), _policy(path, destination, tables))


def _rows(tables: PolicyTables, workloads: dict[str, int], numbers: list[int]) -> Iterator[Row]:
    """Every row of a generation; `numbers`: the kernel's of the policies that `tables` name."""
    for node, (attribute, fallback) in tables.nodes.items():
        yield (node, _NODE, 0), (_next(fallback, attribute, tables), int(attribute))
    for (node, size, symbol), target in tables.edges.items():
        attribute = tables.nodes[node][0] if size == 0 and node in tables.nodes else 0
        yield (node, size, symbol), (_next(target, attribute, tables), 0)
    for number, decision in enumerate(tables.decisions):
        if decision.policy is not None:
            rule = 0 if decision.rule is None else decision.rule + 1
            yield (number, _DECISION, 0), (numbers[decision.policy], rule)
            yield (number, _LINE, 0), (decision.line or 0, 0)
    for name, identity in tables.identities.items():
        yield (workloads[name], _IDENTITY, 0), (identity, 0)


def _next(target: int, attribute: int, tables: PolicyTables) -> int:
    """A diagram's end says by itself whether it denies."""
    if attribute and target & TERMINAL and not tables.decisions[target & ~TERMINAL].allowed:
        return target | _DENY
    return target


def _policy(path: DataPath, destination: Destination, tables: PolicyTables) -> Any:
    value = path.layouts.struct("policy")()
    value.deny = _next(destination.deny, Attribute.PORT, tables)
    value.allow = _next(destination.allow, Attribute.PORT, tables)
    if destination.audit is not None:
        value.audit = destination.audit
    if destination.dry_run is not None:
        value.dry_deny, value.dry_allow = (_next(each, Attribute.PORT, tables) for each in destination.dry_run)
    value.layer7 = destination.layer7
    value.deny_reset = destination.deny_reset
    value.allow_unreadable = destination.unreadable is Unreadable.ALLOW
    value.observe_existing = destination.existing is Existing.OBSERVE
    _fill(value.names, destination.names)
    for target, automaton in zip(value.strings, destination.strings, strict=False):
        _fill(target, automaton)
    return value


def _fill(target: Any, automaton: Automaton) -> None:
    target.words, target.bytes = automaton.words, automaton.bytes
    target.empty, target.other = automaton.empty, automaton.other


def _block_key(path: DataPath, slot: int, prefix: int, address: bytes) -> Any:
    key = path.layouts.struct("block_key")(32 + prefix, slot)
    key.address[:] = address
    return key


def _clear(path: DataPath, slot: int) -> None:
    path.maps["policy_rows"].delete(ctypes.c_uint32(slot))
    for name in ("policies", "policy_blocks"):
        table = path.maps[name]
        for key in list(table.keys()):
            if key.slot == slot:
                table.delete(key)


def _name(path: DataPath, tables: PolicyTables) -> list[int]:
    """The numbers of the policies' names. One keeps its number while there is room: flow records name it."""
    table = path.maps["policy_names"]
    known = {(bytes(value.namespace_name), bytes(value.name)): key.value for key, value in table.items()}
    wanted = [(namespace.encode(), name.encode()) for namespace, name, _ in tables.names]
    files = [file.encode()[-_FILE_BYTES:] for _, _, file in tables.names]
    if len(known.keys() | set(wanted)) > table.entries():
        for name in known.keys() - set(wanted):
            table.delete(ctypes.c_uint32(known.pop(name)))
    free = itertools.filterfalse(set(known.values()).__contains__, itertools.count(1))
    numbers: list[int] = []
    for each, file in zip(wanted, files, strict=True):
        number = known.get(each)
        if number is None:
            number = known[each] = next(free)
        table.put(ctypes.c_uint32(number), path.layouts.struct("policy_name")(*each, file))
        numbers.append(number)
    return numbers


@dataclass(frozen=True)
class Verdict:
    """`policy` (`NS/NAME`) and `rule` (its index): what decided; None where no rule did. `open`: calls are judged.

    `doubt`: why nobody can tell, where the call is denied for that (`enum reason`).
    """

    allowed: bool
    policy: str | None = None
    rule: int | None = None
    file: str | None = None
    line: int | None = None
    open: bool = False
    doubt: str | None = None


@dataclass(frozen=True)
class Judgement:
    """`audit`: who audits it, or a doubt. `dry_run`: what it would be with dry-run policies, None without any."""

    verdict: Verdict
    audit: Verdict | None = None
    dry_run: Verdict | None = None


class Judge:
    """Judges by the very tables that the kernel judges by. Use as a context manager."""

    def __init__(self, path: DataPath) -> None:
        self._path = path
        self._generation = path.settings().policies
        self._slot = self._generation % SLOTS
        identifier = path.maps["policy_rows"].get(ctypes.c_uint32(self._slot)) if self._generation else None
        self._rows = libbpf.map_by_id(identifier) if identifier else -1

    def __enter__(self) -> Judge:
        return self

    def __exit__(self, *_: object) -> None:
        if self._rows >= 0:
            os.close(self._rows)

    def judge(
        self, client: int, server: int, port: int, addresses: tuple[bytes, bytes],
        fields: tuple[tuple[str, str], ...] = (),
    ) -> Judgement:  # fmt: skip
        """What becomes of a call, or, without fields, of a connection. Workloads by number; addresses of 16 bytes."""
        value = self._path.maps["policies"].get(self._path.layouts.struct("policy_key")(self._slot, server))
        if self._rows < 0 or value is None:
            return Judgement(Verdict(True))
        identity = self._row(client, _IDENTITY, 0)
        connection = Call(
            identity=identity[0] if identity else 0,
            source=self._class(addresses[0]),
            destination=self._class(addresses[1]),
            port=port,
        )
        destination = _Pinned(value)

        def ends(call: Call, *roots: int) -> list[int]:
            return [walk(each, destination, call, self._edge, self._node) for each in roots]

        call = replace(connection, fields=fields)
        if not self._decided(ends(connection, value.deny, value.allow)).allowed:
            call = connection  # no call is made on it
        doubt = take_fields(destination, call, self._edge, self._node).doubt
        audit = ends(call, value.audit)[0] if value.audit else 0
        auditor = self._verdict(audit, doubt) if audit & TERMINAL else None
        return Judgement(
            self._decided(ends(call, value.deny, value.allow), doubt),
            auditor if auditor and (auditor.policy or auditor.doubt) else None,
            self._decided(ends(call, value.dry_deny, value.dry_allow), doubt) if value.dry_deny else None,
        )

    def _decided(self, ends: list[int], doubt: str | None = None) -> Verdict:
        """By where the diagrams of what denies and what allows have ended."""
        decisive = next((end for end in ends if end & TERMINAL and end & _DENY), None)
        if decisive is None:
            if not all(end & TERMINAL for end in ends):
                return Verdict(True, open=True)
            decisive = ends[1]
        return self._verdict(decisive, doubt)

    def observes_existing(self, server: int) -> bool:
        """Whether calls on connections from before the policies may pass."""
        value = self._path.maps["policies"].get(self._path.layouts.struct("policy_key")(self._slot, server))
        return value is None or bool(value.observe_existing)

    def _verdict(self, end: int, doubt: str | None) -> Verdict:
        if end == IN_DOUBT:
            return Verdict(False, doubt=doubt)
        allowed, number = not end & _DENY, end & ~(TERMINAL | _DENY)
        decision = self._row(number, _DECISION, 0)
        if decision is None:
            return Verdict(allowed)
        name = self._path.maps["policy_names"].get(ctypes.c_uint32(decision[0]))
        line = self._row(number, _LINE, 0)
        if name is None:
            return Verdict(allowed)
        policy = f"{name.namespace_name.decode()}/{name.name.decode()}"
        return Verdict(allowed, policy, decision[1] - 1, name.file.decode(errors="replace"), line[0] if line else None)

    def _row(self, node: int, kind: int, symbol: int) -> tuple[int, int] | None:
        key, value = _KEY.pack(node, kind, symbol), ctypes.create_string_buffer(_VALUE.size)
        try:
            libbpf.call("reading policies", "bpf_map_lookup_elem", self._rows, key, value)
        except libbpf.BpfError as error:
            if error.errno == errno.ENOENT:
                return None
            raise
        return cast("tuple[int, int]", _VALUE.unpack(value.raw))

    def _edge(self, node: int, size: int, symbol: int) -> int | None:
        row = self._row(node, size, symbol)
        return row[0] if row else None

    def _node(self, node: int) -> tuple[int, int] | None:
        row = self._row(node, _NODE, 0)
        return (row[1], row[0]) if row else None

    def _class(self, address: bytes) -> int:
        found = self._path.maps["policy_blocks"].get(_block_key(self._path, self._slot, 128, address))
        return int(found or 0)


class _Pinned:
    """A destination as the kernel has it (`struct policy`)."""

    def __init__(self, value: Any) -> None:
        self.names = _automaton(value.names)
        self.strings = tuple(_automaton(each) for each in value.strings)


def _automaton(value: Any) -> Automaton:
    return Automaton(value.words, value.bytes, value.empty, value.other)
