"""Vector instructions of softmax: the greatest number of a row, and exponentials with their sum.

Rows are padded with -infinity to whole groups of vectors, which changes neither. A lane sums its own numbers, in
float64, and the lanes are added by halves: the order depends on a row's length alone.
"""

from __future__ import annotations

import math
from functools import reduce
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .instructions import INT32, INT64, _Emitter

GROUP = 4  # vectors side by side
LOG2E = 1 / math.log(2)
# by bytes of a number: the logarithm of 2 in two parts (the first has zeros at its end, so that a small integer times
# it is exact), the last term of the series, bits of the mantissa, and the exponent of the least normal number
FORMATS = {4: (0.693359375, -2.12194440e-4, 7, 23, -126),
           8: (6.93145751953125e-1, 1.42860682030941723212e-6, 13, 52, -1022)}


class _Row(_Emitter):
    """Arithmetic on vectors of a row."""

    def constant(self, value: float) -> Any:
        """A number in all lanes."""
        return ir.Constant(self.vector, [value] * self.lanes)

    def halves(self, value: Any, join: Any) -> Any:
        """One number from a vector: its halves are joined until one number is left."""
        lanes = value.type.count
        while lanes > 1:
            lanes //= 2
            value = join(self.shuffle(value, list(range(lanes))), self.shuffle(value, list(range(lanes, 2 * lanes))))
        return self.builder.extract_element(value, INT32(0))

    def exponentials(self, xs: list[Any]) -> list[Any]:
        """exp(x) of x <= 0, within two units of the last place; 0 where it would not be a normal number.

        2^n times the series of exp(r), where x = n log 2 + r and |r| is at most half of log 2. Several vectors
        go side by side: each step waits for the one before it.
        """
        builder = self.builder
        high, low, last, mantissa, least = FORMATS[self.size]
        integer = ir.VectorType(INT32 if self.size == 4 else INT64, self.lanes)
        bias, shift = (ir.Constant(integer, [value] * self.lanes) for value in (1 - least, mantissa))
        lowest = self.constant(math.ceil(least / LOG2E))
        name = f"llvm.rint.v{self.lanes}f{self.size * 8}"
        rint = cgutils.get_or_insert_function(builder.module, ir.FunctionType(self.vector, [self.vector]), name)
        bounded = [builder.select(builder.fcmp_ordered(">=", x, lowest), x, lowest) for x in xs]
        ns = [builder.call(rint, [builder.fmul(x, self.constant(LOG2E))]) for x in bounded]
        rests = [self.multiply_add(n, self.constant(-high), x) for n, x in zip(ns, bounded, strict=True)]
        rests = [self.multiply_add(n, self.constant(-low), rest) for n, rest in zip(ns, rests, strict=True)]
        values = [self.constant(1 / math.factorial(last))] * len(xs)
        for k in range(last - 1, -1, -1):
            term = self.constant(1 / math.factorial(k))
            values = [self.multiply_add(value, rest, term) for value, rest in zip(values, rests, strict=True)]
        powers = [builder.shl(builder.add(builder.fptosi(n, integer), bias), shift) for n in ns]
        values = [builder.fmul(value, builder.bitcast(power, self.vector))
                  for value, power in zip(values, powers, strict=True)]
        # a NaN, which was bounded too, comes back
        values = [builder.fadd(value, builder.fsub(x, own)) for value, x, own in zip(values, xs, bounded, strict=True)]
        return [builder.select(builder.fcmp_unordered(">=", x, lowest), value, self.zero)
                for value, x in zip(values, xs, strict=True)]


@intrinsic
def greatest(typing: Any, row: Any, start: Any, groups: Any) -> Any:
    """The greatest number of so many groups of vectors, whatever their NaN."""
    signature = row.dtype(row, types.int64, types.int64)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit = _Row(context, builder, signature, arguments)

        def greater(a: Any, b: Any) -> Any:
            return builder.select(builder.fcmp_ordered(">", a, b), a, b)

        def step(values: list[Any]) -> list[Any]:
            place, *best = values
            return [emit.move(place, GROUP * emit.lanes),
                    *(greater(emit.load(place, at), value) for at, value in enumerate(best))]

        least = emit.constant(-math.inf)
        best = emit.loop(arguments[2], [emit.pointer(0), *[least] * GROUP], step)[1:]
        return emit.halves(reduce(greater, best), greater)

    return signature, generate


@intrinsic
def exponentials(typing: Any, row: Any, start: Any, groups: Any, shift: Any) -> Any:
    """Replace every number of so many groups of vectors by exp(number - shift); their sum, in float64."""
    signature = types.float64(row, types.int64, types.int64, row.dtype)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit = _Row(context, builder, signature, arguments)
        shift = emit.splat(arguments[3])
        parts = 2 if emit.size == 4 else 1
        lanes = emit.lanes // parts
        wide = ir.VectorType(ir.DoubleType(), lanes)

        def step(values: list[Any]) -> list[Any]:
            place, *totals = values
            powers = emit.exponentials([builder.fsub(emit.load(place, at), shift) for at in range(GROUP)])
            for at, value in enumerate(powers):
                emit.store(value, place, at)
                for part in range(parts):
                    own = emit.shuffle(value, list(range(part * lanes, (part + 1) * lanes)))
                    own = own if emit.size == 8 else builder.fpext(own, wide)
                    totals[at] = builder.fadd(totals[at], own)
            return [emit.move(place, GROUP * emit.lanes), *totals]

        zero = ir.Constant(wide, [0.0] * lanes)
        totals = emit.loop(arguments[2], [emit.pointer(0), *[zero] * GROUP], step)[1:]
        return emit.halves(reduce(builder.fadd, totals), builder.fadd)

    return signature, generate
