"""Vector instructions of pooling: the channels of one cell, some 16 at a time, over all its windows or taps.

A loop over few channels that a compiler vectorises spends its time before and after the vectors. Here the last
vector of a cell ends with its last channel and computes again what the one before it did, so there is no rest.
The usual numbers of taps and windows are unrolled: their loops would take longer than the taps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .instructions import INT64, VECTOR_BYTES, _Emitter

BYTE = ir.IntType(8)
MARK = BYTE if VECTOR_BYTES == 64 else ir.IntType(32)  # a switch in a lane: AVX-512 alone chooses between bytes


class _Cell(_Emitter):
    """Vectors of one cell's channels, and of as many switches."""

    def bytes_at(self, pointer: Any) -> Any:
        """The address of a vector of switches."""
        return self.builder.bitcast(pointer, ir.VectorType(BYTE, self.lanes).as_pointer())

    def over(self, channels: Any, body: Callable[[Any], None]) -> None:
        """Run `body` with the first channel of every vector; there is at least a vector of channels."""
        last = self.builder.sub(channels, INT64(self.lanes))
        rounds = self.builder.sdiv(self.builder.add(channels, INT64(self.lanes - 1)), INT64(self.lanes))

        def one(values: list[Any]) -> list[Any]:
            beyond = self.builder.icmp_signed(">", values[0], last)
            body(self.builder.select(beyond, last, values[0]))
            return [self.builder.add(values[0], INT64(self.lanes))]

        self.loop(rounds, [INT64(0)], one)

    def sides(self, high: Any, wide: Any, usual: list[tuple[int, int]], fixed: Callable[[int, int], None],
              other: Callable[[], None]) -> None:
        """Emit `fixed` for the usual values of high x wide, and `other` for the rest."""
        if not usual:
            other()
            return
        (rows, columns), *more = usual
        here = self.builder.and_(self.builder.icmp_signed("==", high, INT64(rows)),
                                 self.builder.icmp_signed("==", wide, INT64(columns)))
        with self.builder.if_else(here) as (then, otherwise):
            with then:
                fixed(rows, columns)
            with otherwise:
                self.sides(high, wide, more, fixed, other)

    def fold(self, x: Any, steps: tuple[Any, Any], sides: tuple[Any, Any], codes: tuple[Any, Any], channels: Any,
             fold: _Fold) -> None:
        """Fold high x wide cells of x, in row-major order, for every vector of channels.

        steps, sides : from one row and column of cells to the next, and how many there are
        codes : the first cell's code and what the next row's is more; a column's is one more
        """
        builder, (row_step, column_step), (high, wide) = self.builder, steps, sides
        code, code_step = (builder.trunc(each, MARK) for each in codes)

        def fixed(rows: int, columns: int) -> None:
            marks = [[self.splat(builder.add(builder.add(code, builder.mul(code_step, MARK(r))), MARK(s)))
                      for s in range(columns)] for r in range(rows)]

            def vector(channel: Any) -> None:
                line, states = self.move(x, channel), []
                for r in range(rows):
                    cell = line
                    for s in range(columns):
                        states.append(fold.cell(self.load(cell), marks[r][s]))
                        cell = self.move(cell, column_step)
                    line = self.move(line, row_step)
                fold.end(channel, fold.all(states))

            self.over(channels, vector)

        def loops() -> None:
            def one(values: list[Any]) -> list[Any]:
                cell, code, *state = values
                return [self.move(cell, column_step), builder.add(code, MARK(1)),
                        *fold.join(state, fold.cell(self.load(cell), self.splat(code)))]

            def row(values: list[Any]) -> list[Any]:
                cell, code, *state = values
                return [self.move(cell, row_step), builder.add(code, code_step),
                        *self.loop(wide, [cell, code, *state], one)[2:]]

            def vector(channel: Any) -> None:
                first = self.move(x, channel)
                start = fold.start(self.load(first), self.splat(code))
                fold.end(channel, self.loop(high, [first, code, *start], row)[2:])

            self.over(channels, vector)

        self.sides(high, wide, [(3, 3), (2, 2)], fixed, loops)


