"""A layer on one picture: some of its maps in full, and the strongest activation of every map."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..pictures import atlas_picture, encode_small, grid, png

SIZE = 48  # of a tile on the sheet of all maps, at least
PNG_LIMIT = 400_000  # bytes; a larger sheet of all maps becomes JPEG


class Sheet:
    """The maps of a layer that go on its one sheet: as many as fit, evenly spread."""

    def __init__(self, alive: np.ndarray, color: int) -> None:
        self.alive, self.color = alive, color
        self.wanted: set[int] | None = None
        self.cards: list[Any] = []
        self.texts: list[tuple[str, str]] = []

    def offer(self, index: int, pictures: tuple[np.ndarray, np.ndarray], card: Mapping[str, Any]) -> None:
        """Take the map's card if it was chosen; the first card's size decides how many fit."""
        if self.wanted is None:
            height, width = pictures[0].shape[:2]
            fit = int(np.clip((9e6 / self.color) / (2.2 * width * 1.2 * height), 4, 64))
            spread = np.linspace(0, len(self.alive) - 1, min(fit, len(self.alive))).round().astype(int)
            self.wanted = set(self.alive[spread].tolist())
        if index in self.wanted:
            self.cards.append(pictures)
            self.texts.append((card["unit"], f"max {card['strongest']}"))

    def write(self, root: Path, folder: str, name: str) -> str | None:
        """Write the sheet; its path, or None where there is nothing to show."""
        if not self.cards:
            return None
        labels, notes = zip(*self.texts, strict=True)
        path = f"{folder}.png"
        png(root / path, atlas_picture(self.cards, labels, notes, title=name))
        return path


class Strongest:
    """The strongest activation of every map, its projection and its patch: the layer at a glance."""

    def __init__(self, top: int, background: int) -> None:
        self.columns = max(int(np.ceil(np.sqrt(top))), 1)
        self.rows, self.background = -(-top // self.columns), background
        self.tiles: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])

    def offer(self, pictures: tuple[np.ndarray, np.ndarray], gap: int = 1) -> None:
        """Take the first tile of a card's two grids, the maps in their order."""
        for kept, sheet in zip(self.tiles, pictures, strict=True):
            height = (sheet.shape[0] + gap) // self.rows - gap
            width = (sheet.shape[1] + gap) // self.columns - gap
            tile = sheet[:height, :width]
            step = max(max(height, width) // SIZE, 1)  # whole steps, so that means are taken over whole cells
            kept.append(_reduced(tile, step))

    def write(self, root: Path, stem: str) -> dict[str, Any] | None:
        """Write the sheet; what the page says of it, or None where there is nothing to show."""
        if not self.tiles[0]:
            return None
        sheets = [grid(np.stack(tiles), background=self.background) for tiles in self.tiles]
        margin = np.full((sheets[0].shape[0], 12, sheets[0].shape[2]), self.background, np.uint8)
        pixels = np.concatenate([sheets[0], margin, sheets[1]], axis=1)
        content, suffix = encode_small(pixels, PNG_LIMIT)
        (root / (stem + suffix)).write_bytes(content)
        return {"path": stem + suffix, "width": pixels.shape[1], "height": pixels.shape[0]}


def _reduced(tile: np.ndarray, step: int) -> np.ndarray:
    """A tile with the means of step x step cells; what does not fill a cell is cut off."""
    height, width = tile.shape[0] // step * step, tile.shape[1] // step * step
    cells = tile[:height, :width].reshape(height // step, step, width // step, step, tile.shape[2])
    return np.rint(cells.mean(axis=(1, 3))).astype(np.uint8)
