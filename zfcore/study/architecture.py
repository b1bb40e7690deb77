"""Architecture selection: what two networks' first layers keep and lose (Zeiler & Fergus 2014, section 4.1, Fig. 6).

The paper looked at AlexNet's first layer and saw dead filters, filters of extremely high or low frequency
with little between, and, in the second layer, aliasing from the stride of 4; smaller filters at stride 2
mended it. Here each of these is a number, and the networks stand side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from .. import backends, checks, rules
from . import results
from .saved import Saved, network_pixels
from .scan import scan

GRID = 64  # cells of a spectrum along each axis
EDGES = (0.1, 0.25)  # cycles per pixel: below is low, above is high, 0.5 is the finest along an axis
WEAK = 0.1  # a filter is weak whose RMS is below this share of the layer's largest


@dataclass
class Architecture(Saved):
    """First-layer filters and second-layer projections of several networks, with measures.

    Attributes
    ----------
    labels : a name for each network, the keys of all dicts
    first, second : names of their first two convolutions
    strides : of the first ones
    edges : cycles per pixel between low, mid and high frequencies
    filters : float32 (filters, height, width, channels)
    rms : float64 (filters,)
    bands : float64 (filters, 3): shares of a filter's energy at low, mid and high frequencies
    spectra : float64 (GRID, GRID): mean over filters of the power spectrum, each summing to 1; zero
        frequency in the middle
    folded : float64 (filters,): share of a filter's own energy at frequencies that its stride cannot carry
    aliased : float64 (filters,): share of the power of the filter's response to the images (before the
        ReLU, at stride 1, mean removed) at frequencies that the stride cannot carry
    strongest : float32 (filters,): largest activation over the images
    maps : int (m,), maps of the second layer that are shown, the strongest first
    projections, patches, origins : (m, k, height, width, channels) and (m, k, 2), their strongest activations
    values : float32 (m, k)
    phases : float64 (stride, stride): mean power of the projections' pixels by their place within the stride
    channels : orders of the networks' channels
    extents : (height, width) of the images, int (2,)
    images : how many were used
    hashes : SHA-256 of the networks
    """

    kind: ClassVar[str] = "architecture"

    labels: tuple[str, ...]
    first: tuple[str, ...]
    second: tuple[str, ...]
    strides: tuple[int, ...]
    edges: tuple[float, ...]
    filters: dict[str, np.ndarray]
    rms: dict[str, np.ndarray]
    bands: dict[str, np.ndarray]
    spectra: dict[str, np.ndarray]
    folded: dict[str, np.ndarray]
    aliased: dict[str, np.ndarray]
    strongest: dict[str, np.ndarray]
    maps: dict[str, np.ndarray]
    projections: dict[str, np.ndarray]
    patches: dict[str, np.ndarray]
    origins: dict[str, np.ndarray]
    values: dict[str, np.ndarray]
    phases: dict[str, np.ndarray]
    channels: tuple[str, ...]
    extents: dict[str, np.ndarray]
    images: int
    hashes: tuple[str, ...]

    @property
    def summary(self) -> dict[str, Any]:
        """Per network: dead filters, frequency bands, aliasing, the grid in the projections.

        `dead` counts filters that are weak (RMS below a tenth of the largest) or silent (never above
        zero). `aliased` weights filters by their responses' power. `comb` is the deviation of the
        projections' power over the places within the stride, divided by its mean: 0 without a grid.
        """
        rows = {}
        for number, label in enumerate(self.labels):
            weak = self.rms[label] < WEAK * self.rms[label].max()
            silent = self.strongest[label] <= 0
            bands, phases = self.bands[label].mean(axis=0), self.phases[label]
            rows[label] = {
                "layer": self.first[number], "stride": self.strides[number], "filters": len(weak),
                "size": list(self.filters[label].shape[1:3]), "weak": int(weak.sum()), "silent": int(silent.sum()),
                "dead": int((weak | silent).sum()),
                "bands": {name: float(value) for name, value in zip(("low", "mid", "high"), bands, strict=True)},
                "folded": float(self.folded[label].mean()), "aliased": float(self.aliased[label].mean()),
                "comb": float(phases.std() / phases.mean()) if phases.mean() > 0 else 0.0}
        return {"images": self.images, "edges": list(self.edges), "networks": rows}


def architecture(networks: Sequence[Any], images: Any, *, labels: Sequence[str] | None = None, maps: int = 16,
                 top: int = 4, edges: tuple[float, float] = EDGES, rule: str = "deconvnet", spectrum_images: int = 16,
                 batch_size: int = 16, progress: bool = True) -> Architecture:
    """Compare the first layers of networks, and what their second layers show of them.

    Parameters
    ----------
    networks : two or more (one is allowed), each with parameters, a preprocessing and two convolutions
    images : what `data.open_images` takes; each network sees them at its own size
    labels : names for the networks; None: their own, numbered where they are equal
    maps, top : how many maps of the second layer are shown, and how many activations of each
    edges : cycles per pixel between low, mid and high
    rule : of the projections
    spectrum_images : how many of the images, evenly spread, are used for `aliased`
    batch_size : images at a time
    progress : show bars on stderr

    Returns
    -------
    Architecture

    Raises
    ------
    ValueError : networks without two convolutions, a first one that does not look at the image
    """
    where = "architecture"
    nets = list(networks)
    checks.require(len(nets) > 0, where, "networks", nets, "one network or more")
    for name, value in (("maps", maps), ("top", top), ("spectrum_images", spectrum_images),
                        ("batch_size", batch_size)):
        checks.integer(where, name, value, 1)
    checks.require(len(edges) == 2 and 0 < edges[0] < edges[1] < 0.5, where, "edges", edges,
                   "two rising numbers between 0 and 0.5 cycles per pixel")
    rules.get(rule)
    given = [str(label) for label in labels] if labels is not None else _labels(nets)
    checks.require(len(given) == len(nets) and len(set(given)) == len(nets), where, "labels", labels,
                   f"{len(nets)} different names")
    layers = [_convolutions(net, label) for net, label in zip(nets, given, strict=True)]
    found: dict[str, dict[str, Any]] = {}
    count = 0
    for label, net, (first, second) in zip(given, nets, layers, strict=True):
        parts: dict[str, Any] = {}
        layer = net.nodes[first].layer
        stride = checks.pair(where, "stride", layer.stride, 1)
        checks.require(stride[0] == stride[1], where, f"the stride of {first} in {label!r}", stride, "one number")
        weight = backends.to_numpy(layer.parameters["weight"])
        parts["filters"] = np.array(weight, np.float32)
        power, rms = spectra(weight), np.sqrt(np.mean(np.asarray(weight, np.float64) ** 2, axis=(1, 2, 3)))
        parts["rms"], parts["spectra"] = rms, np.fft.fftshift(power.mean(axis=0))
        radius, square = _frequencies(GRID)
        low, high = radius < edges[0], radius >= edges[1]
        parts["bands"] = np.stack([power[:, low].sum(axis=1), power[:, ~low & ~high].sum(axis=1),
                                   power[:, high].sum(axis=1)], axis=1)
        parts["folded"] = power[:, square > 1 / (2 * stride[0])].sum(axis=1)
        atlas = scan(net, images, [first, second], top, batch_size=batch_size, progress=progress)
        count = atlas.scanned - len(atlas.skipped)
        parts["strongest"] = np.array(atlas[first].values[:, 0])
        part = atlas[second]
        order = np.argsort(-part.values[:, 0], kind="stable")[:maps]
        parts["maps"] = order.astype(np.int64)
        parts["projections"] = atlas.project(rule, layers=[second], maps=order)[second]
        parts |= {"patches": np.array(part.cut(order)), "origins": part.origins[order], "values": part.values[order]}
        parts["phases"] = _phases(parts["projections"], parts["origins"], stride[0])
        parts["aliased"] = _aliased(net, first, stride[0], images, spectrum_images, batch_size)
        parts["extents"] = np.array(net.input_shape[:2])
        parts["stride"] = stride[0]
        found[label] = parts
    strides = tuple(int(parts.pop("stride")) for parts in found.values())
    arrays = {name: {label: np.asarray(parts[name]) for label, parts in found.items()}
              for name in next(iter(found.values()))}
    return Architecture(
        labels=tuple(given), first=tuple(each[0] for each in layers), second=tuple(each[1] for each in layers),
        strides=strides, edges=tuple(edges), **arrays,
        channels=tuple(net.preprocessing.channels for net in nets), images=count,
        hashes=tuple(results.network_hash(net) for net in nets))


def spectra(weight: np.ndarray) -> np.ndarray:
    """Power spectra (filters, GRID, GRID) of filters, summed over channels; each sums to 1.

    Filters of any size are padded with zeros, so that frequencies are in cycles per pixel for all of
    them: cell k is k / GRID, those from GRID / 2 on are negative.
    """
    size = [max(GRID, side) for side in weight.shape[1:3]]
    checks.require(size == [GRID, GRID], "spectra", "weight.shape", weight.shape, f"filters of at most {GRID} pixels")
    power = (np.abs(np.fft.fft2(np.asarray(weight, np.float64), s=(GRID, GRID), axes=(1, 2))) ** 2).sum(axis=3)
    total = power.sum(axis=(1, 2), keepdims=True)
    return np.divide(power, total, out=np.zeros_like(power), where=total > 0)


def _frequencies(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Distance from zero frequency and the larger of the two axes' frequencies, (size, size)."""
    axis = np.abs(np.fft.fftfreq(size))
    return np.hypot(axis[:, None], axis), np.maximum(axis[:, None], axis)


