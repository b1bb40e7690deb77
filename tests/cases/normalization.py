"""Shapes and settings of normalisations: the layers that speed is measured on, and corners."""

from __future__ import annotations

ZFNET_RESPONSE = [("norm1", (16, 55, 55, 96)), ("norm2", (16, 13, 13, 256))]

# name, shape, settings
RESPONSE = [
    ("AlexNet", (2, 3, 4, 37), {"size": 5, "alpha": 1e-4, "beta": 0.75, "k": 2.0}),
    ("strong", (2, 3, 3, 21), {"size": 5, "alpha": 0.7, "beta": 0.75, "k": 1.0}),
    ("divided", (1, 2, 2, 16), {"size": 5, "alpha": 2.0, "beta": 0.75, "k": 1.0, "alpha_is_divided_by_size": True}),
    ("even window", (1, 3, 3, 9), {"size": 4, "alpha": 0.5, "beta": 0.75, "k": 2.0}),
    ("two maps", (1, 3, 3, 7), {"size": 2, "alpha": 0.5, "beta": 0.5, "k": 2.0}),
    ("one map", (1, 3, 3, 6), {"size": 1, "alpha": 0.5, "beta": 1.0, "k": 0.5}),
    ("all maps", (1, 2, 3, 5), {"size": 5, "alpha": 0.3, "beta": 0.6, "k": 1.5}),
    ("wide", (1, 2, 2, 40), {"size": 9, "alpha": 0.2, "beta": 1.3, "k": 1.0}),
    ("vectors of features", (4, 19), {"size": 3, "alpha": 0.2, "beta": 0.75, "k": 1.0}),
    ("empty batch", (0, 3, 3, 8), {"size": 5}),
]

CONTRAST = [
    ("3 x 3", (2, 5, 6, 7), {"size": 3, "alpha": 0.4, "beta": 0.75, "k": 1.0}),
    ("5 x 5, vector and tail", (1, 6, 5, 19), {"size": 5, "alpha": 0.9, "beta": 0.75, "k": 1.0}),
    ("undivided", (1, 4, 5, 3), {"size": 3, "alpha": 0.2, "beta": 0.5, "k": 2.0, "alpha_is_divided_by_area": False}),
    ("even window", (1, 5, 4, 3), {"size": 4, "alpha": 0.5, "beta": 1.0, "k": 1.0}),
    ("two cells", (1, 4, 4, 2), {"size": 2, "alpha": 0.5, "beta": 0.6, "k": 1.0}),
    ("one cell", (1, 3, 3, 2), {"size": 1, "alpha": 0.5, "beta": 0.75, "k": 2.0}),
    ("window above the map", (1, 3, 4, 2), {"size": 9, "alpha": 0.5, "beta": 0.75, "k": 1.0}),
    ("empty batch", (0, 5, 5, 2), {"size": 3}),
]
