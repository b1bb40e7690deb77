"""Draw README's picture out of a demo's folder: `python docs/pictures/draw.py zfcore-demo`."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

import zfcore
from zfcore.pictures import atlas_picture, card_pictures, png
from zfcore.study.atlas import Atlas

COUNT = 12


def draw(folder: Path, target: Path) -> None:
    """The strongest maps of the last convolution, spread over the classes they respond to."""
    net = zfcore.load(folder / "model.safetensors")
    atlas = Atlas.load(folder / "atlas", net)
    layer = list(atlas.layers)[-1]
    part = atlas[layer]
    commonest = [np.bincount([atlas.labels[image] for image in images], minlength=10).argmax()
                 for images in part.images.tolist()]
    order = np.argsort(-part.values[:, 0], kind="stable")
    rank = {index: sum(commonest[other] == commonest[index] for other in order[:place])
            for place, index in enumerate(order)}
    chosen = sorted(sorted(order, key=lambda index: rank[index])[:COUNT])
    projections = atlas.project("deconvnet", layers=[layer], maps=chosen)[layer]
    cards = [card_pictures(pixels, part.cut(index), part.origins[index], atlas.image_shape,
                           atlas.preprocessing.channels, background=34)[:2]
             for pixels, index in zip(projections, chosen, strict=True)]
    png(target, atlas_picture(cards, [f"{layer}:{index}" for index in chosen], columns=4))


if __name__ == "__main__":
    draw(Path(sys.argv[1]), Path(__file__).with_name("demo.png"))
