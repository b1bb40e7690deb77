"""Where `Shifts` used to live; see `zfcore.data.augmentation`."""

from __future__ import annotations

from ..data.augmentation import Shifts

__all__ = ["Shifts"]
