"""Call every operation of the compiled kernels once or a few times, at small sizes: for compute-sanitizer.

Arrays have allocations of their own (CuPy's pool is off), so that a step over an end shows. Fails if an operation
of the extension is never called.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))


def calls(cuda: Any, ops: Any, tile: Any) -> None:
    """Each public operation: channels that vectors divide and channels that they do not, ragged sizes."""
    generator = np.random.default_rng(0)

    def array(*shape: int, dtype: Any = np.float32) -> Any:
        return cuda.asarray(generator.standard_normal(shape).astype(dtype))

    for dtype in (np.float32, np.float64):
        for channels in (3, 16):
            x = array(2, 9, 7, channels, dtype=dtype)
            for groups in (1, channels):
                weight = array(2 * channels, 3, 3, channels // groups, dtype=dtype)
                bias = array(2 * channels, dtype=dtype)
                for stride in (1, 2):
                    sizes = {"stride": stride, "padding": 1, "groups": groups}
                    y = ops.convolution(x, weight, bias, activation="relu", **sizes)
                    ops.convolution_input_gradient(y, weight, x.shape, **sizes)
                    ops.convolution_weight_gradient(y, x, weight.shape, **sizes)
            y, switches = ops.max_pool(x, window=3, stride=2, ceil_mode=True)
            for overlap in ("sum", "last"):
                ops.max_unpool(y, switches, x.shape, window=3, stride=2, overlap=overlap)
            flat = ops.switches_to_flat(switches, x.shape, window=3, stride=2)
            ops.switches_from_flat(flat, x.shape, window=3, stride=2)
            mean = ops.average_pool(x, window=3, stride=2)
            ops.average_pool_gradient(mean, x.shape, window=3, stride=2)
            ops.global_average_pool_gradient(ops.global_average_pool(x), x.shape)
            values, positions = ops.map_maximum(x)
            ops.global_max_pool_gradient(values, positions, x.shape)
            ops.response_norm_gradient(ops.response_norm(x, size=3), x, size=3)
            ops.contrast_norm_gradient(ops.contrast_norm(x, size=3), x, size=3)
            scale = cuda.asarray(np.ones(channels, dtype))
            ops.batch_norm(x, scale, scale, scale, scale)
            y, mean, variance = ops.batch_norm_training(x, scale, scale)
            ops.batch_norm_training_gradient(y, x, mean, variance, scale)
            for rule in ("gradient", "deconvnet", "guided"):
                ops.relu_backward(x, ops.relu(x), rule=rule)
            ops.split(ops.concat(x, ops.add(x, x)), (channels, channels))
            ops.dropout(x, 0.5, seed=1, step=2)
            ops.clear_outside(array(2, 4, 4, channels, dtype=dtype), tile)
            matrix, filters = array(5, 13, dtype=dtype), array(6, 13, dtype=dtype)
            y = ops.linear(matrix, filters, array(6, dtype=dtype), activation="relu")
            ops.linear_input_gradient(y, filters)
            ops.linear_weight_gradient(y, matrix)
            ops.channel_sum(y)
            labels = cuda.asarray(np.arange(5) % 6)
            probabilities = ops.softmax_cross_entropy(y, labels)[1]
            ops.softmax_cross_entropy_gradient(probabilities, labels)
            ops.softmax_gradient(y, ops.softmax(y))
            first, second, third = (array(*filters.shape, dtype=dtype) for _ in range(3))
            for inside in (True, False):
                ops.sgd_step(filters, first, second, learning_rate=0.1, momentum=0.9, rate_in_velocity=inside)
            ops.adam_step(filters, first, second * second, third, step=1)
            ops.renormalize_filters(filters, 0.1)


def further(cuda: Any) -> None:
    """What only compiled backends have: tensor cores, 16 bits, fused chains, one pass for SGD."""
    generator = np.random.default_rng(1)

    def array(*shape: int, dtype: Any = np.float32) -> Any:
        return cuda.asarray(generator.standard_normal(shape).astype(dtype))

    def run(name: str, *arguments: Any) -> None:
        getattr(cuda.extension, name)(*arguments, 0)

    sizes = ((1, 1), (1, 1, 1, 1), (1, 1), 1)
    bfloat16 = np.uint16  # its bits
    for dtype, precision in ((np.float32, 1), (np.float32, 4), (np.float16, 2), (bfloat16, 3)):
        x, weight = cuda.empty((2, 9, 10, 16), dtype), cuda.empty((40, 3, 3, 16), dtype)
        for target in (x, weight):
            source = array(*target.shape)
            if dtype is np.float32:
                target[...] = source
            else:
                cuda.convert(target, source)
        y = cuda.empty((2, 9, 10, 40), dtype)
        run("convolution_forward", y, x, weight, None, *sizes, False, precision)
        run("convolution_input_gradient", cuda.empty(x.shape, dtype), y, weight, *sizes, precision)
        wide = np.float32
        room = cuda.empty(cuda.extension.weight_gradient_workspace(weight, y, x, *sizes), wide)
        run("convolution_weight_gradient", cuda.empty(weight.shape, wide), room, y, x, *sizes, precision)
        for channels in (16, 3):  # maps, and an image
            part = ((9, 10), *sizes)
            maps, first = (cuda.empty((*target.shape[:3], channels), dtype) for target in (x, weight))
            maps[...], first[...] = x[..., :channels], weight[..., :channels]
            for count in (40, 32):
                pooled = cuda.empty((2, 4, 4, count), dtype), cuda.empty((2, 4, 4, count), np.uint8)
                run("convolution_pool", *pooled, maps, first[:count], None, None, *part, True, (3, 3), (2, 2), (0, 0),
                    precision)
                run("unpool_filter", cuda.empty(maps.shape, dtype), *pooled, first[:count], None, (3, 3), (2, 2),
                    (0, 0), False, True, *part, precision)
        rows, filters = x.reshape(4, 720), weight.reshape(8, 720)
        y, room = cuda.empty((4, 8), dtype), cuda.empty(cuda.extension.linear_workspace(4, 8, 720, precision), wide)
        run("linear_forward", y, room, rows, filters, None, True, precision)
        run("linear_input_gradient", cuda.empty(rows.shape, dtype), None, y, filters, precision)
    cuda.pad_channels(cuda.empty((6, 4), np.float32), array(6, 3))
    x, weight = array(2, 9, 10, 3), array(8, 3, 3, 3)
    y, switches = cuda.empty((2, 4, 4, 8), np.float32), cuda.empty((2, 4, 4, 8), np.uint8)
    chain = ((9, 10), (1, 1), (1, 1, 1, 1), (1, 1), 1)
    cuda.convolution_pool(y, switches, x, weight, array(8), None, *chain, True, (3, 3), (2, 2), (0, 0))
    cuda.unpool_filter(cuda.empty(x.shape, np.float32), y, switches, weight, None, (3, 3), (2, 2), (0, 0), False, True,
                       *chain)
    cuda.sgd_filters(weight, array(*weight.shape), None, array(*weight.shape), 0.1, 0.9, 0.0, True, 0.1)
    settings, guarded = cuda.asarray(np.array([0.1, 0.3])), cuda.empty((2,), np.float64)
    cuda.guard_settings(guarded, settings, array(300))
    moments = [cuda.zeros(weight.shape, np.float32) for _ in range(2)]
    cuda.adam_step_in_memory(weight, *moments, array(*weight.shape), guarded[:1], guarded[1:], 0.9, 0.99, 1e-8, 0.0)


def main() -> int:
    """Run them all, then wait for the device."""
    from zfcore import ops
    from zfcore.geometry import Tile

    tile = Tile(np.array([[-1, -2], [3, 4]], np.int32), (6, 7))
    if os.environ.get("ZFCORE_STAND_IN"):
        import stand_in

        with stand_in.installed() as cuda:
            return counted(cuda, ops, tile)
    import cupy

    from zfcore import backends

    cupy.cuda.set_allocator(None)
    code = counted(backends.get("cuda"), ops, tile)
    cupy.cuda.Device().synchronize()
    return code


def counted(cuda: Any, ops: Any, tile: Any) -> int:
    """Run them and count what was called."""
    seen: set[str] = set()
    extension = cuda.extension

    class Counting:
        def __getattr__(self, name: str) -> Any:
            seen.add(name)
            return getattr(extension, name)

    cuda.extension = cuda._launchers._extension = Counting()
    calls(cuda, ops, tile)
    further(cuda)
    source = (Path(__file__).parents[2] / "bindings" / "operations.h").read_text()
    every = {line.split('"')[1] for line in source.splitlines() if line.strip().startswith("define(")}
    missing = sorted(every - seen)
    print(f"{len(every) - len(missing)} of {len(every)} operations were called{f'; not {missing}' if missing else ''}")
    return int(bool(missing))


if __name__ == "__main__":
    sys.exit(main())
