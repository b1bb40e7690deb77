"""Shapes of fully connected layers, (batch, outputs, inputs): measured ones, and corners."""

from __future__ import annotations

ZFNET = [("fc6", 16, 4096, 9216), ("fc6, one image", 1, 4096, 9216), ("fc7", 16, 4096, 4096)]

CORNERS = [
    (1, 1, 1), (1, 7, 3), (2, 6, 16), (3, 5, 17), (4, 12, 64), (5, 13, 31), (9, 10, 100), (17, 33, 520),
    (100, 6, 40), (130, 140, 35), (3, 135, 600), (2, 300, 1030),
]