class _Fold:
    """What `_Cell.fold` makes of the cells: a state for each, and the join of two states, the earlier one first."""

    def __init__(self, emit: _Cell, end: Callable[[Any, list[Any]], None]) -> None:
        self.emit, self.builder, self.end = emit, emit.builder, end  # end: given the first channel and the state

    def start(self, value: Any, code: Any) -> list[Any]:
        """The state to begin with: joining the first cell to it changes nothing."""
        return [value, code]

    def cell(self, value: Any, code: Any) -> list[Any]:
        return [value, code]

    def join(self, first: list[Any], second: list[Any]) -> list[Any]:
        raise NotImplementedError

    def all(self, states: list[list[Any]]) -> list[Any]:
        """Joined in pairs, and these in pairs: a chain would wait for every comparison."""
        while len(states) > 1:
            states = [self.join(*pair) if len(pair) == 2 else pair[0]
                      for pair in (states[i:i + 2] for i in range(0, len(states), 2))]
        return states[0]


class _Maximum(_Fold):
    """The first of the greatest numbers, or the first NaN, and its code."""

    def join(self, first: list[Any], second: list[Any]) -> list[Any]:
        builder, (best, found), (value, code) = self.builder, first, second
        wins = builder.and_(builder.fcmp_unordered(">", value, best), builder.fcmp_ordered("ord", best, best))
        return [builder.select(wins, value, best), builder.select(wins, code, found)]


class _Sum(_Fold):
    """The sum, from 0 and in order."""

    def start(self, value: Any, code: Any) -> list[Any]:
        return [self.emit.zero]

    def cell(self, value: Any, code: Any) -> list[Any]:
        return [value]

    def join(self, first: list[Any], second: list[Any]) -> list[Any]:
        return [self.builder.fadd(first[0], second[0])]

    def all(self, states: list[list[Any]]) -> list[Any]:
        total = [self.emit.zero]
        for state in states:
            total = self.join(total, state)
        return total


