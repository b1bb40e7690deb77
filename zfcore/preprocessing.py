"""From 8-bit pixels to a network's numbers: channel order, mean and scale, saved with the model.

Decoding and resizing happen elsewhere (`data`); this is the pointwise part and the description of
the whole, so that a patch cut out of an image becomes the same numbers as the image does there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from .geometry import Tile

CHANNELS = {"RGB": 3, "BGR": 3, "L": 1}
LONGEST = 65_535  # pixels of a side


def _size(name: str, value: Any) -> int | tuple[int, int] | None:
    """One side, (height, width) or None; anything else is refused."""
    if value is None:
        return None
    sides = tuple(value) if isinstance(value, (tuple, list)) else (value,)
    whole = all(isinstance(side, (int, np.integer)) and not isinstance(side, bool) for side in sides)
    if len(sides) not in (1, 2) or not whole or min(sides) < 1 or max(sides) > LONGEST:
        raise ValueError(f"Preprocessing: {name} is {value!r}; "
                         f"allowed: an integer from 1 to {LONGEST}, (height, width) or None")
    return (int(sides[0]), int(sides[1])) if len(sides) == 2 else int(sides[0])


def _inside(origin: int, length: int, extent: int) -> slice:
    """The part of a patch's axis that lies inside its image; may be empty."""
    start = min(max(-origin, 0), length)
    return slice(start, max(min(extent - origin, length), start))


