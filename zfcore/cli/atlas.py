"""`zfcore atlas` and `zfcore merge`: each map's strongest activations over a set of images."""

from __future__ import annotations

import json as jsons
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .common import (
    Architecture,
    BadImages,
    Force,
    Json,
    Model,
    Out,
    Pixels,
    Rule,
    Sides,
    bad_images,
    byte_count,
    duration,
    guard_output,
    integer,
    load_model,
    names,
    note,
    shard,
    size,
    tell,
)
from .studies import Common, Start, experiment, integers

if TYPE_CHECKING:
    from ..study.atlas import Atlas

MEMORY = "For patches, and for projections; more goes to a temporary file beside --out, or is not kept."


@experiment(batch_size="32")
def atlas(
    common: Common,
    model: Model,
    images: Annotated[str, typer.Argument(metavar="IMAGES", show_default=False,
                                          help="A folder, a picture, or a packed .npz (set.npz:train).")],
    layers: Annotated[str | None, typer.Option("--layers", metavar="NAMES", show_default=False,
                                               help="As in conv3,conv5; default: convolutions.")] = None,
    maps: Annotated[str | None, typer.Option("--maps", metavar="NUMBERS", show_default=False, help=(
        "Maps of every layer to project and show, as in 3,5,8 or 0:15:1; default: all."))] = None,
    top: Annotated[str, typer.Option("--top", metavar="N", help="Activations a map.")] = "9",
    many_per_image: Annotated[bool, typer.Option("--many-per-image",
                                                 help="Let one image have several of a map's entries.")] = False,
    start: Start = "activation",
    no_sanity: Annotated[bool, typer.Option("--no-sanity", help="Leave out the sanity checks.")] = False,
    memory_limit: Annotated[str, typer.Option("--memory-limit", metavar="SIZE", help=MEMORY)] = "2GB",
    part: Annotated[str | None, typer.Option("--shard", metavar="I/N", show_default=False,
                                             help="Scan part I of N; `zfcore merge` joins them.")] = None,
    on_bad_image: BadImages = "fail",
    resume: Annotated[bool, typer.Option("--resume", help=(
        "Keep the scan's state in OUT.state, and go on from there if there is one."))] = False,
    save_every: Annotated[str, typer.Option("--save-every", metavar="N",
                                            help="Images between two states.")] = "5000",
) -> None:
    """Find what every feature map responds to most.

    \b
    zfcore atlas model.safetensors photos --layers conv3,conv5 --out atlas
    zfcore atlas model.safetensors photos --shard 1/2 --out part1     (and 2/2 elsewhere)
    zfcore atlas model.safetensors million --resume --out atlas     (again after a crash)

    One pass over the images finds each map's strongest activations, one an image unless asked
    otherwise, and each is projected to pixels through its own pooling switches. Writes index.html,
    PNG grids like those of Zeiler & Fergus, the arrays, units.csv, entries.csv and summary.json.
    Says what memory and about what time it will take.
    """
    out, entries, pause = common.out.absolute(), integer("--top", top, 1), integer("--save-every", save_every, 1)
    kept = out.with_name(out.name + ".state") if resume else None
    limit, piece = byte_count("--memory-limit", memory_limit), shard(part)
    chosen = None if layers is None else names("--layers", layers)
    shown = None if maps is None else integers("--maps", maps)
    if start not in ("activation", "one"):
        raise ValueError(f"--start is {start!r}; allowed: activation, one")
    from ..data import open_images
    from ..study.scan import chosen_layers, scan
    from ..study.state import State

    source = open_images(images, on_bad=bad_images(on_bad_image))
    net = common.load(model).freeze()
    for layer in chosen_layers(net, chosen):
        if shown is not None and max(shown) >= net.tensor_shape(layer)[-1]:
            raise ValueError(f"--maps is {maps!r}; allowed: 0 to {net.tensor_shape(layer)[-1] - 1} in layer {layer}")
    begun = time.perf_counter()
    found = scan(net, source, chosen, entries, batch_size=common.batch_size, memory_limit=limit, shard=piece,
                 scratch=out.parent, one_per_image=not many_per_image, state=kept, save_every=pause)
    extra = {"model": model, "seconds": {"scan": round(time.perf_counter() - begun, 2)}}
    finish(found, common.out, common.force, common.json, extra, limit, rule=common.rule, seed=start, maps=shown,
           sanity=not no_sanity)
    if kept is not None:
        State(kept).remove()


