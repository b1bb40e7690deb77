"""Vector instructions of rectifiers whose results go past the caches: a compiler stores only into them by itself."""

from __future__ import annotations

from typing import Any

from numba import types
from numba.extending import intrinsic

from .instructions import INT64, _Emitter


class _Rule(_Emitter):
    """What the three rectifiers do to a vector."""

    def forward(self, value: Any, mask: Any) -> Any:
        return self.builder.select(self.builder.fcmp_ordered("<=", value, self.zero), self.zero, value)

    def gradient(self, value: Any, mask: Any) -> Any:
        return self.builder.select(self.builder.fcmp_ordered(">", mask, self.zero), value, self.zero)

    def guided(self, value: Any, mask: Any) -> Any:
        return self.gradient(self.forward(value, mask), mask)


def _rectifier(rule: str) -> Any:
    """Make one that fills `out` from signals and masks and returns how many of `count` numbers it did."""

    @intrinsic
    def rectify(typing: Any, out: Any, out_start: Any, signal: Any, signal_start: Any, mask: Any, mask_start: Any,
                count: Any) -> Any:
        number = types.int64
        signature = number(out, number, signal, number, mask, number, number)

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            emit = _Rule(context, builder, signature, arguments)
            vectors = builder.sdiv(arguments[6], INT64(emit.lanes))

            def one(values: list[Any]) -> list[Any]:
                out, signal, mask = values
                emit.put(getattr(emit, rule)(emit.load(signal), emit.load(mask)), out)
                return [emit.move(value, emit.lanes) for value in values]

            with builder.if_then(builder.icmp_signed(">", vectors, INT64(0))):
                emit.loop(vectors, [emit.pointer(array) for array in (0, 2, 4)], one)
            return builder.mul(vectors, INT64(emit.lanes))

        return signature, generate

    return rectify


rectify_forward = _rectifier("forward")
rectify_gradient = _rectifier("gradient")
rectify_guided = _rectifier("guided")
