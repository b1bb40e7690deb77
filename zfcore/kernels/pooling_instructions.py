"""Vector instructions of max pooling: the channels of one cell, some 16 at a time, over all its windows or taps.

A loop over few channels that a compiler vectorises spends its time before and after the vectors. Here the last
vector of a cell ends with its last channel and computes again what the one before it did, so there is no rest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .instructions import INT32, INT64, _Emitter

BYTE = ir.IntType(8)


class _Cell(_Emitter):
    """Vectors of one cell's channels, and of as many switches."""

    def splat(self, value: Any) -> Any:
        """A number in all lanes."""
        kind = ir.VectorType(value.type, self.lanes)
        one = self.builder.insert_element(ir.Constant(kind, ir.Undefined), value, INT32(0))
        return self.shuffle(one, [0] * self.lanes)

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


@intrinsic
def pool_cell(typing: Any, y: Any, y_start: Any, switches: Any, switches_start: Any, x: Any, x_start: Any,
              row_step: Any, column_step: Any, high: Any, wide: Any, code: Any, code_step: Any, channels: Any) -> Any:
    """The greatest of high x wide cells of x and its switch, for each channel: the first of equals, the first NaN.

    The first tap's switch is `code`, the next row's `code_step` more.
    """
    number = types.int64
    signature = types.void(y, number, switches, number, x, *[number] * 8)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit = _Cell(context, builder, signature, arguments)
        row_step, column_step, high, wide, code, code_step, channels = arguments[6:]
        out, places, source = (emit.pointer(array) for array in (0, 2, 4))

        def vector(channel: Any) -> None:
            def tap(values: list[Any]) -> list[Any]:
                x, code, best, found = values
                value = emit.load(x)
                wins = builder.and_(builder.fcmp_unordered(">", value, best), builder.fcmp_ordered("ord", best, best))
                return [emit.move(x, column_step), builder.add(code, INT32(1)), builder.select(wins, value, best),
                        builder.select(wins, emit.splat(code), found)]

            def row(values: list[Any]) -> list[Any]:
                x, code, *best = values
                return [emit.move(x, row_step), builder.add(code, builder.trunc(code_step, INT32)),
                        *emit.loop(wide, [x, code, *best], tap)[2:]]

            first, code32 = emit.move(source, channel), builder.trunc(code, INT32)
            best, found = emit.loop(high, [first, code32, emit.load(first), emit.splat(code32)], row)[2:]
            emit.store(best, emit.move(out, channel))
            kind = ir.VectorType(BYTE, emit.lanes)
            builder.store(builder.trunc(found, kind), emit.bytes_at(emit.move(places, channel))).align = 1

        emit.over(channels, vector)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def unpool_cell(typing: Any, x: Any, x_start: Any, y: Any, y_start: Any, switches: Any, switches_start: Any,
                row_step: Any, column_step: Any, high: Any, wide: Any, code: Any, row_code: Any, column_code: Any,
                channels: Any, last_wins: Any) -> Any:
    """One cell of x: the sum of the values of high x wide windows whose switch is this cell's, or the last such one.

    The cell's number in the first window is `code`, in the next row's `row_code` less, the next column's `column_code`.
    """
    number = types.int64
    signature = types.void(x, number, y, number, switches, *[number] * 9, types.boolean)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit = _Cell(context, builder, signature, arguments)
        row_step, column_step, high, wide, code, row_code, column_code, channels, last_wins = arguments[6:]
        out, source, places = (emit.pointer(array) for array in (0, 2, 4))
        last = builder.trunc(last_wins, ir.IntType(1))

        def vector(channel: Any) -> None:
            def window(values: list[Any]) -> list[Any]:
                place, code, total = values
                value, switch = emit.load(emit.move(source, place)), builder.load(
                    emit.bytes_at(emit.move(places, place)))
                switch.align = 1
                hit = builder.icmp_unsigned("==", switch, emit.splat(builder.trunc(code, BYTE)))
                added = builder.fadd(total, builder.select(hit, value, emit.zero))
                return [builder.add(place, column_step), builder.sub(code, column_code),
                        builder.select(last, builder.select(hit, value, total), added)]

            def row(values: list[Any]) -> list[Any]:
                place, code, total = values
                return [builder.add(place, row_step), builder.sub(code, row_code),
                        emit.loop(wide, [place, code, total], window)[2]]

            emit.store(emit.loop(high, [channel, code, emit.zero], row)[2], emit.move(out, channel))

        emit.over(channels, vector)
        return context.get_dummy_value()

    return signature, generate
