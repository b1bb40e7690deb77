"""The page: it parses, every link leads somewhere, names cannot become markup, numbers are right."""

from __future__ import annotations

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
from zfcore.report.page import number_text
from zfcore.study.atlas import Atlas
from zfcore.study.results import load
from zfcore.study.scan import scan

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


def atlas(**options: Any) -> Atlas:
    images = np.random.default_rng(0).integers(0, 256, (10, 16, 14), dtype=np.uint8)
    data = Arrays(images, np.arange(10) % 5, [EVIL[index % 5] + str(index) for index in range(10)],
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
    for words in ("98.77 %", "What it does not say", "Mahendran", "Sanity check of conv1", "random weights",
                  "SHA-256", "each unit sees 3 x 3 pixels", "4 filters of 3 x 3", "×2"):
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


def test_numbers_for_people() -> None:
    assert [number_text(value) for value in (0.01234, 1.5, 226.95, 12345.6)] == ["0.0123", "1.50", "226.9", "12,346"]
