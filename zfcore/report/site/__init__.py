"""A static site of any set of saved results: it opens from a file, without a network."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

from tqdm import tqdm

from ... import checks, data
from ...files import atomic_folder
from ...formats import results
from ...study.architecture import Architecture
from ...study.atlas import Atlas
from ...study.correspondence import Correspondence
from ...study.evolution import Evolution
from ...study.invariance import Invariance
from ...study.occlusion import Occlusion
from ..describe import RULES
from . import explanations, runs, studies
from .atlas import AtlasPages
from .pages import Site
from .sources import RUN, Source, find

__all__ = ["Source", "find", "write_site"]

STUDIES: dict[str, tuple[Any, Callable[[Site, Source, Any], None]]] = {
    "occlusion": (Occlusion, studies.occlusion),
    "evolution": (Evolution, studies.evolution),
    "invariance": (Invariance, studies.invariance),
    "correspondence": (Correspondence, studies.correspondence),
    "architecture": (Architecture, studies.architecture),
}


def write_site(folder: str | os.PathLike[str], paths: Sequence[str | os.PathLike[str]], *, networks: Sequence[Any] = (),
               images: Any = None, title: str | None = None, rule: str | None = None, sanity: bool = True,
               progress: bool = False, force: bool = False) -> dict[str, Any]:
    """Write a site of results into a folder, completely or not at all.

    Parameters
    ----------
    folder : where; it must not exist, or be an earlier report and `force` be set
    paths : result folders, or folders that commands wrote
    networks : networks that were scanned: an atlas finds its own by the hash, and gets projections
        (where none were kept), wiring, filters, sanity panels and the graph
    images : the data set that was scanned, for small pictures of whole images; what `data.open_images` takes
    title : of the site; None: the first network's name
    rule : of the projections; None: that of those kept beside an atlas, else the deconvnet
    sanity : draw a sanity panel for each unit of an atlas with its network
    progress : show a bar on stderr
    force : replace an earlier report

    Returns
    -------
    dict : pages, bytes, results (kind and name of each), for people and for JSON

    Raises
    ------
    FileNotFoundError, results.ResultError : a path that is no result
    ValueError : a network that none of the atlases was made with
    """
    if rule is not None:
        checks.one_of("report", "rule", rule, RULES)
    target = results.guard(folder, force)
    sources = find(paths)
    atlases = _atlases(sources, networks)
    pictures = None if images is None else data.open_images(images)
    if pictures is not None:
        checks.require(any(atlas.hashes["images"] == pictures.manifest() for _, atlas in atlases), "report", "images",
                       str(pictures), "the data set that an atlas was made of (its manifest is another one)")
    with atomic_folder(target, force) as root:
        site = Site(root, title or _title(atlases))
        pages = [AtlasPages(site, source, atlas, prefix="" if number == 0 else f"network-{number + 1}/", rule=rule,
                            sanity=sanity, images=_fitting(pictures, atlas))
                 for number, (source, atlas) in enumerate(atlases)]
        with tqdm(total=sum(each.maps for each in pages), desc="report", unit="map", disable=not progress) as bar:
            for each in pages:
                each.write(bar)
        rest = [source for source in sources if source.kind != "atlas"]
        for (output, gathered), group in groupby(rest, lambda each: (each.output, each.kind in explanations.GATHERED)):
            if gathered:
                explanations.explanation(site, list(group))
                continue
            for source in tqdm(list(group), desc=f"report: {output.name}", disable=not progress, leave=False):
                _one(site, source)
        site.finish()
        summary = {"title": site.title, "results": [{"kind": source.kind, "name": source.name} for source in sources],
                   "pages": sum(1 for _ in root.rglob("*.html")),
                   "bytes": sum(path.stat().st_size for path in root.rglob("*") if path.is_file())}
        site.summary(summary)
    return summary


def _one(site: Site, source: Source) -> None:
    if source.kind in STUDIES:
        kind, page = STUDIES[source.kind]
        page(site, source, kind.load(source.path))
    elif source.kind == RUN:
        runs.run(site, source)
    elif source.kind == "embedding":
        explanations.embedding(site, source)
    else:
        explanations.anything(site, source)


def _atlases(sources: Sequence[Source], networks: Sequence[Any]) -> list[tuple[Source, Atlas]]:
    """The atlases, each with its network where that was given."""
    atlases = [(source, Atlas.load(source.path)) for source in sources if source.kind == "atlas"]
    for network in networks:
        digest = results.network_hash(network)
        fitting = [atlas for _, atlas in atlases if atlas.hashes["network"] == digest]
        if not fitting:
            there = ", ".join(atlas.hashes["network"][:12] + "..." for _, atlas in atlases) or "there is no atlas"
            checks.fail("report", "network", f"{network.name or 'a network'} ({digest[:12]}...)",
                        f"a network that an atlas was made with, by its hash: {there}")
        for atlas in fitting:
            atlas.network = network
    return atlases


def _fitting(pictures: data.Images | None, atlas: Atlas) -> data.Images | None:
    return pictures if pictures is not None and pictures.manifest() == atlas.hashes["images"] else None


def _title(atlases: Sequence[tuple[Source, Atlas]]) -> str:
    from ...data.decode import printable

    names = [printable(atlas.network_name) for _, atlas in atlases if atlas.network_name]
    return f"What {names[0]} responds to" if names else "Inside a convolutional network"
