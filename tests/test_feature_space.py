"""Features, neighbours, components, layouts: against SciPy, scikit-learn and brute force; `zfcore embed`."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_nets import classifier

import zfcore
from zfcore import explain
from zfcore.explain import features as module
from zfcore.formats import results


def rows(count: int, width: int, seed: int = 0) -> np.ndarray:
    scales = np.linspace(3, 0.5, width)
    return (np.random.default_rng(seed).standard_normal((count, width)) * scales).astype(np.float32)


def test_extract_is_the_layer_flattened(tmp_path: Path) -> None:
    net = classifier()
    x = np.random.default_rng(0).standard_normal((7, *net.input_shape)).astype(np.float32)
    for layer in ("fc3", "conv2", "conv1.pre", "pixels"):
        expected = x if layer == "pixels" else net.features(x, [layer])[layer]
        for limit in (10**9, 0):
            found = explain.extract(net, x, layer, batch_size=3, memory_limit=limit, scratch=tmp_path)
            np.testing.assert_array_equal(found, expected.reshape(7, -1))
            assert isinstance(found, np.memmap) == (limit == 0)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="conv1"):
        explain.extract(net, x, "conv9")


def test_extract_from_a_data_set() -> None:
    net = classifier()
    pixels = np.random.default_rng(0).integers(0, 256, (5, 20, 23, 3)).astype(np.uint8)
    found = explain.extract(net, zfcore.Arrays(pixels), "fc3", batch_size=2)
    np.testing.assert_array_equal(found, net.features(net.preprocessing.apply(pixels), ["fc3"])["fc3"])


def test_maps_of_a_layer() -> None:
    net = classifier()
    x = np.random.default_rng(0).standard_normal((1, *net.input_shape)).astype(np.float32)
    maps = explain.maps_of(net, x, "conv2")
    np.testing.assert_array_equal(maps[3], net.features(x, ["conv2"])["conv2"][0, :, :, 3])
    with pytest.raises(ValueError, match="layer of maps"):
        explain.maps_of(net, x, "fc3")


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_neighbours_by_brute_force(metric: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from scipy.spatial.distance import cdist

    base, queries = rows(60, 9), rows(5, 9, 1)
    base[7] = base[3]  # equals come in their order
    expected = cdist(queries.astype(float), base.astype(float), metric)
    order = np.argsort(np.round(expected, 9), axis=1, kind="stable")[:, :8]
    for budget in (2**25, 64):
        monkeypatch.setattr(module, "_blocks", lambda size, width, *limits, budget=budget: itertools.starmap(
            slice, [(start, min(start + max(budget // width, 1), size))
                    for start in range(0, size, max(budget // width, 1))]))
        indices, distances = explain.nearest(queries, base, 8, metric=metric)
        np.testing.assert_array_equal(indices, order)
        np.testing.assert_allclose(distances, np.take_along_axis(expected, order, 1), rtol=1e-6)


@pytest.mark.parametrize("shape", [(40, 9), (9, 40), (12, 12)])
def test_components_equal_scikit_learn(shape: tuple[int, int]) -> None:
    decomposition = pytest.importorskip("sklearn.decomposition")
    values = rows(*shape)
    model = decomposition.PCA(4, svd_solver="full").fit(values.astype(float))
    expected = model.transform(values.astype(float))
    found, shares = explain.pca(values, 4)
    signs = np.sign((found * expected).sum(axis=0))
    np.testing.assert_allclose(found, expected * signs, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(shares, model.explained_variance_ratio_, rtol=1e-6)
    assert (np.take_along_axis(found, np.abs(found).argmax(axis=0)[None], 0) > 0).all()


def test_tsne_keeps_clusters_apart_and_is_the_same_again() -> None:
    pytest.importorskip("sklearn")
    centres = 10 * np.eye(3, 8)
    values = np.concatenate([centre + 0.3 * rows(15, 8, seed) for seed, centre in enumerate(centres)])
    values = values.astype(np.float32)
    points = explain.tsne(values, perplexity=8, seed=1)
    np.testing.assert_array_equal(points, explain.tsne(values, perplexity=8, seed=1))
    labels = np.repeat(np.arange(3), 15)
    near = explain.nearest(points.astype(float), points.astype(float), 4)[0]
    assert (labels[near] == labels[:, None]).mean() > 0.98


@pytest.mark.parametrize(("count", "shape"), [(1, None), (7, None), (30, None), (30, (5, 6)), (30, (2, 40)),
                                              (9, (9, 1))])
def test_layout_gives_everyone_a_cell(count: int, shape: tuple[int, int] | None, monkeypatch: pytest.MonkeyPatch
                                      ) -> None:
    points = np.random.default_rng(0).standard_normal((count, 2))
    for exact in (1500, 0):
        monkeypatch.setattr("zfcore.explain.layout.EXACT", exact)
        cells = explain.grid_layout(points, *(shape or ()))
        assert len({tuple(cell) for cell in cells}) == count and cells.min() >= 0
        if shape:
            assert (cells < shape).all()


def test_layout_is_the_best_and_upright(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    cells = np.stack(np.meshgrid(np.arange(6), np.arange(6), indexing="ij"), axis=-1).reshape(-1, 2)
    order = rng.permutation(36)
    points = np.stack([cells[order, 1], -cells[order, 0]], axis=1) * 2.5 + 7  # y grows upwards
    for exact in (1500, 0):
        monkeypatch.setattr("zfcore.explain.layout.EXACT", exact)
        np.testing.assert_array_equal(explain.grid_layout(points), cells[order])


def test_refusals() -> None:
    values = rows(6, 4)
    for call, word in ((lambda: explain.nearest(values, values, 7), "count"),
                       (lambda: explain.nearest(values[:, :3], values), "queries.shape"),
                       (lambda: explain.nearest(values, values, metric="l9"), "metric"),
                       (lambda: explain.pca(values, 5), "count"),
                       (lambda: explain.tsne(values, perplexity=6), "perplexity"),
                       (lambda: explain.grid_layout(values), "points.shape"),
                       (lambda: explain.grid_layout(values[:, :2], 2, 2), "cells"),
                       (lambda: explain.grid_layout(values[:, :2] * np.nan), "finite")):
        with pytest.raises(ValueError, match=word):
            call()


# The command


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("embed")
    zfcore.save(classifier(), folder / "net.safetensors")
    rng = np.random.default_rng(0)
    for kind, level in (("dark", 40), ("light", 200)):
        (folder / "images" / kind).mkdir(parents=True)
        for number in range(8):
            pixels = (level + rng.integers(-30, 30, (30, 30, 3))).astype(np.uint8)
            Image.fromarray(pixels).save(folder / "images" / kind / f"{number}.png")
    return folder


@pytest.mark.parametrize("method", ["pca", "tsne"])
def test_embed(run: Callable[..., tuple[int, str, str]], work: Path, method: str) -> None:
    pytest.importorskip("sklearn")
    code, out, err = run("embed", work / "net.safetensors", work / "images", "--layer", "pixels,fc3",
                         "--method", method, "--neighbours", 3, "--out", work / method)
    assert code == 0, err
    summary = json.loads((work / method / "summary.json").read_text())
    assert summary["layers"]["pixels"]["same_class"] == 1.0 and "100.0%" in out
    assert [row["metric"] for row in summary["layers"].values()] == ["euclidean", "cosine"]
    for layer in ("pixels", "fc3"):
        for name in ("grid", "scatter", "neighbours"):
            assert np.asarray(Image.open(work / method / f"{layer}-{name}.png")).std() > 3
        arrays = results.load(work / method / layer, "embedding")[1]
        assert arrays["points"].shape == (16, 2) and len({tuple(cell) for cell in arrays["cells"]}) == 16
        assert (arrays["neighbours"][:, 0] == np.arange(16)).all()
    assert "index.html" in out and (work / method / "index.html").exists()


@pytest.mark.parametrize(("words", "complaint"), [
    (["--method", "umap"], "pca"), (["--layer", "conv9"], "conv1"), (["--perplexity", "0"], "--perplexity"),
    (["--limit", "1"], "--limit"), (["--neighbours", "x"], "--neighbours"),
    (["--metric", "l9"], "--metric")])
def test_embed_refuses(run: Callable[..., tuple[int, str, str]], work: Path, words: list[str], complaint: str) -> None:
    code, out, err = run("embed", work / "net.safetensors", work / "images", "--out", work / "never", *words)
    assert code == 2 and out == "" and err.count("\n") == 1 and complaint in err, err
    assert not (work / "never").exists()