def _aliased(network: Any, layer: str, stride: int, images: Any, most: int, batch_size: int) -> np.ndarray:
    """Share of each filter's response power beyond the Nyquist frequency of its stride."""
    from ..data import open_images

    source = open_images(images)
    chosen = np.unique(np.linspace(0, len(source) - 1, min(most, len(source))).round().astype(int))
    weight = backends.to_numpy(network.nodes[layer].layer.parameters["weight"])
    total = np.zeros(weight.shape[0])
    beyond = np.zeros(weight.shape[0])
    for index in chosen:
        pixels, _ = network_pixels("architecture", network, source.load(int(index), network.preprocessing))
        response = np.asarray(network.ops.convolution(network.preprocessing.apply(pixels), weight), np.float64)[0]
        height, width = response.shape[:2]
        taper = np.hanning(height)[:, None, None] * np.hanning(width)[:, None]
        taper = taper if taper.any() else np.ones_like(taper)
        response = (response - (response * taper).sum(axis=(0, 1)) / taper.sum()) * taper
        power = np.abs(np.fft.fft2(response, axes=(0, 1))) ** 2
        high = np.maximum(np.abs(np.fft.fftfreq(height))[:, None], np.abs(np.fft.fftfreq(width))) > 1 / (2 * stride)
        total += power.sum(axis=(0, 1))
        beyond += power[high].sum(axis=0)
    return np.divide(beyond, total, out=np.zeros_like(total), where=total > 0)


