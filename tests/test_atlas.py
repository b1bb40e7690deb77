"""The atlas: one pass equals a full sort; parts join to the whole; patches are enough to project."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import real_alexnet
from hypothesis import given
from hypothesis import strategies as st

from zfcore import layers
from zfcore.data import Arrays, ImageFolder
from zfcore.kernels import strongest
from zfcore.network import Network
from zfcore.preprocessing import Preprocessing
from zfcore.study import forecast as forecasts
from zfcore.study import patches
from zfcore.study import scan as scanning
from zfcore.study import top as tops
from zfcore.study.atlas import Atlas, AtlasError
from zfcore.study.results import ResultError
from zfcore.study.scan import scan
from zfcore.study.top import LayerTop

SHAPE = (21, 18, 3)
LAYERS = ("conv1", "conv2", "conv3", "fc")


def network(seed: int = 0, preprocessing: Any = "default") -> Network:
    if preprocessing == "default":
        preprocessing = Preprocessing("BGR", mean=[100.0, 110.0, 120.0], scale=0.02)
    net = Network("small", SHAPE, preprocessing=preprocessing)
    net.add("conv1", layers.Convolution(5, 3, stride=2, padding=1, activation="relu"))
    net.add("pool1", layers.MaxPool(3, 2, ceil_mode=True))
    net.add("norm1", layers.ResponseNorm(3, alpha=0.1))
    net.add("conv2", layers.Convolution(7, 3, padding=1, activation="relu"))
    net.add("conv3", layers.Convolution(4, 3, activation="relu"))
    net.add("flat", layers.Flatten())
    net.add("fc", layers.Linear(6, activation="relu"))
    net.initialize(seed, scheme="he")
    for name in ("conv1", "conv2"):
        net.nodes[name].layer.parameters["bias"][:] = 0.1
    net.nodes["conv2"].layer.parameters["weight"][2] = -1  # a dead map
    net.nodes["conv2"].layer.parameters["bias"][2] = -1
    return net


def pictures(count: int = 30, seed: int = 1) -> np.ndarray:
    """Random images, every third one a copy of an earlier one, so that there are ties."""
    images = np.random.default_rng(seed).integers(0, 256, (count, *SHAPE), dtype=np.uint8)
    for index in range(3, count, 3):
        images[index] = images[index // 2]
    return images


NET = network()
IMAGES = pictures()
X = NET.preprocessing.apply(IMAGES) if NET.preprocessing else None


@pytest.fixture(scope="module")
def whole() -> Atlas:
    labels = np.arange(len(IMAGES)) % 4
    return scan(NET, Arrays(IMAGES, labels, class_names=list("abcd")), LAYERS, 5, progress=False)


def same(first: Atlas, second: Atlas) -> bool:
    """Bit for bit, beside the network object."""
    if first.layers.keys() != second.layers.keys():
        return False
    arrays = all(np.array_equal(mine, second.layers[name].arrays()[key])
                 for name, part in first.layers.items() for key, mine in part.arrays().items())
    rest = ("top", "image_shape", "count", "covered", "names", "labels", "class_names", "skipped", "hashes")
    return arrays and all(getattr(first, key) == getattr(second, key) for key in rest)


@pytest.mark.parametrize("layer", LAYERS)
def test_one_pass_equals_a_full_sort(whole: Atlas, layer: str) -> None:
    maps = NET.features(X, [layer])[layer]
    maps = maps.reshape(len(IMAGES), 1, 1, -1) if maps.ndim == 2 else maps
    part = whole[layer]
    for index in range(maps.shape[3]):
        entries = []
        for image, values in enumerate(maps[..., index]):
            entries.append(min((-float(value), image, row, column)
                               for (row, column), value in np.ndenumerate(values)))
        for rank, (value, image, row, column) in enumerate(sorted(entries)[:5]):
            assert part.values[index, rank] == np.float32(-value)
            assert (part.images[index, rank], part.rows[index, rank], part.columns[index, rank]) \
                == (image, row, column)


@pytest.mark.parametrize("layer", LAYERS)
def test_patches_are_the_receptive_fields(whole: Atlas, layer: str) -> None:
    part, cone = whole[layer], NET.cone(layer)
    padded = np.pad(IMAGES, ((0, 0), (40, 40), (40, 40), (0, 0)))
    for index, rank in np.ndindex(*part.values.shape):
        row, column = part.rows[index, rank], part.columns[index, rank]
        origin = cone.origins(row, column)[0]
        if not cone.whole:
            assert np.array_equal(part.origins[index, rank], origin)
        height, width = part.patches.shape[2:4]
        expected = padded[part.images[index, rank], 40 + origin[0]:40 + origin[0] + height,
                          40 + origin[1]:40 + origin[1] + width]
        assert np.array_equal(part.patches[index, rank], expected)


@pytest.mark.parametrize("recent", [0, 5000, 20000])
@pytest.mark.parametrize("batch", [1, 4])
def test_when_patches_are_cut_changes_nothing(whole: Atlas, recent: int, batch: int,
                                              monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patches, "RECENT", recent)
    cut, cuts = tops.Collector.cut, []
    monkeypatch.setattr(tops.Collector, "cut", lambda self, shelf: (cuts.append(self.layer), cut(self, shelf))[1])
    labels = np.arange(len(IMAGES)) % 4
    again = scan(NET, Arrays(IMAGES, labels, class_names=list("abcd")), LAYERS, 5, batch_size=batch, progress=False)
    assert all(isinstance(part.held, np.ndarray) for part in again.layers.values())
    assert same(whole, again) and len(cuts) > len(LAYERS)


def test_what_the_whole_layer_sees_has_the_image_as_patch(whole: Atlas) -> None:
    assert whole["fc"].patches.shape[2:] == SHAPE and not whole["fc"].origins.any()
    assert whole["conv1"].patches.shape[2:] == (3, 3, 3)


def test_dead_maps_are_marked(whole: Atlas) -> None:
    silent = (NET.features(X, ["conv2"])["conv2"] == 0).all(axis=(0, 1, 2))
    assert silent[2] and not silent.all() and np.array_equal(whole["conv2"].dead, silent)
    assert whole.summary["layers"]["conv2"] == {
        "maps": 7, "dead": silent.sum(), "patch": list(whole["conv2"].patches.shape[2:4]),
        "strongest": float(whole["conv2"].values.max())}
    assert not whole.project(layers=["conv2"], maps=[2])["conv2"].any()


def test_names_and_labels_of_kept_images(whole: Atlas) -> None:
    kept = {int(image) for part in whole.layers.values() for image in part.images.ravel()}
    assert set(whole.names) == set(whole.labels) == kept
    assert all(whole.labels[image] == image % 4 for image in kept) and whole.class_names == list("abcd")


@pytest.mark.parametrize("options", [{"batch_size": 1}, {"batch_size": 7, "threads": 3}, {"batch_size": 100}])
def test_batches_and_threads_do_not_matter(whole: Atlas, options: dict[str, Any]) -> None:
    labels = np.arange(len(IMAGES)) % 4
    again = scan(NET, Arrays(IMAGES, labels, class_names=list("abcd")), LAYERS, 5, progress=False, **options)
    assert same(again, whole)


@pytest.mark.parametrize("parts", [1, 2, 3, 31])
def test_shards_join_to_the_whole(whole: Atlas, parts: int) -> None:
    images = Arrays(IMAGES, np.arange(len(IMAGES)) % 4, class_names=list("abcd"))
    shards = [scan(NET, images, LAYERS, 5, shard=(number, parts), progress=False) for number in range(parts)]
    assert sum(shard.scanned for shard in shards) == len(IMAGES)
    assert same(shards[0].merge(*shards[1:]), whole)
    backwards = shards[-1]
    for shard in shards[-2::-1]:
        backwards = backwards.merge(shard)
    assert same(backwards, whole)
    if parts == 3:
        assert same(shards[0].merge(shards[1].merge(shards[2])), shards[0].merge(shards[1]).merge(shards[2]))


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("rule", ["deconvnet", "gradient", "guided"])
def test_projections_from_patches_equal_those_from_images(whole: Atlas, layer: str, rule: str) -> None:
    part, found = whole[layer], whole.project(rule, layers=[layer], batch_size=11)[layer]
    assert found.shape == part.patches.shape and found.dtype == np.float32
    assert all(np.array_equal(found, whole.project(rule, layers=[layer], batch_size=size)[layer])
               for size in (1, 1000))
    for index, rank in np.ndindex(*part.values.shape):
        if part.values[index, rank] <= 0:
            assert not found[index, rank].any()
            continue
        unit, image = part.unit(layer, index, rank), int(part.images[index, rank])
        dense = NET.project(X[image:image + 1], unit, rule=rule, crop=False).pixels[0]
        placed = np.zeros_like(dense)
        tops.copy_part(placed, (0, 0), found[index, rank], part.origins[index, rank])
        assert np.array_equal(placed, dense)


def test_seed_one_divides_by_the_value(whole: Atlas) -> None:
    part = whole["conv3"]
    alive = np.flatnonzero(~part.dead)
    full = whole.project(layers=["conv3"], maps=alive)["conv3"]
    one = whole.project(seed="one", layers=["conv3"], maps=alive)["conv3"]
    assert np.allclose(full, one * part.values[alive][:, :, None, None, None], rtol=1e-3, atol=1e-5)


def test_tensors_before_their_relu() -> None:
    atlas = scan(NET, IMAGES, "conv2.pre", 3, progress=False)
    part, maps = atlas["conv2.pre"], NET.features(X, ["conv2.pre"])["conv2.pre"]
    assert np.array_equal(part.values[:, 0], maps.max(axis=(0, 1, 2))) and (part.values[2] < 0).all()
    found = atlas.project()["conv2.pre"]
    assert not found[2].any() and found[part.values > 0].any() and not found[part.values <= 0].any()


def test_fewer_images_than_entries() -> None:
    atlas = scan(NET, IMAGES[:2], "conv3", 4, progress=False)
    part = atlas["conv3"]
    assert part.filled.tolist() == [[True, True, False, False]] * 4
    assert (part.images[:, 2:] == -1).all() and np.isneginf(part.values[:, 2:]).all()
    assert not part.patches[:, 2:].any() and not atlas.project()["conv3"][:, 2:].any()


def test_ties_go_to_the_first_image_and_the_first_position() -> None:
    flat = np.full((6, *SHAPE), 200, np.uint8)
    part = scan(NET, flat, "conv1", 3, progress=False)["conv1"]
    assert part.images.tolist() == [[0, 1, 2]] * 5
    maps = NET.features(NET.preprocessing.apply(flat[:1]), ["conv1"])["conv1"][0]  # type: ignore[union-attr]
    for index in range(5):
        assert part.rows[index, 0] * maps.shape[1] + part.columns[index, 0] == maps[..., index].argmax()


def test_activations_that_are_not_finite_are_named() -> None:
    net = network()
    net.nodes["conv2"].layer.parameters["bias"][3] = np.nan
    with pytest.raises(ValueError, match=r"conv2:3 on 'image-00000' is nan"):
        scan(net, IMAGES, "conv1,conv2", progress=False)


def test_memory_is_limited(whole: Atlas, tmp_path: Path) -> None:
    images = Arrays(IMAGES, np.arange(len(IMAGES)) % 4, class_names=list("abcd"))
    with pytest.raises(ValueError, match=r"memory_limit is '1.0 kB'.*scratch"):
        scan(NET, images, LAYERS, 5, memory_limit=1000, progress=False)
    atlas = scan(NET, images, LAYERS, 5, memory_limit=1000, scratch=tmp_path, progress=False)
    assert isinstance(atlas["conv1"].patches, np.memmap) and len(list(tmp_path.iterdir())) == 1
    assert same(atlas, whole)
    del atlas
    gc.collect()
    assert not list(tmp_path.iterdir())


def test_scratch_is_removed_after_an_error(tmp_path: Path) -> None:
    net = network()
    net.nodes["conv1"].layer.parameters["bias"][0] = np.inf
    with pytest.raises(ValueError, match="conv1:0"):
        scan(net, IMAGES, memory_limit=1, scratch=tmp_path, progress=False)
    assert not list(tmp_path.iterdir())


def test_the_forecast_counts_what_is_kept(whole: Atlas, capsys: pytest.CaptureFixture[str]) -> None:
    expected = scanning.forecast(NET, LAYERS, 30, top=5)
    assert expected.patch_bytes == sum(part.patches.nbytes for part in whole.layers.values())
    assert expected.maps == 22 and "30 images, 22 feature maps" in str(expected)
    scan(NET, IMAGES, "conv1", progress=True)
    err = capsys.readouterr().err
    assert "atlas: 30 images, 5 feature maps" in err and " of projections" in err
    assert expected.projection_bytes == 4 * expected.patch_bytes
    assert "for the scan, about" in err and err.index(" of patches") < err.index("for the scan")
    assert [scanning.size_text(size) for size in (5, 1500, 183e6, 2e13)] == ["5 bytes", "1.5 kB", "183 MB", "20.0 TB"]


def test_the_forecast_comes_before_the_first_picture(capsys: pytest.CaptureFixture[str]) -> None:
    said: list[str] = []

    class Watched(Arrays):
        def load(self, index: int, preprocessing: Any) -> np.ndarray:
            said.append(capsys.readouterr().err)
            raise KeyError("enough")

    with pytest.raises(Exception, match="enough"):
        scan(NET, Watched(IMAGES), "conv1", threads=1)
    assert "atlas: 30 images, 5 feature maps" in said[0] and "for a batch" in said[0]


def test_work_is_counted_on_crops() -> None:
    adds = NET.multiply_adds()
    assert forecasts.scan_work(NET, ["conv1"]) == adds["conv1"]
    height, width = NET.tensor_shape("conv1")[:2]
    assert forecasts.projection_work(NET, "conv1") == pytest.approx(2 * adds["conv1"] / (height * width))
    assert forecasts.report_seconds(NET, {"conv1": 5}, 9, 1.0) > 45 * forecasts.ENTRY_SECONDS
    assert forecasts.measure(NET, ["conv1"]) > 0


def test_a_merge_beyond_the_limit_is_gathered_in_a_file(whole: Atlas, tmp_path: Path) -> None:
    images = Arrays(IMAGES, np.arange(len(IMAGES)) % 4, class_names=list("abcd"))
    first, second = (scan(NET, images, LAYERS, 5, shard=(number, 2), progress=False) for number in range(2))
    assert first.missing == [(15, 30)] and second.missing == [(0, 15)] and whole.missing == []
    with pytest.raises(ValueError, match=r"Atlas.merge: memory_limit is 1000; .*scratch"):
        first.merge(second, memory_limit=1000)
    merged = first.merge(second, memory_limit=1000, scratch=tmp_path)
    assert isinstance(merged["conv1"].patches, np.memmap) and len(list(tmp_path.iterdir())) == 1
    assert same(merged, whole)
    del merged
    gc.collect()
    assert not list(tmp_path.iterdir())
    assert not isinstance(first.merge(second, memory_limit=2**30)["conv1"].patches, np.memmap)


def test_every_convolution_is_the_default() -> None:
    assert list(scan(NET, IMAGES[:3], progress=False).layers) == ["conv1", "conv2", "conv3"]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"layers": "conv9"}, "conv1, pool1"), ({"layers": []}, "one name"), ({"layers": "conv1,conv1"}, "once"),
        ({"layers": "input"}, "conv1"), ({"top": 0}, "top"), ({"batch_size": 0}, "batch_size"),
        ({"shard": (2, 2)}, "shard"), ({"shard": (0, 0)}, "shard"), ({"memory_limit": 0}, "memory_limit"),
        ({"top": 10**9}, "top"),
        ({"images": np.zeros((0, *SHAPE), np.uint8)}, "empty"),
        ({"images": np.zeros((2, 30, 18, 3), np.uint8)}, "image-00000.*size and crop"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        scan(**{"network": NET, "images": IMAGES, "progress": False, **arguments})


def test_preprocessing_is_needed() -> None:
    with pytest.raises(ValueError, match="preprocessing"):
        scan(network(preprocessing=None), IMAGES, progress=False)


def test_bad_pictures_are_skipped_on_request(tmp_path: Path) -> None:
    from PIL import Image

    for index, image in enumerate(IMAGES[:5]):
        Image.fromarray(image).save(tmp_path / f"{index}.png")
    (tmp_path / "2.png").write_bytes(b"broken")
    with pytest.raises(ValueError, match=r"2\.png"):
        scan(NET, tmp_path, progress=False)
    atlas = scan(NET, ImageFolder(tmp_path, on_bad="skip"), "conv1", progress=False)
    assert list(atlas.skipped) == [2] and "2.png" in atlas.skipped[2] and atlas.summary["skipped"] == 1
    assert sorted(atlas["conv1"].images[0]) == [-1] * 5 + [0, 1, 3, 4]


def test_only_parts_of_one_scan_join(whole: Atlas) -> None:
    first = scan(NET, IMAGES, "conv1", 5, shard=(0, 2), progress=False)

    def second(net: Network = NET, images: Any = IMAGES, chosen: str = "conv1", top: int = 5, shard: Any = (1, 2)
               ) -> Atlas:
        return scan(net, images, chosen, top, shard=shard, progress=False)

    with pytest.raises(AtlasError, match=r"images 10\.\.14 are in two"):
        first.merge(second(shard=(1, 3)))
    with pytest.raises(AtlasError, match="in two"):
        first.merge(first)
    for other, word in ((second(net=network(1)), "networks"), (second(images=pictures(seed=3)), "data sets"),
                        (second(chosen="conv2"), "layers"), (second(top=4), "top")):
        with pytest.raises(AtlasError, match=word):
            first.merge(other)


def test_saved_and_loaded(whole: Atlas, tmp_path: Path) -> None:
    whole.save(tmp_path / "a")
    again = Atlas.load(tmp_path / "a")
    assert same(again, whole) and isinstance(again["conv1"].patches, np.memmap)
    assert again.preprocessing.to_config() == whole.preprocessing.to_config()
    with pytest.raises(AtlasError, match="network is None"):
        again.project()
    with pytest.raises(AtlasError, match="hash"):
        Atlas.load(tmp_path / "a", network(1))
    again = Atlas.load(tmp_path / "a", network())
    assert all(np.array_equal(mine, theirs) for mine, theirs in
               zip(whole.project().values(), again.project().values(), strict=True))
    with pytest.raises(ResultError, match="kind 'atlas'"):
        from zfcore.study.results import load
        load(tmp_path / "a", "projections")


def test_shards_join_after_saving_too(whole: Atlas, tmp_path: Path) -> None:
    images = Arrays(IMAGES, np.arange(len(IMAGES)) % 4, class_names=list("abcd"))
    for number in range(2):
        scan(NET, images, LAYERS, 5, shard=(number, 2), progress=False).save(tmp_path / str(number))
    assert same(Atlas.load(tmp_path / "1").merge(Atlas.load(tmp_path / "0")), whole)


def test_a_mean_of_every_pixel_is_saved_with_it(tmp_path: Path) -> None:
    mean = np.random.default_rng(0).uniform(90, 130, SHAPE).astype(np.float32)
    net = network(preprocessing=Preprocessing("RGB", mean=mean, scale=0.02))
    atlas = scan(net, IMAGES, "conv3", 2, progress=False)
    atlas.save(tmp_path / "a")
    again = Atlas.load(tmp_path / "a", net)
    assert np.array_equal(again.preprocessing.mean, mean)
    assert np.array_equal(again.project()["conv3"], atlas.project()["conv3"])


def test_an_atlas_that_is_none(tmp_path: Path) -> None:
    from zfcore.study.results import save
    save(tmp_path / "a", "atlas", {"layers": ["conv1"]}, {})
    with pytest.raises(ResultError, match="not a whole atlas"):
        Atlas.load(tmp_path / "a")


def test_unknown_maps_and_layers(whole: Atlas) -> None:
    with pytest.raises(ValueError, match="conv1, conv2"):
        whole["conv9"]
    with pytest.raises(IndexError, match=r"0\.\.4"):
        whole.project(layers=["conv1"], maps=[5])
    with pytest.raises(ValueError, match="rule"):
        whole.project("magic")


# The monoid, on arrays alone: images are 0..n-1, values come from few numbers, so that ties are common.

def state(images: list[int], values: np.ndarray, top: int) -> LayerTop:
    """The strongest of some images of a layer with two maps, by sorting all."""
    lines: list[list[tuple[float, int]]] = [sorted((-float(values[image, m]), image) for image in images)[:top]
                                            for m in range(2)]
    result = LayerTop(np.full((2, top), -np.inf, np.float32), np.full((2, top), -1, np.int64),
                      *(np.zeros((2, top), np.int32) for _ in range(2)), np.zeros((2, top, 2), np.int32),
                      np.zeros((2, top, 1, 1, 1), np.uint8))
    for index, line in enumerate(lines):
        for rank, (value, image) in enumerate(line):
            result.values[index, rank], result.images[index, rank] = -value, image
            result.rows[index, rank], result.columns[index, rank] = image % 3, image % 5
            result.patches[index, rank] = image
    return result


def equal(first: LayerTop, second: LayerTop) -> bool:
    return all(np.array_equal(array, second.arrays()[name]) for name, array in first.arrays().items())


@given(st.data(), st.integers(1, 4), st.integers(0, 12))
def test_merging_is_a_commutative_monoid(data: st.DataObject, top: int, count: int) -> None:
    values = np.array(data.draw(st.lists(st.integers(-1, 3), min_size=2 * count, max_size=2 * count)))
    values = values.reshape(count, 2)
    owner = data.draw(st.lists(st.integers(0, 2), min_size=count, max_size=count))
    parts = [state([image for image in range(count) if owner[image] == number], values, top)
             for number in range(3)]
    everything, nothing = state(list(range(count)), values, top), state([], values, top)
    a, b, c = parts
    assert equal(tops.merge(parts), everything)
    assert equal(tops.merge([tops.merge([a, b]), c]), tops.merge([a, tops.merge([b, c])]))
    assert equal(tops.merge([b, a]), tops.merge([a, b]))
    assert equal(tops.merge([a, nothing]), a) and equal(tops.merge([nothing, a]), a)


def test_a_wrong_order_would_be_noticed(monkeypatch: pytest.MonkeyPatch, whole: Atlas) -> None:
    """If ties went to the last image, the comparison with the full sort would fail."""
    right = strongest.keep_strongest

    def last_first(values: Any, rows: Any, columns: Any, numbers: Any, kept: Any, images: Any, *rest: Any) -> bool:
        images[images >= 0] = 1000 - images[images >= 0]
        found = right(values, rows, columns, 1000 - numbers, kept, images, *rest)
        images[images >= 0] = 1000 - images[images >= 0]
        return found

    monkeypatch.setattr(strongest, "keep_strongest", last_first)
    wrong = scan(NET, Arrays(IMAGES, np.arange(len(IMAGES)) % 4, class_names=list("abcd")), LAYERS, 5,
                 progress=False)
    assert not same(wrong, whole)


def test_the_real_alexnet_finds_what_pytorch_found() -> None:
    """At least 8 of 9 images agree on every map of the reference; all values and positions do."""
    reference = real_alexnet.top9()
    net, path = real_alexnet.alexnet(), real_alexnet.data("imagenet300_warp256_jpeg.npz")
    atlas = scan(net, path, ",".join(reference), progress=False)
    for layer, maps in reference.items():
        part = atlas[layer]
        for key, entries in maps.items():
            index = int(key)
            found = {int(image): rank for rank, image in enumerate(part.images[index])}
            shared = [entry for entry in entries if entry["image"] in found]
            assert len(shared) >= 8, f"{layer}:{index}"
            for entry in shared:
                rank = found[int(entry["image"])]
                assert part.values[index, rank] == pytest.approx(entry["value"], rel=1e-4)
                assert (part.rows[index, rank], part.columns[index, rank]) == (entry["row"], entry["column"])
