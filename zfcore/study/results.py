"""How studies are kept: see `zfcore.formats.results`, which everything that saves arrays shares."""

from __future__ import annotations

from ..formats.results import (
    FORMAT,
    VERSION,
    ResultError,
    guard,
    load,
    network_hash,
    network_hashing,
    save,
    versions,
)

__all__ = ["FORMAT", "VERSION", "ResultError", "guard", "load", "network_hash", "network_hashing", "save", "versions"]
