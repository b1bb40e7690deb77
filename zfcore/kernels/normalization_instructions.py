"""Vector instructions of batch norm: the channels of a cell, some 16 at a time, for one cell after the other."""

from __future__ import annotations

from typing import Any

from numba import types
from numba.extending import intrinsic

from .instructions import INT64, _Emitter


@intrinsic
def scale_cells(typing: Any, y: Any, y_start: Any, x: Any, x_start: Any, mean: Any, mean_start: Any, multiplier: Any,
                multiplier_start: Any, bias: Any, bias_start: Any, cells: Any, channels: Any, stream: Any) -> Any:
    """y = (x - mean) * multiplier + bias for so many cells (at least one) of at least a vector of channels.

    A cell's last vector ends with its last channel. `stream`: y goes past the caches.
    """
    number = types.int64
    signature = types.void(y, number, x, number, mean, number, multiplier, number, bias, number, number, number,
                           types.boolean)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit = _Emitter(context, builder, signature, arguments)
        out, source, *settings = (emit.pointer(array) for array in range(0, 10, 2))
        cells, channels, stream = arguments[10:]
        vectors = builder.sdiv(channels, INT64(emit.lanes))
        rest = builder.icmp_signed("!=", builder.srem(channels, INT64(emit.lanes)), INT64(0))

        def version(streamed: bool) -> None:
            def vector(out: Any, source: Any, mean: Any, multiplier: Any, bias: Any) -> None:
                value = builder.fmul(builder.fsub(emit.load(source), emit.load(mean)), emit.load(multiplier))
                (emit.put if streamed else emit.store)(builder.fadd(value, emit.load(bias)), out)

            def one(places: list[Any]) -> list[Any]:
                vector(*places)
                return [emit.move(place, emit.lanes) for place in places]

            def cell(values: list[Any]) -> list[Any]:
                emit.loop(vectors, [*values, *settings], one)
                if not streamed:
                    with builder.if_then(rest):
                        last = builder.sub(channels, INT64(emit.lanes))
                        vector(*(emit.move(place, last) for place in (*values, *settings)))
                return [emit.move(value, channels) for value in values]

            emit.loop(cells, [out, source], cell)

        emit.either(stream, version)
        return context.get_dummy_value()

    return signature, generate
