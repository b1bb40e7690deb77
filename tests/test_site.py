"""The site of results: every link leads somewhere, names stay names, numbers are the results'."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
import small_site
from pages import Page
from PIL import Image

from zfcore import layers
from zfcore.cli import main
from zfcore.explain import Attribution, Synthesis
from zfcore.network import Network
from zfcore.report.site import find, write_site
from zfcore.report.site.graph import graph
from zfcore.report.site.sources import without_folders
from zfcore.report.site.units import saved_projections
from zfcore.report.site.wiring import alike, wiring
from zfcore.study import results
from zfcore.study.atlas import Atlas
from zfcore.study.scan import scan


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[str, Page]:
    return {str(path.relative_to(site)): Page(path.read_text("utf-8")) for path in sorted(site.rglob("*.html"))}


def test_every_link_and_picture_leads_somewhere(site: Path, pages: dict[str, Page]) -> None:
    count = 0
    for name, page in pages.items():
        targets = [target for tag, attribute in (("a", "href"), ("img", "src"), ("link", "href"), ("script", "src"),
                                                 ("image", "href")) for target in page.every(tag, attribute)]
        styles = " ".join(page.every("span", "style")) + (site / name).read_text("utf-8")
        targets += re.findall(r"url\('([^')]+)'\)", styles)
        for target in targets:
            assert not re.match(r"[a-z]+:|/", target), (name, target)
            if not target.startswith("#"):
                assert ((site / name).parent / unquote(target)).resolve().is_file(), (name, target)
                count += 1
    assert count > 300
    sheets = re.findall(r'url\("([^"]+)"\)', (site / "assets/site.css").read_text("utf-8"))
    assert len(sheets) == len(small_site.LAYERS)
    assert all((site / "assets" / target).resolve().is_file() for target in sheets)


def test_nothing_comes_from_the_network(site: Path) -> None:
    for path in site.rglob("*"):
        if path.suffix in (".html", ".css", ".js"):
            text = path.read_text("utf-8")
            assert "http:" not in text and "https:" not in text and "@import" not in text, path


def test_units_have_addresses_that_stay(site: Path) -> None:
    assert (site / "layer/conv1/3.html").is_file() and (site / "layer/fc/4.html").is_file()
    assert (site / "layer/block_a/0.html").is_file()
    assert (site / "layer/Block_a-2/0.html").is_file()  # told apart where file systems ignore case
    assert not (site / "layer/block_a/2.html").exists()  # dead


def test_names_cannot_become_markup(site: Path, pages: dict[str, Page]) -> None:
    for name, page in pages.items():
        tags = [tag for tag, _ in page.tags]
        assert tags.count("script") == 1 and "b" not in tags[:6], name
        assert not page.every("img", "onerror") and "x" not in page.every("img", "src")
        assert {"u", "blink"}.isdisjoint(tags), name
    assert "<b>net" not in (site / "index.html").read_text("utf-8").replace("&lt;", "")
    unit = pages["layer/conv1/0.html"]
    assert any(text in unit.text for text in ("<script>alert(1)</script>", "two\\nlines\\udcff", "{{ 7 * 7 }}"))
    assert "</script" not in (site / "assets/units.js").read_text("utf-8")


def test_a_units_page_says_what_the_atlas_says(saved: list[Path], pages: dict[str, Page]) -> None:
    atlas = Atlas.load(saved[0])
    page = pages["layer/block_a/1.html"]
    part = atlas["block/a"]
    for rank in range(4):
        assert f"{part.rows[1, rank]}, {part.columns[1, rank]}" in page.text
        assert f"{part.values[1, rank]:.3g}"[:3] in page.text
    assert "It reads" in page.text and "conv1:" in page.text and "Sanity check" in page.text


def test_search_index(site: Path) -> None:
    text = (site / "assets/units.js").read_text("ascii")
    index = json.loads(text.removeprefix("window.zfcore = ").rstrip().rstrip(";"))
    assert [row[0] for row in index["layers"]] == small_site.LAYERS
    assert index["layers"][1][2:] == [5, [2]]
    names = {name.replace("\n", "\\n").replace("\udcff", "\\udcff") for name in small_site.EVIL}
    assert index["classes"] and set(index["classes"]) <= names


def test_every_result_has_its_page_and_its_record(pages: dict[str, Page]) -> None:
    for folder in ("occlusion/hidden", "invariance/moved", "correspondence/parts", "architecture/first",
                   "evolution/grown", "explanation/why", "run/trained", "embedding/space_fc", "something/else"):
        assert f"{folder}/index.html" in pages
        assert f"{folder}/index.html" in pages["index.html"].every("a", "href")
    about = pages["about.html"].text
    for text in ("Atlas", "Occlusion: hidden", "Correspondence: parts", "Evolution: grown", "network, SHA-256"):
        assert text in about


def test_arrays_are_a_click_away(site: Path, saved: list[Path]) -> None:
    part = Atlas.load(saved[0])["conv1"]
    assert np.array_equal(np.load(site / "data/conv1-values.npy"), part.values)
    assert np.array_equal(np.load(site / "data/conv1-patches.npy"), part.patches)
    assert (site / "data/units.csv").read_text("utf-8").startswith("layer,map,")


def test_without_a_network_only_patches_are_shown(saved: list[Path], tmp_path: Path) -> None:
    summary = write_site(tmp_path / "site", [saved[0]])
    page = Page((tmp_path / "site/layer/conv1/0.html").read_text("utf-8"))
    assert "Sanity check" not in page.text and "It reads" not in page.text
    assert not list((tmp_path / "site").rglob("*projections*")) and summary["pages"] > 15


def test_two_networks_have_folders_of_their_own(saved: list[Path], tmp_path: Path) -> None:
    other = small_site.network("other", 9)
    scan(other, small_site.data_set(), ["conv1"], 2, progress=False).save(tmp_path / "second")
    write_site(tmp_path / "site", [saved[0], tmp_path / "second"], networks=[other], sanity=False)
    page = Page((tmp_path / "site/network-2/layer/conv1/0.html").read_text("utf-8"))
    assert "Overview" in page.text
    for name in ("network-2/layer/conv1/0.html", "network-2/index.html"):
        path = tmp_path / "site" / name
        page = Page(path.read_text("utf-8"))
        for target in page.every("a", "href") + page.every("img", "src"):
            assert target.startswith("#") or (path.parent / target).resolve().is_file(), target


def test_projections_that_were_kept_are_not_computed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = small_site.network()
    atlas = scan(net, small_site.data_set(), ["conv1"], 2, progress=False)
    (tmp_path / "out").mkdir()
    atlas.save(tmp_path / "out/atlas")
    pixels = atlas.project(rule="guided")
    results.save(tmp_path / "out/projections", "projections", {"layers": ["conv1"], "rule": "guided", "channels": "BGR",
                                                               "hashes": atlas.hashes}, {"layer0": pixels["conv1"]})
    monkeypatch.setattr(Atlas, "projections", None)
    write_site(tmp_path / "site", [tmp_path / "out"])
    assert "guided" in Page((tmp_path / "site/about.html").read_text("utf-8")).text
    assert np.array_equal(np.load(tmp_path / "site/data/conv1-projections.npy"), pixels["conv1"])


def test_bad_input_leaves_nothing_behind(saved: list[Path], tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        write_site(tmp_path / "site", [tmp_path / "nowhere"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(results.ResultError, match="empty"):
        write_site(tmp_path / "site", [tmp_path / "empty"])
    with pytest.raises(ValueError, match="its hash"):
        write_site(tmp_path / "site", [saved[0]], networks=[small_site.network(seed=77)])
    with pytest.raises(ValueError, match="manifest"):
        write_site(tmp_path / "site", [saved[0]], images=small_site.IMAGES[:3])
    with pytest.raises(ValueError, match="rule"):
        write_site(tmp_path / "site", [saved[0]], rule="none")
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "manifest.json").write_text("{")
    with pytest.raises(results.ResultError, match="damaged"):
        write_site(tmp_path / "site", [damaged])
    assert not (tmp_path / "site").exists()
    write_site(tmp_path / "site", [saved[1]])
    with pytest.raises(FileExistsError, match="force"):
        write_site(tmp_path / "site", [saved[1]])
    write_site(tmp_path / "site", [saved[1]], force=True)


def test_the_command(saved: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["report", str(saved[1]), str(saved[2]), "--out", str(tmp_path / "site"), "--json"])
    assert end.value.code == 0
    summary = json.loads(capsys.readouterr().out)
    assert [each["kind"] for each in summary["results"]] == ["occlusion", "invariance"]
    assert json.loads((tmp_path / "site/summary.json").read_text())["pages"] == summary["pages"]
    with pytest.raises(SystemExit) as end:
        main(["report", str(tmp_path / "no"), "--out", str(tmp_path / "other")])
    assert end.value.code == 2 and "no folder" in capsys.readouterr().err


def test_results_in_a_commands_folder_are_found_once(saved: list[Path]) -> None:
    found = find([saved[6], saved[6] / "saliency", saved[1]])
    assert [source.kind for source in found] == ["synthesis", "attribution", "synthesis", "synthesis", "attribution",
                                                 "occlusion"]
    assert len({source.name for source in found}) == 6


@pytest.mark.parametrize(("text", "shown"), [("/Users/me/photo.png", "photo.png"), ("a/b.png", "a/b.png"),
                                             ("C:\\me\\photo.png", "photo.png"), ("x\ny", "x\\ny")])
def test_folders_of_somebodys_disk_stay_out(text: str, shown: str) -> None:
    assert without_folders(text) == shown


def test_wiring_equals_loops_over_weights() -> None:
    net = small_site.network()
    found = wiring(net, "Block_a")
    assert found is not None and found.names == [("block/a", 0), ("block/a", 1), ("block/a", 2), ("block/a", 3),
                                                 ("block/a", 4), ("block/b", 0), ("block/b", 1), ("block/b", 2)]
    weight = net.parameters()["Block_a.weight"].astype(np.float64)  # (4, 3, 3, 4): two groups of two filters
    for unit in range(4):
        for channel in range(8):
            group = unit // 2
            expected = weight[unit, :, :, channel - 4 * group] if channel // 4 == group else np.zeros((3, 3))
            assert np.isclose(found.strength[unit, channel], np.sqrt((expected**2).sum()))
            assert np.isclose(found.direction[unit, channel], expected.sum())
    linear = wiring(net, "fc")
    assert linear is not None and linear.names[3] == ("Block_a", 3)
    weight = net.parameters()["fc.weight"].astype(np.float64)
    assert np.isclose(linear.strength[1, 2], np.sqrt((weight[1, 2::4] ** 2).sum()))
    assert wiring(net, "conv1") is None and wiring(net, "pool1") is None and wiring(net, "nobody") is None
    cosines: Any = alike(net, "Block_a")
    assert np.allclose(np.diag(cosines), 1) and cosines[0, 3] == 0  # filters of two groups see other maps


def test_the_graph_has_a_box_a_layer_and_a_wire_an_input() -> None:
    net = small_site.network()
    text = graph(net.layers(), {"conv1": "layer/conv1/index.html"}, net.input_shape)
    page = Page(text)
    assert len(page.every("rect", "x")) == 10 and len(page.every("path", "d")) == 10
    assert page.every("a", "href") == ["layer/conv1/index.html"]
    long = Network("long", (8, 8, 1))
    for number in range(30):
        long.add(f"a-very-long-name-of-a-layer-{number}", layers.ReLU())
    assert len(Page(graph(long.layers(), {}, long.input_shape)).every("rect", "x")) == 31


def test_methods_of_one_name_have_pictures_of_their_own(site: Path, saved: list[Path]) -> None:
    folder = site / "explanation" / "why"
    for layer in ("conv1", "fc"):
        assert np.array_equal(np.load(folder / f"inversion-{layer}.npy"),
                              Synthesis.load(saved[6] / f"inversion-{layer}").images)


def test_colours_are_turned_from_the_networks_order(site: Path, saved: list[Path]) -> None:
    """The network takes BGR; what is strongest in its first channel is blue on the page."""
    values = Attribution.load(saved[6] / "gradient").values[0]
    (path,) = (site / "explanation" / "why").glob("gradient-0.*")
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB"), np.float64)
    blue = np.repeat(np.repeat(values[..., 0], 11, axis=0), 11, axis=1)[:pixels.shape[0], :pixels.shape[1]]
    fits = [np.corrcoef(blue.ravel(), pixels[:blue.shape[0], :blue.shape[1], channel].ravel())[0, 1]
            for channel in range(3)]
    assert np.argmax(fits) == 2 and fits[2] > 0.5


def test_a_runs_page_has_its_log(site: Path, pages: dict[str, Page], saved: list[Path]) -> None:
    page = pages["run/trained/index.html"]
    epochs = [json.loads(line) for line in (saved[7] / "log.jsonl").read_text().splitlines()]
    last = [each for each in epochs if each["kind"] == "epoch"][-1]
    assert f"{last['validation_loss']:.4g}" in page.text and f"{last['loss']:.4g}" in page.text
    assert len(page.every("svg", "aria-label")) == 3 and page.every("img", "src")
    assert "as it began" in page.text and "after epoch 2" in page.text and "after epoch 1" not in page.text
    assert (site / "run/trained/log.jsonl").read_bytes() == (saved[7] / "log.jsonl").read_bytes()


def test_anything_else_shows_its_numbers_and_no_folders(pages: dict[str, Page]) -> None:
    page = pages["something/else/index.html"]
    assert "<b>why</b>" in page.text and "name.png" in page.text and "secret" not in page.text
    assert "secret" not in pages["about.html"].text


def test_projections_of_another_signal_are_not_taken_for_activations(tmp_path: Path) -> None:
    net = small_site.network()
    atlas = scan(net, small_site.data_set(), ["conv1"], 2, progress=False)
    atlas.save(tmp_path / "atlas")
    results.save(tmp_path / "projections", "projections", {
        "layers": ["conv1"], "rule": "deconvnet", "seed": "one", "hashes": atlas.hashes},
        {"layer0": atlas.project(seed="one")["conv1"]})
    assert saved_projections(tmp_path, atlas, None) == ({}, None)