def _phases(projections: np.ndarray, origins: np.ndarray, stride: int) -> np.ndarray:
    """Mean square of the pixels by (row, column) modulo the stride, each projection weighing the same."""
    found = np.zeros((stride, stride))
    for tile, (row, column) in zip(projections.reshape(-1, *projections.shape[2:]), origins.reshape(-1, 2).tolist(),
                                   strict=True):
        power = (tile.astype(np.float64) ** 2).sum(axis=2)
        if power.any():
            power /= power.sum()
            for i in range(stride):
                for j in range(stride):
                    found[(row + i) % stride, (column + j) % stride] += power[i::stride, j::stride].sum()
    return found


def _labels(networks: list[Any]) -> list[str]:
    names = [net.name or "network" for net in networks]
    return [name if names.count(name) == 1 else f"{name} {number}" for number, name in enumerate(names, 1)]


def _convolutions(network: Any, label: str) -> tuple[str, str]:
    """Names of the first convolution, which must look at the image, and of the next one."""
    found = [row for row in network.layers() if row.type == "Convolution"]
    checks.require(len(found) >= 2 and found[0].inputs == ("input",), "architecture", f"convolutions of {label!r}",
                   [row.name for row in found], "two or more, the first of which looks at the image")
    return found[0].name, found[1].name
