"""Reads the text of a compiled program: what its operations move and, on TPUs, the cycles that the compiler expects.

Operations in the body of a loop count as often as the loop runs.
"""

import collections
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

COLLECTIVES = ('all-reduce', 'all-gather', 'reduce-scatter', 'all-to-all', 'collective-permute')
# Operations that move no bytes of their own.
_FREE = {'parameter', 'constant', 'tuple', 'get-tuple-element', 'bitcast', 'after-all', 'partition-id', 'replica-id',
         'iota', 'while', 'conditional', 'call', 'opt-barrier'}
_BITS = {'pred': 8, 's4': 4, 'u4': 4, 's8': 8, 'u8': 8, 's16': 16, 'u16': 16, 's32': 32, 'u32': 32, 's64': 64,
         'u64': 64, 'bf16': 16, 'f16': 16, 'f32': 32, 'f64': 64, 'c64': 64, 'c128': 128}
_ARRAY = re.compile(r'\b([a-z]+\d+|pred)(?:e\w+)?\[([\d,]*)\]')
_HEAD = re.compile(r'^(ENTRY )?%?([\w.\-]+) \(.*\{$')
_NAME = re.compile(r'\s+(?:ROOT )?%?([\w.\-]+) = ')
_UNKNOWN = 10**12  # cycles that the compiler gives where it has no estimate are at least this many


class Operation(NamedTuple):
    """One operation of the optimised program."""

    name: str
    opcode: str
    moved: int  # bytes of its operands and results
    cycles: int  # that the TPU compiler expects of it, or 0
    source: str  # the path of modules that it comes from
    calls: tuple[str, ...]  # computations that it runs: of a loop its condition and body
    trips: int  # how often a loop runs, or 1


class Cost(NamedTuple):
    """What one or all of the operations cost in one execution of the program."""

    cycles: float = 0.0
    moved: float = 0.0  # bytes
    count: float = 0.0


class Program:
    """The computations of a program, by name."""

    def __init__(self, text: str):
        self._computations, self._entry = _parse(text)

    def operations(self, name: str | None = None, times: float = 1.0) -> Iterator[tuple[Operation, float]]:
        """Yields the operations that do something, and how often each is executed; loops are followed, not yielded."""
        for operation in self._computations[name or self._entry]:
            if operation.opcode in ('while', 'conditional', 'call'):
                for called in operation.calls[-1:] if operation.opcode == 'while' else operation.calls:
                    yield from self.operations(called, times * operation.trips)
            elif _acts(operation.opcode):
                yield operation, times

    def loops(self) -> list[tuple[str, int, Cost]]:
        """The loops of the program: source, number of runs, and what all runs cost, inner loops included."""
        return list(self._loops(self._entry, 1.0))

    def _loops(self, name, times) -> Iterator[tuple[str, int, Cost]]:
        for operation in self._computations[name]:
            inner = operation.calls[-1:] if operation.opcode == 'while' else operation.calls
            if operation.opcode == 'while':
                yield operation.source, operation.trips, total(self.operations(inner[0], times * operation.trips))
            if operation.opcode in ('while', 'conditional', 'call'):
                for called in inner:
                    yield from self._loops(called, times * operation.trips)

    def collectives(self) -> dict[str, Cost]:
        """Kind of collective -> how many are executed and the bytes that they take and give."""
        found: dict[str, Cost] = collections.defaultdict(Cost)
        for operation, times in self.operations():
            kind = operation.opcode.removesuffix('-start')
            if kind in COLLECTIVES:
                found[kind] = _plus(found[kind], operation, times)
        return dict(found)

    def by_source(self) -> dict[str, Cost]:
        """Path of modules -> the costs of the operations that come from there."""
        found: dict[str, Cost] = collections.defaultdict(Cost)
        for operation, times in self.operations():
            found[operation.source] = _plus(found[operation.source], operation, times)
        return dict(found)


def total(operations: Iterator[tuple[Operation, float]]) -> Cost:
    """The costs of all operations together."""
    cost = Cost()
    for operation, times in operations:
        cost = _plus(cost, operation, times)
    return cost


