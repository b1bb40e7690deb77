"""Cases of the layers that graph networks bring, for the tests that every layer passes."""

from __future__ import annotations

from zfcore import layers
from zfcore.layers import Layer, Run

MAPS = (5, 6, 4)
CASES: list[tuple[Layer, list[tuple[int, ...]], Run]] = [(layer, shapes, Run()) for layer, shapes in [
    (layers.LeakyReLU(0.1), [MAPS]),
    (layers.PReLU(), [MAPS]),
    (layers.PReLU((1, 6, 1)), [MAPS]),
    (layers.Clip(0.0, 1.0), [MAPS]),
    (layers.Clip(-0.5, None), [MAPS]),
    (layers.Sigmoid(), [MAPS]),
    (layers.Tanh(), [(7,)]),
    (layers.LogSoftmax(), [MAPS]),
    (layers.LogSoftmax(), [(7,)]),
    (layers.Softmax(), [MAPS]),
    (layers.Subtract(), [MAPS, MAPS]),
    (layers.Multiply(), [MAPS, MAPS]),
    (layers.Divide(), [MAPS, MAPS]),
    (layers.Scale(), [MAPS]),
    (layers.Scale((5, 1, 4)), [MAPS]),
    (layers.Scale((1,), bias=False), [MAPS]),
    (layers.Scale(scale=False), [(7,)]),
    (layers.Expand(MAPS), [(1, 1, 4)]),
    (layers.Expand(MAPS), [(5, 6, 1)]),
    (layers.Rearrange((5, 6, 2, 2), (0, 1, 3, 2), MAPS), [MAPS]),
    (layers.Rearrange((30, 4), (1, 0), (120,)), [MAPS]),
    (layers.Slice(1, 3), [MAPS]),
    (layers.Slice(0, 4), [(7,)]),
    (layers.Pad((1, 2, 0, 3), (1, 0)), [MAPS]),
    (layers.Pad((1, 2, 3, 0), mode="reflect"), [MAPS]),
    (layers.Pad((1, -1, -2, 3), mode="edge"), [MAPS]),
    (layers.Pad((1, 1, 1, 1), value=2.0), [MAPS]),
    (layers.Resize((9, 3)), [MAPS]),
    (layers.Resize((9, 3), "linear"), [MAPS]),
    (layers.Resize((9, 3), "linear", "align_corners"), [MAPS]),
    (layers.Resize((3, 13), "linear", "half_pixel_symmetric", scales=(0.61, 2.2)), [MAPS]),
    (layers.TransposedConvolution(6, 3, 2, 1, 1, 2, 1, activation="relu"), [MAPS]),
    (layers.TransposedConvolution(3, (2, 3), (1, 2), (0, 1, 1, 0), (2, 1), bias=False), [MAPS]),
    (layers.MaxUnpool(2), [(2, 3, 4), MAPS]),
    (layers.MaxUnpool(2, ceil_mode=True), [(3, 3, 4), MAPS]),
    (layers.ResponseNorm(4, 0.5, 0.75, 1.0, True, True), [MAPS]),
]]
