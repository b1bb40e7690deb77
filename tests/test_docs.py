"""The documentation: links lead somewhere, every command that it shows runs, the notebook runs."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import docs_world
import pytest

from zfcore.cli import main

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
# Commands that need what is not at hand; every one must still be in the pages.
NOT_RUN = {
    "resnet18.safetensors": "torchvision's weights; tests/test_torchvision.py has the same with random ones",
    "--architecture torchvision": "the same",
    "squeezenet": "a pretrained network; tests/test_explain_real.py runs such where the file is at hand",
    "schedule.kind=by-hand": "goes on with a run whose rate has not fallen yet, which tiny data's does at once",
    "work/": "made by docs/pictures/prepare.py, which trains two networks",
    "voc:": "PASCAL VOC; tests/test_transfer.py has a small one",
    "--method cam": "a network with global average pooling; tests/test_explain_command.py has one",
    "zfcore ablate": "trains 27 networks; tests/test_ablation.py runs it with small ones",
    "zfcore demo": "tests/test_demo.py",
    "zfcore info zfnet": "tests/test_cli.py",
}


def commands(text: str) -> list[str]:
    """The `zfcore ...` lines of code blocks, continued lines joined, comments left out."""
    text = re.sub(r"\\\n\s*", "", text)
    found = re.findall(r"^(?: {4}|(?<=\n))?(zfcore [a-z].*)$", text, re.MULTILINE)
    blocks = re.findall(r"```[^\n]*\n(.*?)```", text, re.DOTALL)
    code = {line.strip() for block in blocks for line in block.splitlines()}
    code |= {line.strip() for line in text.splitlines() if line.startswith("    ")}
    return [re.sub(r"\s+#.*$", "", line).strip() for line in found if line.strip() in code]


def test_commands_are_found() -> None:
    text = "zfcore is a thing\n\n```\nzfcore info a   # why\n```\n\n    zfcore atlas b \\\n        --out c\n"
    assert commands(text) == ["zfcore info a", "zfcore atlas b --out c"]


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?:", target):
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        assert path.exists(), target
        if anchor and path.suffix == ".md":
            headings = re.findall(r"^#+ (.*)$", path.read_text("utf-8"), re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in slugs, target


def test_tables_of_speed_are_what_was_measured() -> None:
    if not (ROOT / "benchmarks" / "results").is_dir():
        pytest.skip("no results of benchmarks, as in a source distribution")
    checked = subprocess.run([sys.executable, "-m", "benchmarks.tables", "--check"], cwd=ROOT, capture_output=True,
                             text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    assert (ROOT / "docs" / "performance.md").read_text("utf-8").count("<!-- end -->") >= 4


def test_every_page_is_in_the_site() -> None:
    index = (ROOT / "docs" / "index.md").read_text("utf-8")
    for page in PAGES[1:]:
        name = str(page.relative_to(ROOT / "docs").with_suffix(""))
        elsewhere = name in ("index", "pictures/photographs/README") or name.startswith("study/")
        assert elsewhere or f"\n{name}\n" in index, name


@pytest.fixture(scope="module")
def few_digits() -> object:
    """scikit-learn's digits, 120 of them."""
    import sklearn.datasets

    whole = sklearn.datasets.load_digits()
    whole.images, whole.target = whole.images[:120], whole.target[:120]
    return whole


WITH_COMMANDS = [page for page in PAGES if commands(page.read_text("utf-8"))]


@pytest.mark.parametrize("page", WITH_COMMANDS, ids=[str(page.relative_to(ROOT)) for page in WITH_COMMANDS])
def test_every_command_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, few_digits: object,
                            capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sklearn.datasets.load_digits", lambda: few_digits)
    monkeypatch.chdir(tmp_path)
    docs_world.build(tmp_path)
    made: set[str] = set()
    for line in commands(page.read_text("utf-8")):
        if any(part in line for part in NOT_RUN):
            continue
        words = shlex.split(line)[1:]
        if "--out" in words and (out := words[words.index("--out") + 1]) in made and words[0] != "train":
            words.append("--force")  # a page may show the same thing twice
        elif "--out" in words:
            made.add(out)
        with pytest.raises(SystemExit) as end:
            main(words)
        assert end.value.code == 0, (line, capsys.readouterr().err[-600:])


def test_what_is_not_run_is_still_there() -> None:
    every = "\n".join(line for page in PAGES for line in commands(page.read_text("utf-8")))
    assert [part for part in NOT_RUN if part not in every] in ([], ["zfcore demo"])


def test_the_tutorial_runs(tmp_path: Path) -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    notebook = nbformat.read(ROOT / "docs" / "tutorial.ipynb", 4)
    assert all(not cell.get("outputs") for cell in notebook.cells)
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert sum("text/html" in output.get("data", {}) for output in shown) >= 7
    accuracy = re.search(r"held-out digits: (0\.\d+)", "".join(output.get("text", "") for output in shown))
    assert accuracy is not None and float(accuracy[1]) > 0.9
