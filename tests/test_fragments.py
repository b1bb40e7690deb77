"""What results show in a notebook: self-contained, small, escaped; and the plots of the site."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pages import Page
from PIL import Image

from zfcore.explain import Attribution, Synthesis
from zfcore.pictures.fragments import fragment
from zfcore.pictures.svg import line_plot
from zfcore.study.architecture import Architecture
from zfcore.study.atlas import Atlas
from zfcore.study.correspondence import Correspondence
from zfcore.study.evolution import Evolution
from zfcore.study.invariance import Invariance
from zfcore.study.occlusion import Occlusion

KINDS: list[Any] = [Atlas, Occlusion, Invariance, Correspondence, Architecture, Evolution]


@pytest.mark.parametrize("place", range(len(KINDS)))
def test_results_show_themselves(saved: list[Path], place: int) -> None:
    text = KINDS[place].load(saved[place])._repr_html_()
    page = Page(text)
    (source,) = page.every("img", "src")
    content = base64.b64decode(source.removeprefix("data:image/webp;base64,"))
    with Image.open(io.BytesIO(content)) as picture:
        assert picture.size == (int(page.every("img", "width")[0]), int(page.every("img", "height")[0]))
        assert max(picture.size) <= 1100
    assert len(text) < 300_000 and "http" not in text.replace(source, "")
    assert not {"script", "u", "i", "b"} & {tag for tag, _ in page.tags}


def test_explanations_show_themselves(saved: list[Path]) -> None:
    saliency, ascent = Attribution.load(saved[6] / "saliency"), Synthesis.load(saved[6] / "ascent")
    assert "saliency, 2 rows" in Page(saliency._repr_html_()).text
    assert "ascent, 1 images" in Page(ascent._repr_html_()).text


def test_fragments_escape_and_cut() -> None:
    page = Page(fragment("<b>x</b>", {"<i>": "<script>", "long": "y" * 300}, None, "a & b"))
    assert [tag for tag, _ in page.tags if tag not in ("div", "span")] == []
    assert "<script>" in page.text and "y" * 77 + "..." in page.text and "a & b" in page.text


def test_line_plot_places_every_point() -> None:
    x, curves = np.array([0.0, 5.0, 10.0]), np.array([[0.0, 1.0, 2.0], [2.0, np.nan, 1.0]])
    text = line_plot(x, curves, ["<a>", "b"], title="t & u", x_label="x <", y_range=(0, 2))
    page = Page(text)
    paths = [path for path in page.every("path", "d") if "L" in path or path.count("M") > 1]
    numbers = [tuple(map(float, pair)) for pair in re.findall(r"[ML](-?[\d.]+) (-?[\d.]+)", paths[0])]
    assert numbers[0][0] < numbers[1][0] < numbers[2][0] and numbers[0][1] > numbers[1][1] > numbers[2][1]
    assert np.isclose(numbers[1][0], (numbers[0][0] + numbers[2][0]) / 2, atol=0.06)
    assert paths[1].count("M") == 2 and text.count("<circle") == 2  # two points that stand alone
    assert "<a>" in page.text and page.every("svg", "aria-label") == ["t & u"]
    with pytest.raises(ValueError, match="curves"):
        line_plot(x, curves[:, :2], ["a", "b"], title="")
    with pytest.raises(ValueError, match="names"):
        line_plot(x, curves, ["a"], title="")
    assert "<path" in line_plot(np.array([1.0]), np.array([[np.nan]]), ["n"], title="nothing")
