"""Networks side by side: filters, their spectra, second-layer projections (the paper's Fig. 6)."""

from __future__ import annotations

from typing import Any

import numpy as np

from .atlas import atlas_picture, card_pictures, filter_picture
from .maps import fitted, titled_panels, viridis
from .studies import plain


def architecture_picture(result: Any, side: int = 300, shown: int = 8) -> np.ndarray:
    """A row a network: first-layer filters, their mean spectrum, second-layer projections.

    Parameters
    ----------
    result : a `study.architecture.Architecture`
    side : of the filters' and the spectrum's pictures
    shown : maps of the second layer

    Returns
    -------
    uint8 (height, width, 3)
    """
    items = []
    for number, label in enumerate(result.labels):
        row = result.summary["networks"][label]
        bands, stride = row["bands"], result.strides[number]
        filters = result.filters[label]
        if filters.shape[3] in (1, 3):
            pixels = filter_picture(filters, result.channels[number], columns=int(np.ceil(np.sqrt(len(filters)))))
            items.append((f"{plain(label, 36)}: {result.first[number]}", pixels,
                          f"{row['filters']} of {row['size'][0]} x {row['size'][1]}, stride {stride}\n"
                          f"dead {row['dead']} (weak {row['weak']}, silent {row['silent']})"))
        power = result.spectra[label]
        items.append(("mean spectrum (log)", _boxed(viridis(np.log10(power + 1e-7)), stride),
                      f"low {bands['low']:.2f}, mid {bands['mid']:.2f}, high {bands['high']:.2f}\n"
                      f"white: what stride {stride} can carry"))
        cards, names = [], []
        for line in range(min(shown, len(result.maps[label]))):
            left, right, _ = card_pictures(result.projections[label][line], result.patches[label][line],
                                           result.origins[label][line], result.extents[label].tolist(),
                                           result.channels[number], filled=np.isfinite(result.values[label][line]))
            cards.append((left, right))
            names.append(f"{result.second[number]}:{result.maps[label][line]}")
        items.append(("strongest of the second layer", atlas_picture(cards, names, columns=4),
                      f"aliased {row['aliased']:.3f}, folded {row['folded']:.3f}, comb {row['comb']:.3f}"))
    columns = len(items) // len(result.labels)
    sized = [(head, fitted(pixels, side) if place % columns < columns - 1 else pixels, note)
             for place, (head, pixels, note) in enumerate(items)]
    return titled_panels(sized, columns=columns, side=0)


def _boxed(spectrum: np.ndarray, stride: int) -> np.ndarray:
    """Enlarged four times, with a white square around the frequencies below the stride's Nyquist frequency."""
    pixels = spectrum.repeat(4, axis=0).repeat(4, axis=1)
    size = pixels.shape[0]
    half = round(size / (2 * stride))
    low, high = size // 2 - half, min(size // 2 + half, size - 1)
    low = max(low, 0)
    pixels[[low, high], low:high + 1] = 255
    pixels[low:high + 1, [low, high]] = 255
    return pixels
