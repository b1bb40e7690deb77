"""Vector instructions of batch norm: the channels of one cell, some 16 at a time."""

from __future__ import annotations

from typing import Any

from numba import types
from numba.extending import intrinsic

from .pooling_instructions import _Cell


@intrinsic
def scale_cell(typing: Any, y: Any, y_start: Any, x: Any, x_start: Any, mean: Any, mean_start: Any, multiplier: Any,
               multiplier_start: Any, bias: Any, bias_start: Any, channels: Any, stream: Any) -> Any:
    """y = (x - mean) * multiplier + bias for each channel. `stream`: y goes past the caches."""
    number = types.int64
    signature = types.void(y, number, x, number, mean, number, multiplier, number, bias, number, number, types.boolean)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit = _Cell(context, builder, signature, arguments)
        out, *sources = (emit.pointer(array) for array in range(0, 10, 2))

        def vector(channel: Any) -> None:
            value, mean, multiplier, bias = (emit.load(emit.move(source, channel)) for source in sources)
            value = builder.fadd(builder.fmul(builder.fsub(value, mean), multiplier), bias)
            emit.put(value, emit.move(out, channel), arguments[11])

        emit.over(arguments[10], vector)
        return context.get_dummy_value()

    return signature, generate
