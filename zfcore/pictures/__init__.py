"""Arrays into images. Nothing is scaled behind the user's back: every scale is an argument or returned."""

from __future__ import annotations

from .atlas import atlas_picture, card_pictures, filter_picture
from .overlay import heat, overlay, panels
from .tiles import GRAY, enlarge, grid, in_rgb_order, resize_tiles, signed, symmetric_scale
from .write import encode_small, png

__all__ = ["GRAY", "atlas_picture", "card_pictures", "encode_small", "enlarge", "filter_picture", "grid",
           "heat", "in_rgb_order", "overlay", "panels", "png", "resize_tiles", "signed", "symmetric_scale"]
