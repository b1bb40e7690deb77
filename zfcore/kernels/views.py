"""Views of pictures: a rectangle of 8-bit pixels as the network's numbers, mirrored, padded, in either order."""

from __future__ import annotations

import numpy as np

from .compile import kernel

# Runs in the threads of whoever prepares batches: one call for a piece of a batch, no launcher.


@kernel
def cut_view(out, pixels, mean, shift, scale, outside, row, column, mirrored, backwards):
    """out (h, w, C) = ((pixels - mean) + shift) * scale of the view whose first pixel is (row, column).

    mean is (H, W, C) or (1, 1, C); shift, scale and outside (C,), outside being what lies beyond the picture.
    `backwards` reads the channels in reverse. The order of the operations is that of the plain array
    expression, so the results are equal bit for bit.
    """
    height, width, channels = out.shape
    tall, wide = pixels.shape[:2]
    down, across = mean.shape[0] > 1, mean.shape[1] > 1
    first, last = max(-column, 0), min(wide - column, width)  # the columns inside the picture, before mirroring
    for r in range(height):
        y = row + r
        line = out[r]
        inside = 0 <= y < tall and first < last
        if not inside or last - first < width:
            for s in range(width):
                for c in range(channels):
                    line[s, c] = outside[c]
        if not inside:
            continue
        given, level = pixels[y], mean[y if down else 0]
        for s in range(first, last):
            x, to = column + s, width - 1 - s if mirrored else s
            for c in range(channels):
                value = np.float32(given[x, channels - 1 - c if backwards else c])
                value -= level[x if across else 0, c]
                line[to, c] = (value + shift[c]) * scale[c]


@kernel
def cut_views(out, chosen, pixels, mean, shifts, scale, outside, origins, backwards):
    """out[chosen[i]] = the view of pixels[i] whose row, column and whether it is mirrored are origins[i]."""
    for i in range(chosen.size):
        cut_view(out[chosen[i]], pixels[i], mean, shifts[i], scale, outside, origins[i, 0], origins[i, 1],
                 origins[i, 2] != 0, backwards)