def merge(
    atlases: Annotated[list[Path], typer.Argument(metavar="ATLAS...", show_default=False,
                                                  help="Folders that `zfcore atlas --shard` wrote.")],
    out: Out,
    model: Annotated[str | None, typer.Option("--model", metavar="MODEL", show_default=False,
                                              help="The model that was scanned, for the pictures.")] = None,
    rule: Rule = "deconvnet",
    memory_limit: Annotated[str, typer.Option("--memory-limit", metavar="SIZE", help=MEMORY)] = "2GB",
    architecture: Architecture = None,
    preprocessing: Pixels = None,
    input_size: Sides = None,
    force: Force = False,
    json: Json = False,
) -> None:
    """Join atlases of parts into the atlas of the whole.

    \b
    zfcore merge part1 part2 --model model.safetensors --out atlas

    The result equals that of a single pass. Without --model only the arrays are written.
    """
    guard_output(out, force, model, *atlases)
    limit = byte_count("--memory-limit", memory_limit)
    from .. import rules
    from ..study.atlas import Atlas

    rules.get(rule)
    net = None if model is None else load_model(model, architecture=architecture, preprocessing=preprocessing,
                                                input_size=input_size)
    parts = [Atlas.load(folder / "atlas" if (folder / "atlas").is_dir() else folder) for folder in atlases]
    if net is not None:
        parts[0].with_network(net)
    missing = parts[0].without(parts[0].together(*parts[1:]))
    _tell_merge(parts, limit)
    if missing:
        count = parts[0].count - sum(end - begin for begin, end in missing)
        note(f"zfcore: WARNING: the atlases cover {count:,} of {parts[0].count:,} images ({_ranges(missing)} missing); "
             "what is strongest among the rest is not known")
    found = parts[0].merge(*parts[1:], memory_limit=limit, scratch=out.absolute().parent)
    extra = {"model": model, "merged": [str(folder) for folder in atlases]}
    finish(found, out, force, json, extra, limit, rule=rule)


def _tell_merge(parts: list[Atlas], limit: int) -> None:
    """Say, before it begins, what a merge and its report will take."""
    from ..study.forecast import duration_text, measure, report_seconds

    whole = parts[0]
    maps = {name: part.maps for name, part in whole.layers.items()}
    place = "in memory" if whole.patch_bytes <= limit else "on disk"
    text = (f"merge: {len(parts)} atlases, {sum(maps.values()):,} feature maps: {size(whole.patch_bytes)} of patches "
            f"{place}")
    if whole.network is not None:
        seconds = report_seconds(whole.network, maps, whole.top, measure(whole.network, list(maps)))
        text += (f", {size(4 * whole.patch_bytes)} of projections; about {duration_text(seconds)} to project and "
                 "draw all of it")
    note(text)


def _ranges(parts: list[tuple[int, int]], most: int = 4) -> str:
    """Ranges of images for people, counted from 0."""
    shown = [f"{begin}..{end - 1}" for begin, end in parts[:most]]
    return ", ".join(shown + ["..."] * (len(parts) > most))


def finish(found: Atlas, out: Path, force: bool, json: bool, extra: dict[str, Any], limit: int, **shown: Any) -> None:
    """Write an atlas's arrays, and with its network the report (`shown` says of what); tell the user."""
    from .. import report
    from ..files import atomic_folder
    from ..study.tables import entries_csv, units_csv

    summary = {**found.summary, **extra}
    with atomic_folder(out, force) as folder:
        (folder / "units.csv").write_text(units_csv(found), encoding="utf-8")
        (folder / "entries.csv").write_text(entries_csv(found), encoding="utf-8")
        if found.network is None:
            found.save(folder / "atlas")
        else:
            begun = time.perf_counter()
            report.write(folder, found, progress=True, projection_limit=min(limit, report.PROJECTION_LIMIT), **shown)
            summary.setdefault("seconds", {})["report"] = round(time.perf_counter() - begun, 2)
        (folder / "summary.json").write_text(jsons.dumps(summary, indent=2), encoding="utf-8")
    took = duration(sum(summary.get("seconds", {}).values()))
    counts = ", ".join(f"{name}: {row['maps']} maps, {row['dead']} dead"
                       for name, row in summary["layers"].items())
    last = (f"arrays are in {out / 'atlas'}; give --model for pictures" if found.network is None
            else f"open {out / 'index.html'}")
    of = "" if found.scanned == found.count else f" of {found.count}"
    head = f"{summary['scanned']}{of} images, {summary['skipped']} skipped, {took}"
    tell(summary, json, f"{head}\n{counts}\n{last}")