@intrinsic
def pool_cell(typing: Any, y: Any, y_start: Any, switches: Any, switches_start: Any, x: Any, x_start: Any,
              row_step: Any, column_step: Any, high: Any, wide: Any, code: Any, code_step: Any, channels: Any,
              stream: Any) -> Any:
    """The greatest of high x wide cells of x and its switch, for each channel: the first of equals, the first NaN.

    The first tap's switch is `code`, the next row's `code_step` more. `stream`: y goes past the caches.
    """
    number = types.int64
    signature = types.void(y, number, switches, number, x, *[number] * 8, types.boolean)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit = _Cell(context, builder, signature, arguments)
        row_step, column_step, high, wide, code, code_step, channels, stream = arguments[6:]
        out, places, source = (emit.pointer(array) for array in (0, 2, 4))

        def end(channel: Any, state: list[Any]) -> None:
            emit.put(state[0], emit.move(out, channel), stream)
            found = builder.trunc(state[1], ir.VectorType(BYTE, emit.lanes))
            builder.store(found, emit.bytes_at(emit.move(places, channel))).align = 1

        emit.fold(source, (row_step, column_step), (high, wide), (code, code_step), channels, _Maximum(emit, end))
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def average_cell(typing: Any, y: Any, y_start: Any, x: Any, x_start: Any, row_step: Any, column_step: Any, high: Any,
                 wide: Any, count: Any, channels: Any) -> Any:
    """The sum of high x wide cells of x, from 0 and in row-major order, over `count`, for each channel."""
    number = types.int64
    signature = types.void(y, number, x, *[number] * 5, y.dtype, number)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit = _Cell(context, builder, signature, arguments)
        row_step, column_step, high, wide, count, channels = arguments[4:]
        out, divisor = emit.pointer(0), emit.splat(count)

        def end(channel: Any, state: list[Any]) -> None:
            emit.store(builder.fdiv(state[0], divisor), emit.move(out, channel))

        emit.fold(emit.pointer(2), (row_step, column_step), (high, wide), (INT64(0), INT64(0)), channels,
                  _Sum(emit, end))
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def unpool_cell(typing: Any, x: Any, x_start: Any, y: Any, y_start: Any, switches: Any, switches_start: Any,
                row_step: Any, column_step: Any, high: Any, wide: Any, code: Any, row_code: Any, column_code: Any,
                channels: Any, last_wins: Any, stream: Any) -> Any:
    """One cell of x: the sum of the values of high x wide windows whose switch is this cell's, or the last such one.

    The cell's number in the first window is `code`, in the next row's `row_code` less, the next column's `column_code`.
    `stream`: x goes past the caches.
    """
    number = types.int64
    signature = types.void(x, number, y, number, switches, *[number] * 9, types.boolean, types.boolean)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit = _Cell(context, builder, signature, arguments)
        row_step, column_step, high, wide, code, row_code, column_code, channels, last_wins, stream = arguments[6:]
        out, source, places = (emit.pointer(array) for array in (0, 2, 4))
        code, row_code, column_code = (builder.trunc(each, BYTE) for each in (code, row_code, column_code))

        def version(last: bool) -> None:
            def add(place: Any, code: Any, total: Any) -> Any:
                value = emit.load(emit.move(source, place))
                switch = builder.load(emit.bytes_at(emit.move(places, place)))
                switch.align = 1
                hit = builder.icmp_unsigned("==", switch, code)
                return builder.select(hit, value, total) if last else builder.fadd(
                    total, builder.select(hit, value, emit.zero))

            def fixed(rows: int, columns: int) -> None:
                codes = [[emit.splat(builder.sub(code, builder.add(builder.mul(row_code, BYTE(p)),
                                                                   builder.mul(column_code, BYTE(q)))))
                          for q in range(columns)] for p in range(rows)]

                def vector(channel: Any) -> None:
                    total, line = emit.zero, channel
                    for p in range(rows):
                        place = line
                        for q in range(columns):
                            total = add(place, codes[p][q], total)
                            place = builder.add(place, column_step)
                        line = builder.add(line, row_step)
                    emit.put(total, emit.move(out, channel), stream)

                emit.over(channels, vector)

            def loops() -> None:
                def window(values: list[Any]) -> list[Any]:
                    place, code, total = values
                    return [builder.add(place, column_step), builder.sub(code, column_code),
                            add(place, emit.splat(code), total)]

                def row(values: list[Any]) -> list[Any]:
                    place, code, total = values
                    return [builder.add(place, row_step), builder.sub(code, row_code),
                            emit.loop(wide, [place, code, total], window)[2]]

                emit.over(channels, lambda channel: emit.put(emit.loop(high, [channel, code, emit.zero], row)[2],
                                                             emit.move(out, channel), stream))

            emit.sides(high, wide, [(1, 1), (1, 2), (2, 1), (2, 2)], fixed, loops)

        emit.either(last_wins, version)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def sum_cells(typing: Any, total: Any, total_start: Any, x: Any, x_start: Any, cells: Any, channels: Any) -> Any:
    """The sum of consecutive cells of x, from 0 and in order, for each channel: sums stay in registers."""
    number = types.int64
    signature = types.void(total, number, x, number, number, number)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit = _Cell(context, builder, signature, arguments)
        out, source, cells, channels = emit.pointer(0), emit.pointer(2), arguments[4], arguments[5]
        group = 8
        groups = builder.sdiv(channels, INT64(group * emit.lanes))

        def sums(first: Any, vectors: int) -> None:
            def cell(values: list[Any]) -> list[Any]:
                place, *totals = values
                return [emit.move(place, channels),
                        *(builder.fadd(total, emit.load(place, at)) for at, total in enumerate(totals))]

            found = emit.loop(cells, [emit.move(source, first), *[emit.zero] * vectors], cell)[1:]
            for at, value in enumerate(found):
                emit.store(value, emit.move(out, first), at)

        def whole(values: list[Any]) -> list[Any]:
            sums(values[0], group)
            return [builder.add(values[0], INT64(group * emit.lanes))]

        with builder.if_then(builder.icmp_signed(">", groups, INT64(0))):
            emit.loop(groups, [INT64(0)], whole)
        first = builder.mul(groups, INT64(group * emit.lanes))
        rest = builder.sub(channels, first)
        emit.cases(builder.sdiv(rest, INT64(emit.lanes)), group - 1, lambda vectors: sums(first, vectors))
        with builder.if_then(builder.icmp_signed("!=", builder.srem(rest, INT64(emit.lanes)), INT64(0))):
            sums(builder.sub(channels, INT64(emit.lanes)), 1)  # again, up to the last channel
        return context.get_dummy_value()

    return signature, generate
