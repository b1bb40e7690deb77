"""Vector instructions of convolutions whose filters slide over padded rows (sliding.py)."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .instructions import INT32, INT64, ROWS, _Emitter

SPAN = 3  # rows of x that share a pointer: [p], [p + step] and [p + 2 step] are addresses of an instruction


def _splat(emit: _Emitter, value: Any) -> Any:
    """A number in all lanes."""
    kind = ir.VectorType(value.type, emit.lanes)
    one = emit.builder.insert_element(ir.Constant(kind, ir.Undefined), value, INT32(0))
    return emit.shuffle(one, [0] * emit.lanes)


def _store_first(emit: _Emitter, value: Any, pointer: Any, count: Any) -> None:
    """Store the first `count` numbers of a vector (at most all of them), and touch nothing else."""
    place = emit.builder.bitcast(pointer, emit.vector.as_pointer())
    lanes = ir.Constant(ir.VectorType(INT32, emit.lanes), list(range(emit.lanes)))
    mask = emit.builder.icmp_signed("<", lanes, _splat(emit, emit.builder.trunc(count, INT32)))
    of = f"v{emit.lanes}f{emit.size * 8}"
    name = f"llvm.masked.store.{of}.p0" + ("" if str(place.type) == "ptr" else of)  # LLVM 14 has typed pointers
    kind = ir.FunctionType(ir.VoidType(), [emit.vector, place.type, INT32, mask.type])
    emit.builder.call(cgutils.get_or_insert_function(emit.builder.module, kind, name),
                      [value, place, INT32(emit.size), mask])


def _slide(shares: tuple[int, ...]) -> Any:
    """Make out[rows x columns] = activation(x * w + bias) for consecutive cells of a row, `shares` of vectors wide.

    Cell t sees `lines` runs of `run` numbers of x, `x_line` apart, from x_start + t * x_step on. The columns of w
    lie `w_step` apart, one for each number of all runs. Every sum takes its products in this order.
    """

    @intrinsic
    def slide(typing: Any, out: Any, out_start: Any, out_step: Any, x: Any, x_start: Any, x_step: Any, x_line: Any,
              w: Any, w_start: Any, w_step: Any, bias: Any, bias_start: Any, rows: Any, lines: Any, run: Any,
              columns: Any, floor: Any) -> Any:
        number = types.int64
        signature = types.void(out, number, number, x, number, number, number, w, number, number, bias, number, number,
                               number, number, number, out.dtype)

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            emit = _Emitter(context, builder, signature, arguments)
            parts = [_Emitter(context, builder, signature, arguments, share) for share in shares]
            starts = [sum(part.lanes for part in parts[:at]) for at in range(len(parts))]
            out_step, x_step, x_line, w_step = (arguments[i] for i in (2, 5, 6, 9))
            rows, lines, run, columns, floor = arguments[12:]
            out, x, w, bias = (emit.pointer(array) for array in (0, 3, 7, 10))

            def tile(height: int) -> None:
                def step(values: list[Any]) -> list[Any]:
                    w, *rest = values
                    heads, sums = rest[:-height * len(parts)], rest[-height * len(parts):]
                    numbers = [part.load(emit.move(w, start)) for part, start in zip(parts, starts, strict=True)]
                    for row in range(height):
                        place = heads[row // SPAN]
                        for _ in range(row % SPAN):
                            place = emit.move(place, x_step)
                        for at, part in enumerate(parts):
                            total = sums[row * len(parts) + at]
                            sums[row * len(parts) + at] = part.multiply_add(part.broadcast(place), numbers[at], total)
                    return [emit.move(w, w_step), *(emit.move(head, 1) for head in heads), *sums]

                def line(values: list[Any]) -> list[Any]:
                    x, w, *sums = values
                    spans = [emit.move(x, builder.mul(x_step, INT64(row))) for row in range(0, height, SPAN)]
                    found = emit.loop(run, [w, *spans, *sums], step)
                    return [emit.move(x, x_line), found[0], *found[1 + len(spans):]]

                sums = emit.loop(lines, [x, w, *(part.zero for _ in range(height) for part in parts)], line)[2:]
                place = out
                for row in range(height):
                    for at, part in enumerate(parts):
                        value = builder.fadd(sums[row * len(parts) + at], part.load(emit.move(bias, starts[at])))
                        least = _splat(part, floor)
                        value = builder.select(builder.fcmp_ordered("<=", value, least), least, value)  # a NaN stays
                        _store_first(part, value, emit.move(place, starts[at]),
                                     builder.sub(columns, INT64(starts[at])))
                    place = emit.move(place, out_step)

            emit.cases(rows, ROWS, tile)
            return context.get_dummy_value()

        return signature, generate

    return slide


def _multiply_lines(vectors: int) -> Any:
    """Make c[rows x panel] += a' * b, summed over `lines` lines of `depth` steps each.

    One step of the depth is `a_step` and `b_step` numbers on, a line `a_line` and `b_line`; a's rows are
    consecutive numbers. `vectors` is 2 for a panel, 1 for its first half.
    """

    @intrinsic
    def multiply(typing: Any, c: Any, c_start: Any, c_step: Any, a: Any, a_start: Any, a_step: Any, a_line: Any,
                 b: Any, b_start: Any, b_step: Any, b_line: Any, rows: Any, lines: Any, depth: Any) -> Any:
        number = types.int64
        signature = types.void(c, number, number, a, number, number, number, b, number, number, number, number, number,
                               number)

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            emit = _Emitter(context, builder, signature, arguments)
            c_step, a_step, a_line, b_step, b_line = (arguments[i] for i in (2, 5, 6, 9, 10))
            rows, lines, depth = arguments[11:]
            out, left, right = (emit.pointer(array) for array in (0, 3, 7))

            def tile(height: int) -> None:
                def step(values: list[Any]) -> list[Any]:
                    a, b, *sums = values
                    columns = [emit.load(b, vector) for vector in range(vectors)]
                    for row in range(height):
                        number = emit.broadcast(emit.move(a, row))
                        for vector in range(vectors):
                            at = row * vectors + vector
                            sums[at] = emit.multiply_add(number, columns[vector], sums[at])
                    return [emit.move(a, a_step), emit.move(b, b_step), *sums]

                def line(values: list[Any]) -> list[Any]:
                    a, b, *sums = values
                    return [emit.move(a, a_line), emit.move(b, b_line), *emit.loop(depth, [a, b, *sums], step)[2:]]

                sums = emit.loop(lines, [left, right] + [emit.zero] * (height * vectors), line)[2:]
                place = out
                for row in range(height):
                    for vector in range(vectors):
                        emit.store(builder.fadd(emit.load(place, vector), sums[row * vectors + vector]), place, vector)
                    place = emit.move(place, c_step)

            emit.cases(rows, ROWS, tile)
            return context.get_dummy_value()

        return signature, generate

    return multiply


slide_panel = _slide((1, 1))
slide_three_halves = _slide((1, 2))
slide_half = _slide((1,))
multiply_lines = _multiply_lines(2)
multiply_lines_narrow = _multiply_lines(1)