def _plus(cost: Cost, operation: Operation, times: float) -> Cost:
    return Cost(cost.cycles + times * operation.cycles, cost.moved + times * operation.moved, cost.count + times)


def _parse(text: str) -> tuple[Mapping[str, list[Operation]], str]:
    """The operations of every computation, and the name of the one that is run first."""
    lines: dict[str, list[str]] = {}
    current, entry = None, ''
    for line in text.splitlines():
        head = _HEAD.match(line)
        if head:
            current = head[2]
            lines[current] = []
            entry = current if head[1] else entry
        elif line.startswith('}'):
            current = None
        elif current is not None and ' = ' in line:
            lines[current].append(line)
    return {name: list(_operations(body, lines)) for name, body in lines.items()}, entry


def _operations(body: list[str], lines) -> Iterator[Operation]:
    sizes: dict[str, int] = {}
    for line in body:
        name, result, opcode, operands, rest = _split(line)
        sizes[name] = _bytes(result)
        moved = sizes[name] + sum(sizes.get(operand, 0) for operand in re.findall(r'%([\w.\-]+)', operands))
        cycles = re.search(r'"estimated_cycles":"(\d+)"', rest)
        source = re.search(r'op_name="([^"]*)"', rest)
        calls = _calls(opcode, rest)
        trips = _trips(rest, calls, lines) if opcode == 'while' else 1
        yield Operation(name, opcode, moved, int(cycles[1]) if cycles and int(cycles[1]) < _UNKNOWN else 0,
                        source[1] if source else '', calls, trips)


def _acts(opcode: str) -> bool:
    """Whether an operation moves bytes; the second half of an asynchronous one moves none of its own."""
    return opcode not in _FREE and not opcode.endswith('-done')


def _split(line: str) -> tuple[str, str, str, str, str]:
    """Name, type of the result, opcode, operands, and attributes of an operation."""
    name = _NAME.match(line)
    rest = line[name.end():]
    end = _closing(rest, 0) if rest.startswith('(') else rest.index(' ')
    result, rest = rest[:end], rest[end:].lstrip()
    opcode, _, _ = rest.partition('(')
    closing = _closing(rest, len(opcode))
    return name[1], result, opcode, rest[len(opcode):closing], rest[closing:]


def _closing(text: str, start: int) -> int:
    """The place behind the parenthesis that closes the one at `start`."""
    depth = 0
    for match in re.compile('[()]').finditer(text, start):
        depth += 1 if match[0] == '(' else -1
        if not depth:
            return match.end()
    return len(text)


def _bytes(result: str) -> int:
    """Bytes of all arrays of a type."""
    found = 0
    for kind, shape in _ARRAY.findall(result):
        size = _BITS.get(kind, 8 if kind.startswith('f8') else 0)
        for length in filter(None, shape.split(',')):
            size *= int(length)
        found += size // 8
    return found


def _calls(opcode: str, rest: str) -> tuple[str, ...]:
    if opcode == 'while':
        return tuple(re.search(rf'{part}=%?([\w.\-]+)', rest)[1] for part in ('condition', 'body'))
    if opcode == 'conditional':
        listed = re.search(r'branch_computations=\{([^}]*)\}', rest)
        return tuple(re.findall(r'[\w.\-]+', listed[1])) if listed else tuple(
            re.findall(r'(?:true|false)_computation=%?([\w.\-]+)', rest))
    return tuple(re.findall(r'to_apply=%?([\w.\-]+)', rest)) if opcode == 'call' else ()


def _trips(rest: str, calls: tuple[str, ...], lines: Mapping[str, list[str]]) -> int:
    """How often a loop runs: what the compiler knows, or else the largest constant of its condition."""
    known = re.search(r'"known_trip_count":\{"n":"(\d+)"\}', rest)
    if known:
        return int(known[1])
    condition = '\n'.join(lines.get(calls[0], ()))
    for fused in re.findall(r'calls=%?([\w.\-]+)', condition):
        condition += '\n'.join(lines.get(fused, ()))
    return max(map(int, re.findall(r'constant\((\d+)\)', condition)), default=1)
