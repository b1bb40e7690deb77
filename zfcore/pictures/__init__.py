"""Arrays into images. Nothing is scaled behind the user's back: every scale is an argument or returned."""

from __future__ import annotations

from .ablation import ablation_picture
from .atlas import atlas_picture, card_pictures, filter_picture
from .compared import architecture_picture
from .confusion import confusion_picture
from .maps import classes, legend_picture, titled_panels, viridis
from .overlay import attribution_shades, heat, overlay, panels
from .plots import plot
from .studies import correspondence_picture, evolution_picture, invariance_picture, occlusion_picture
from .tiles import GRAY, enlarge, grid, in_rgb_order, resize_tiles, signed, stretched, symmetric_scale
from .transfer import pascal_picture, table_picture, transfer_picture
from .write import encode_small, png

__all__ = ["GRAY", "ablation_picture", "architecture_picture", "atlas_picture", "attribution_shades",
           "card_pictures", "classes", "confusion_picture", "correspondence_picture", "encode_small",
           "enlarge", "evolution_picture", "filter_picture", "grid", "heat", "in_rgb_order",
           "invariance_picture", "legend_picture", "occlusion_picture", "overlay", "panels",
           "pascal_picture", "plot", "png", "resize_tiles", "signed", "stretched", "symmetric_scale",
           "table_picture", "titled_panels", "transfer_picture", "viridis"]
