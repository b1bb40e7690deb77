"""The page: it parses, every link leads somewhere, names cannot become markup, numbers are right."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from pages import Page
from PIL import Image

from zfcore import layers, report
from zfcore.data import Arrays
from zfcore.network import Network
from zfcore.preprocessing import Preprocessing
from zfcore.report.describe import number_text
from zfcore.report.sanity import Sanity, likeness, random_twin
from zfcore.study.atlas import Atlas
from zfcore.study.results import load
from zfcore.study.scan import scan
from zfcore.units import Unit

EVIL = ["<script>alert(1)</script>", "two\nlines\udcff", "\"><img src=x onerror=alert(2)>", "{{ 7 * 7 }}", "-dash&amp;"]


def network(name: str = "<b>net</b>") -> Network:
    net = Network(name, (16, 14, 1), preprocessing=Preprocessing("L", mean=100.0, scale=0.02))
    net.add("conv1", layers.Convolution(4, 3, activation="relu"))
    net.add("block/pool.1", layers.MaxPool(2))
    net.add("block/conv.2", layers.Convolution(6, 3, activation="relu"))
    net.initialize(3, scheme="he")
    net.nodes["block/conv.2"].layer.parameters["weight"][4] = 0
    return net


NET = network()


IMAGES = np.random.default_rng(0).integers(0, 256, (10, 16, 14), dtype=np.uint8)


def atlas(**options: Any) -> Atlas:
    data = Arrays(IMAGES, np.arange(10) % 5, [EVIL[index % 5] + str(index) for index in range(10)],
                  class_names=EVIL)
    return scan(NET, data, **{"top": 9, "progress": False, **options})


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    assert report.write(folder, atlas(), accuracy=0.98765) == folder / "index.html"
    return folder


@pytest.fixture(scope="module")
def page(written: Path) -> Page:
    return Page((written / "index.html").read_text("utf-8"))


def test_every_link_leads_somewhere(written: Path, page: Page) -> None:
    ids = page.every("article", "id") + page.every("section", "id") + page.every("span", "id")
    assert len(ids) == len(set(ids))
    targets = page.every("a", "href") + page.every("img", "src")
    assert len(targets) > 20
    for target in targets:
        if target.startswith("#"):
            assert unquote(target[1:]) in ids
        else:
            assert not re.match(r"[a-z]+:|/", target) and (written / unquote(target)).is_file(), target


def test_nothing_comes_from_the_network(written: Path, page: Page) -> None:
    text = (written / "index.html").read_text("utf-8")
    assert "http:" not in text and "https:" not in text and "@import" not in text and "url(" not in text
    assert not page.every("script", "src") and not page.every("link", "href")


def test_every_map_has_a_card_or_is_named_dead(page: Page) -> None:
    cards, dead = page.every("article", "id"), page.every("span", "id")
    assert sorted(cards + dead) == sorted([f"conv1:{m}" for m in range(4)] + [f"block/conv.2:{m}" for m in range(6)])
    assert "block/conv.2:4" in dead


def test_names_cannot_become_markup(written: Path, page: Page) -> None:
    assert [name for name, _ in page.tags].count("script") == 1
    assert not page.every("img", "onerror") and "x" not in page.every("img", "src")
    for shown in ("<script>alert(1)</script>", "two\\nlines\\udcff", "{{ 7 * 7 }}", "-dash&amp;", "<b>net</b>"):
        assert shown in page.text
    assert "<b>net" not in (written / "index.html").read_text("utf-8")


def test_pictures_have_the_size_that_the_page_says(written: Path, page: Page) -> None:
    for tag, attributes in page.tags:
        if tag == "img":
            with Image.open(written / str(attributes["src"])) as picture:
                assert picture.size == (int(str(attributes["width"])), int(str(attributes["height"])))
            assert attributes["alt"]


def test_the_page_says_what_it_is(page: Page) -> None:
    text = " ".join(page.text.split())
    for words in ("98.77 %", "What it does not say", "Mahendran", "strongest only", "random weights, likeness",
                  "median over maps", "SHA-256", "each unit sees 3 x 3 pixels", "4 filters of 3 x 3", "×2"):
        assert words in text, words
    assert page.every("meta", "name") == ["viewport", "generator"]


def test_arrays_lie_beside_the_page(written: Path) -> None:
    again = Atlas.load(written / "atlas", NET)
    description, arrays = load(written / "projections", "projections")
    assert description["layers"] == ["conv1", "block/conv.2"] and description["rule"] == "deconvnet"
    for number, found in enumerate(again.project().values()):
        assert np.array_equal(arrays[f"layer{number}"], found)


def test_projections_beyond_the_limit_are_not_kept(tmp_path: Path) -> None:
    report.write(tmp_path, atlas(), projection_limit=1000)
    assert (tmp_path / "atlas").is_dir() and not (tmp_path / "projections").exists()
    assert "projections were not kept" in (tmp_path / "index.html").read_text("utf-8")


def test_other_rules_and_few_images(tmp_path: Path) -> None:
    images = Arrays(np.random.default_rng(0).integers(0, 256, (2, 16, 14), dtype=np.uint8))
    for rule in ("gradient", "guided"):
        report.write(tmp_path / rule, scan(NET, images, top=4, progress=False), rule=rule, save_arrays=False)
        page = Page((tmp_path / rule / "index.html").read_text("utf-8"))
        assert rule in page.text and not (tmp_path / rule / "atlas").exists()
    assert page.text.count("image-00000") >= 4


def test_an_earlier_page_is_not_overwritten(written: Path, tmp_path: Path) -> None:
    with pytest.raises(FileExistsError, match="--force"):
        report.write(written, atlas())
    report.write(tmp_path, atlas())
    report.write(tmp_path, atlas(), force=True)


def test_it_needs_the_network_that_was_scanned(written: Path, tmp_path: Path) -> None:
    loaded = Atlas.load(written / "atlas")
    with pytest.raises(ValueError, match="network"):
        report.write(tmp_path / "a", loaded)
    with pytest.raises(ValueError, match="hash"):
        report.write(tmp_path / "a", loaded, network=network("another"))
    with pytest.raises(ValueError, match="rule"):
        report.write(tmp_path / "a", atlas(), rule="magic")
    assert not (tmp_path / "a").exists()
    report.write(tmp_path / "a", loaded, network=NET)


def test_skipped_pictures_are_listed(tmp_path: Path) -> None:
    found = atlas()
    found.skipped = {3: "bad<i>.png: broken"}
    report.write(tmp_path, found, save_arrays=False)
    text = (tmp_path / "index.html").read_text("utf-8")
    assert "bad&lt;i&gt;.png: broken" in text and "Images that were left out: 1" in text


def test_chosen_maps_and_a_signal_of_one(tmp_path: Path) -> None:
    found = atlas()
    with pytest.raises(ValueError, match="0 to 3 in layer conv1"):
        report.write(tmp_path, found, maps=[5])
    with pytest.raises(ValueError, match="seed"):
        report.write(tmp_path, found, seed="two")
    report.write(tmp_path, found, maps=[3, 1], seed="one", sanity=False)
    page = Page((tmp_path / "index.html").read_text("utf-8"))
    assert page.every("article", "id") == ["conv1:1", "conv1:3", "block/conv.2:1", "block/conv.2:3"]
    assert "sanity check" not in page.text.replace("every card has a sanity check", "")
    assert not (tmp_path / "sanity.csv").exists() and "1 at every unit" in page.text
    description, arrays = load(tmp_path / "projections", "projections")
    assert description["maps"] == {"conv1": [1, 3], "block/conv.2": [1, 3]} and description["seed"] == "one"
    for number, expected in enumerate(found.project(seed="one", maps=[1, 3]).values()):
        assert np.array_equal(arrays[f"layer{number}"], expected)


def test_the_sanity_check_of_a_map(written: Path) -> None:
    found = atlas()
    rows = list(csv.DictReader(io.StringIO((written / "sanity.csv").read_text())))
    alive = [(name, str(index)) for name, part in found.layers.items() for index in np.flatnonzero(~part.dead)]
    assert [(row["layer"], row["map"]) for row in rows] == alive and ("block/conv.2", "4") not in alive
    layer, cone = "block/conv.2", NET.cone("block/conv.2")
    sanity = Sanity(found, random_twin(NET), layer, "deconvnet", 80)
    own = found.project(layers=[layer], maps=[2])[layer]
    check = sanity.checks(np.array([2]), own)[0]
    assert check.other not in (None, 2, 4) and check.other == sanity.other(2)
    row = next(row for row in rows if (row["layer"], row["map"]) == (layer, "2"))
    assert int(row["other"]) == check.other
    part, expected = found[layer], []
    for network, index in ((random_twin(NET), 2), (NET, check.other)):
        each = []
        for rank in range(3):
            image = IMAGES[part.images[2, rank]][None, ..., None]
            unit = Unit(layer, index, int(part.rows[2, rank]), int(part.columns[2, rank]))
            whole = network.project(NET.preprocessing.apply(image), unit, "deconvnet", "one")  # type: ignore[union-attr]
            assert whole.pixels[0].shape == (*cone.size, 1)
            if whole.pixels[0].any() and own[0, rank].any():
                each.append(np.corrcoef(np.abs(whole.pixels[0]).ravel(), np.abs(own[0, rank]).ravel())[0, 1])
        expected.append(np.mean(each))
    assert check.likeness == pytest.approx(expected, abs=1e-5)
    assert float(row["likeness_to_random_weights"]) == pytest.approx(expected[0], abs=1e-3)
    # Rows: patches, the map, random weights, the other map; columns: entries.
    assert check.picture.shape[0] // check.picture.shape[1] == 1 and check.picture.shape[0] > check.picture.shape[1]
    assert likeness(own[0], own[0]) == pytest.approx(1) and likeness(own[0], 0 * own[0]) is None


def test_the_strongest_of_every_map(written: Path) -> None:
    with Image.open(written / "pictures" / "0-conv1-strongest.png") as sheet, \
            Image.open(written / "pictures" / "0-conv1" / "0-projections.png") as card:
        assert np.array_equal(np.asarray(sheet)[:20, :20], np.asarray(card)[:20, :20])


def test_numbers_for_people() -> None:
    assert [number_text(value) for value in (0.01234, 1.5, 226.95, 12345.6)] == ["0.0123", "1.50", "226.9", "12,346"]