@dataclass(frozen=True, eq=False)
class Preprocessing:
    """How an image becomes a network's input: resize, crop, then `(pixels - mean) * scale`.

    Parameters
    ----------
    channels : "RGB", "BGR" or "L" (gray): the order in which the network expects them; pixels are
        always handed over as RGB or L
    mean : one number, one per channel (in the network's order), or an array (height, width,
        channels) of the network's input: the per-pixel mean of the ZF recipe
    scale : one number or one per channel (in the network's order)
    size : an integer: the smallest side after resizing; (height, width): warped to exactly that;
        None: not resized
    crop : side or (height, width) of the central crop; None: not cropped
    """

    channels: str = "RGB"
    mean: Any = 0.0
    scale: Any = 1.0
    size: int | tuple[int, int] | None = None
    crop: int | tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.channels, str) or self.channels not in CHANNELS:
            raise ValueError(f"Preprocessing: channels is {self.channels!r}; "
                             "allowed: one of 'RGB', 'BGR', 'L'")
        for name, ranks in (("mean", (0, 1, 3)), ("scale", (0, 1))):
            try:
                array = np.asarray(getattr(self, name), np.float32)
            except (TypeError, ValueError, OverflowError):
                array = np.full(1, np.nan, np.float32)
            fits = array.ndim in ranks and (array.ndim == 0 or array.shape[-1] == CHANNELS[self.channels])
            if not fits or not np.isfinite(array).all():
                raise ValueError(f"Preprocessing: {name} has shape {array.shape} or is not finite; allowed: "
                                 f"finite numbers, of shape () or ({CHANNELS[self.channels]},)"
                                 + (" or (height, width, channels)" if 3 in ranks else ""))
            object.__setattr__(self, name, array)
        object.__setattr__(self, "size", _size("size", self.size))
        object.__setattr__(self, "crop", _size("crop", self.crop))

    @property
    def mode(self) -> str:
        """The pixels that `apply` takes: "RGB" or "L"."""
        return "L" if self.channels == "L" else "RGB"

    def apply(self, pixels: np.ndarray, tile: Tile | None = None, out: np.ndarray | None = None) -> np.ndarray:
        """Turn pixels into the network's input.

        Parameters
        ----------
        pixels : uint8 (N, height, width, 3 for RGB or 1 for L)
        tile : where the pixels lie in their images, when they are patches; cells outside the
            image become 0, as the network's padding is
        out : float32 array of their shape, contiguous, which whole images are written to; None: a new one

        Returns
        -------
        float32 array of the same shape, channels in the network's order; a patch's numbers are
        bit for bit those of the whole image at its place.
        """
        expected = CHANNELS[self.channels]
        if pixels.dtype != np.uint8:
            raise TypeError(f"Preprocessing: pixels.dtype is {pixels.dtype}; allowed: uint8")
        if pixels.ndim != 4 or pixels.shape[3] != expected:
            raise ValueError(f"Preprocessing: pixels.shape is {pixels.shape}; "
                             f"allowed: (N, height, width, {expected}) for channels {self.channels!r}")
        if tile is not None:
            return self._apply_tiles(pixels[..., ::-1] if self.channels == "BGR" else pixels, tile)
        if self.mean.ndim == 3 and self.mean.shape != pixels.shape[1:]:
            raise ValueError(f"Preprocessing: pixels.shape is {pixels.shape}; "
                             f"allowed: (N, *{self.mean.shape}), the size of the per-pixel mean")
        result = np.empty(pixels.shape, np.float32) if out is None else out
        if result.shape != pixels.shape or result.dtype != np.float32 or not result.flags.c_contiguous:
            raise ValueError(f"Preprocessing: out is {result.dtype} {result.shape}; "
                             f"allowed: float32 {pixels.shape}, contiguous")
        if self.channels == "BGR":
            for channel in range(3):
                result[..., channel] = pixels[..., 2 - channel]
        else:
            result[...] = pixels
        # Whole rows at a time: NumPy's loops over three channels would take five times as long.
        rows = result.reshape(*pixels.shape[:2], pixels.shape[2] * expected)
        rows -= self._row(self.mean, pixels.shape)
        if (self.scale != 1).any():
            rows *= self._row(self.scale, pixels.shape)
        return result

    @staticmethod
    def _row(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """A mean or a scale for rows of pixels with their channels side by side."""
        if values.ndim == 3:
            return values.reshape(values.shape[0], -1)
        return values if values.ndim == 0 else np.tile(values, shape[2])

    def restore(self, x: np.ndarray) -> np.ndarray:
        """The way back: a network's numbers (N, height, width, channels) as uint8 RGB or gray pixels.

        Values outside what pixels can show become 0 or 255. A per-pixel mean of another size than the
        images' is replaced by its channels' means.
        """
        mean = self.mean
        if mean.ndim == 3 and mean.shape != x.shape[1:]:
            mean = mean.mean(axis=(0, 1))
        pixels = np.rint(np.clip(x / self.scale + mean, 0, 255)).astype(np.uint8)
        return pixels[..., ::-1] if self.channels == "BGR" else pixels

    def limits(self, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        """Least and greatest numbers that pixels 0..255 become, for images of (height, width, channels)."""
        mean = self.mean.mean(axis=(0, 1)) if self.mean.ndim == 3 and self.mean.shape != shape else self.mean
        ends = np.stack([np.broadcast_to((np.float32(end) - mean) * self.scale, shape) for end in (0, 255)])
        return ends.min(axis=0), ends.max(axis=0)

    def _apply_tiles(self, pixels: np.ndarray, tile: Tile) -> np.ndarray:
        height, width = tile.extent
        if self.mean.ndim == 3 and self.mean.shape[:2] != (height, width):
            raise ValueError(f"Preprocessing: tile.extent is {tile.extent}; "
                             f"allowed: {self.mean.shape[:2]}, the size of the per-pixel mean")
        result = np.zeros(pixels.shape, np.float32)
        for patch, out, (row, column) in zip(pixels, result, tile.origins.tolist(), strict=True):
            inside = _inside(row, patch.shape[0], height), _inside(column, patch.shape[1], width)
            if patch[inside].size:
                mean = self.mean
                if mean.ndim == 3:
                    mean = mean[inside[0].start + row:inside[0].stop + row,
                                inside[1].start + column:inside[1].stop + column]
                out[inside] = (patch[inside].astype(np.float32) - mean) * self.scale
        return result

    def to_config(self) -> dict[str, Any]:
        """Description for JSON; a per-pixel mean is null there and travels as a tensor (`tensors`)."""
        return {"channels": self.channels, "mean": None if self.mean.ndim == 3 else self.mean.tolist(),
                "scale": self.scale.tolist(), "size": self.size, "crop": self.crop}

    def tensors(self) -> dict[str, np.ndarray]:
        """The arrays that JSON should not hold: {"mean": per-pixel mean} or nothing."""
        return {"mean": self.mean} if self.mean.ndim == 3 else {}

    def __repr__(self) -> str:
        return f"Preprocessing({', '.join(f'{key}={value!r}' for key, value in self.to_config().items())})"

    @classmethod
    def from_config(cls, config: Mapping[str, Any],
                    tensors: Mapping[str, np.ndarray] | None = None) -> Preprocessing:
        """The inverse of `to_config` and `tensors`; ValueError for anything else."""
        if not isinstance(config, Mapping) or set(config) - {"channels", "mean", "scale", "size", "crop"}:
            raise ValueError(f"Preprocessing: config is {config!r}; "
                             "allowed: the keys channels, mean, scale, size, crop")
        values = dict(config)
        if values.get("mean", 0.0) is None:
            if not tensors or "mean" not in tensors:
                raise ValueError("Preprocessing: the tensor of the per-pixel mean is missing")
            values["mean"] = tensors["mean"]
        return cls(**values)
