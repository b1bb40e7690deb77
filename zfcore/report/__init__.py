"""Pages that open in any browser without a network, made of pictures and results."""

from __future__ import annotations

from .page import PROJECTION_LIMIT, write

__all__ = ["PROJECTION_LIMIT", "write"]
