"""The operators' handlers; importing this package registers them."""

from . import arithmetic, maps, points, shapes

__all__ = ["arithmetic", "maps", "points", "shapes"]
