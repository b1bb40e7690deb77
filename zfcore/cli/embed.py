"""`zfcore embed`: how a layer sees a whole set of images."""

from __future__ import annotations

import json as jsons
from typing import Annotated, Any

import typer

from .common import BadImages, Model, bad_images, byte_count, integer, left_out, names, tell, whole_pictures
from .studies import Common, experiment

METHODS = ("pca", "tsne")


@experiment(batch_size="32", rule=False, class_names=False)
def embed(
    common: Common,
    model: Model,
    images: Annotated[str, typer.Argument(metavar="IMAGES", show_default=False,
                                          help="A folder, or a packed .npz (set.npz:train).")],
    layer: Annotated[str | None, typer.Option("--layer", metavar="NAMES", show_default=False,
                                              help="Layers, or pixels, as in pixels,fc7. Default: the last layer "
                                                   "below the classes.")] = None,
    method: Annotated[str, typer.Option("--method", metavar="pca|tsne", help="How features become points in the "
                                                                             "plane.")] = "tsne",
    perplexity: Annotated[str, typer.Option("--perplexity", metavar="N", help="For tsne: about how many neighbours "
                                                                              "count.")] = "30",
    neighbours: Annotated[str, typer.Option("--neighbours", metavar="N", help="Nearest images that are shown.")] = "6",
    metric: Annotated[str | None, typer.Option(
        "--metric", metavar="cosine|euclidean", show_default=False,
        help="Of neighbours. Default: euclidean for pixels; cosine for layers, since after ReLUs images that excite "
             "little are near to all.")] = None,
    queries: Annotated[str, typer.Option("--queries", metavar="N", help="Images whose neighbours are shown.")] = "8",
    limit: Annotated[str | None, typer.Option("--limit", metavar="N", show_default=False,
                                              help="Only the first N images of the set.")] = None,
    on_bad_image: BadImages = "fail",
    memory_limit: Annotated[str, typer.Option("--memory-limit", metavar="SIZE",
                                              help="For features; more goes to a temporary file.")] = "2GB",
) -> None:
    """Lay images out by a layer's features, and find each one's neighbours.

    \b
    zfcore embed zfcore-demo/model.safetensors zfcore-demo/digits --layer pixels,fc4 --out space

    For every layer: the features' principal components or t-SNE, the pictures in a grid laid out by it
    without overlaps, a scatter coloured by class, and the nearest neighbours of some images, all as PNG files
    and arrays; and the share of images whose nearest neighbour is of their own class, where classes are known.
    """
    if method not in METHODS:
        raise ValueError(f"--method is {method!r}; allowed: {', '.join(METHODS)}")
    if metric not in (None, "cosine", "euclidean"):
        raise ValueError(f"--metric is {metric!r}; allowed: cosine, euclidean")
    options = {"metric": metric, "method": method, "perplexity": integer("--perplexity", perplexity, 1),
               "neighbours": integer("--neighbours", neighbours, 1), "queries": integer("--queries", queries, 1),
               "limit": None if limit is None else integer("--limit", limit, 3),
               "memory_limit": byte_count("--memory-limit", memory_limit),
               "on_bad_image": bad_images(on_bad_image), "batch_size": common.batch_size, "seed": common.seed}
    net = common.load(model).freeze()
    chosen = None if layer is None else names("--layer", layer)
    summary = _write(net, model, images, chosen, options, common)
    lines = []
    for name, row in summary["layers"].items():
        share = row["same_class"]
        lines.append(f"{name}: {row['features']} features" + (
            "" if share is None else f", nearest neighbour of the same class {share:.1%}"))
    tell(summary, common.json, "\n".join(lines) + left_out(summary["skipped"]) + f"\nopen {common.out / 'index.html'}")


def _write(net: Any, model: str, images: str, layers: list[str] | None, options: dict[str, Any], common: Common
           ) -> dict[str, Any]:
    from ..data import open_images
    from ..files import atomic_folder
    from ..report import embedding

    if net.preprocessing is None:
        raise ValueError(f"{model} records no preprocessing; allowed: a model that says how pixels become its input")
    source = embedding.first(open_images(images, on_bad=options["on_bad_image"]), options["limit"])
    (source,), skipped = whole_pictures(source)
    if len(source) < 3:
        raise ValueError(f"IMAGES is {images!r}, which holds {len(source)} pictures; allowed: 3 or more")
    chosen = layers or [embedding.default_layer(net)]
    for name in chosen:
        if name != "pixels":
            net.tensor_shape(name)
    with atomic_folder(common.out, common.force) as folder:
        found = embedding.write(folder, net, source, chosen, options, common.out.absolute().parent)
        summary = {"model": model, "images": len(source), "skipped": skipped, "options": options, "layers": found}
        (folder / "summary.json").write_text(jsons.dumps(summary, indent=2), encoding="utf-8")
    return summary
