"""The benchmarks of `make gpu PART=bench` without a device: every row at a small size on the emulated kernels.

PyTorch's tensors on the CPU stand for the device's, and a pretended clock for its events: nothing is timed here.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
import stand_in

from benchmarks.gpu import groups, page, plan, run, targets
from benchmarks.gpu.rows import OURS, Row, merged, read, written
from zfcore import Network, backends
from zfcore.layers import Convolution, Flatten, Linear, MaxPool, ResponseNorm


def small(name: str, grouped: bool = False) -> Network:
    """A network with all that the groups look for."""
    net = Network(name, (19, 19, 3), scheme="he")
    net.add("conv1", Convolution(8, 3, stride=2, activation="relu"))
    net.add("pool1", MaxPool(3, 2, ceil_mode=True))
    net.add("norm1", ResponseNorm())
    net.add("conv2", Convolution(6, 3, padding=1, groups=2 if grouped else 1, activation="relu"))
    net.add("pool2", MaxPool(2, 2))
    net.add("flatten", Flatten())
    net.add("fc3", Linear(7, activation="relu"))
    net.add("fc4", Linear(5))
    return net


SMALL = plan.Plan(
    networks={"ZFNet": lambda: small("a"), "AlexNet": lambda: small("b", grouped=True), "VGG-16": lambda: small("c")},
    batch=3, batches={"VGG-16": 2}, repeats=3, few=2, seconds=60, rotate=1.0, layer="conv2", maps=3, top=2, pictures=4,
    sample=2, product=16, copy=4096)


def row(work: str, family: str = "", left_out: dict[str, str] | None = None, **seconds: float) -> Row:
    """A row with these medians; `torch_compile` stands for torch.compile."""
    names = {"ours": OURS, "captured": "zfcore, captured", "cudnn": "cuDNN", "torch_compile": "torch.compile"}
    samples = {names.get(name, name): [value * 0.5, value, value * 3] for name, value in seconds.items()}
    return Row("group", work, family, samples=samples, left_out=left_out or {}, ceiling=0.9)


# ------------------------------------------------------------------------------------ without PyTorch


def test_arithmetic_of_a_row() -> None:
    one = row("a", ours=2.0, captured=1.0, cudnn=3.0, torch_compile=2.5)
    assert (one.ours, one.peer) == ("zfcore, captured", "torch.compile")
    assert (one.ratio, one.eager, one.against("torch.compile"), one.against("Captum")) == (2.5, 3.0, 2.5, None)
    assert one.share == pytest.approx(0.9)
    assert "2.50x torch.compile (by zfcore, captured)" in one.text()
    alone, nothing = row("b", ours=1.0), row("c", left_out={OURS: "it broke"}, cudnn=1.0)
    assert alone.ratio is None and "no peer" in alone.text()
    assert nothing.ratio is None and nothing.share is None
    assert "no result of ours" in nothing.text() and f"left out: {OURS}: it broke" in nothing.text()
    step = Row("g", "step", samples={OURS: [0.01]}, images=128)
    assert "12800 images/s (the paper's GTX 580: 88)" in step.text()
    assert read(written([one, nothing])) == [one, nothing]


def test_verdicts() -> None:
    rows = [row("a", "convolution", ours=1.0, cudnn=4.0), row("b", "convolution", ours=1.0, cudnn=0.5),
            row("c", "chain down", ours=1.0, torch=2.0), row("d", "step ZFNet", ours=1.0, torch=1.4),
            row("e", "strict", ours=1.0, cudnn=1.5), row("f", "strict", left_out={OURS: "wrong"}, cudnn=1.5),
            row("g", "memory", ours=1.0, torch=3.5, torch_compile=0.9),
            row("h", "projections", ours=1.0, Captum=30.0, **{"torch hooks, batched": 5.0})]
    found = {each.target.name: each for each in targets.verdicts(rows)}
    words = {name: each.word for name, each in found.items()}
    assert words["convolutions, 16 bits and tf32: geometric mean"] == "met"  # sqrt(4 * 0.5)
    assert words["convolutions, 16 bits and tf32: each"] == "missed"
    assert words["unpool, rectify, filter"] == "met"
    assert words["ZFNet training step, 16 bits"] == "missed"
    assert words["AlexNet training step, 16 bits"] == "not measured"
    assert words["convolutions, strict float32: geometric mean"] == "missed"  # f has no value
    assert words["memory-bound kernels: share of the measured copy bandwidth"] == "met"
    assert words["memory-bound kernels: to torch.compile"] == "missed"
    assert words["conv5's projections: to Captum"] == "met"  # though the batched hooks are nearer than 20
    assert found["convolutions, 16 bits and tf32: each"].lowest == (0.5, "b")
    text = targets.summary(rows)
    assert "mean 1.41, lowest 0.50 (b), 2 rows" in text and "1 without a value" in text
    assert text.count("\n") + 1 == len(targets.TARGETS)


def test_every_target_has_a_family_that_some_group_measures() -> None:
    source = "".join(file.read_text("utf-8") for file in Path(groups.__file__).parent.glob("*.py")
                     if file.stem != "targets")
    for target in targets.TARGETS:
        assert f'"{target.family.split()[0]}' in source, target


def test_choice_of_groups() -> None:
    names = [group.name for group in groups.chosen(None)]
    assert names == list(groups.GROUPS)
    assert [group.name for group in groups.chosen("linears, memory")] == ["memory", "linears"]
    for wrong in ("", "memory,pools", ","):
        with pytest.raises(ValueError, match="groups are .*allowed: some of convolutions, memory"):
            groups.chosen(wrong)


class Stop(Exception):
    """Time is up."""


class Board:
    """A bench of which a run asks only this."""

    def __init__(self, file: run.File) -> None:
        self.file, self.rows, self.group = file, list[Row](), ""

    def put(self, one: Row) -> None:
        self.rows.append(one)
        self.file.keep(self.rows)


def pretended(name: str, work: Any) -> Any:
    class Pretended:
        about = "..."

        def __call__(self, bench: Board) -> None:
            work(bench)

    one = Pretended()
    one.name = name  # type: ignore[attr-defined]
    return one


def test_rows_are_in_the_file_before_a_later_group_breaks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "rows.json"
    file = run.File(path)
    seen: list[list[str]] = []

    def works() -> list[str]:
        return [each["work"] for each in json.loads(path.read_text())["rows"]]

    def breaks(bench: Board) -> None:
        seen.append(works())
        bench.put(row("b", ours=1.0))
        raise RuntimeError("out of memory")

    def stops(bench: Board) -> None:
        seen.append(works())
        raise Stop("9 s have passed")

    code = run.measure(Board(file), [pretended("one", lambda bench: bench.put(row("a", ours=1.0))),
                                     pretended("two", breaks), pretended("three", stops),
                                     pretended("four", lambda bench: bench.put(row("c", ours=1.0)))], file, Stop)
    assert (code, seen, works()) == (1, [["a"], ["a", "b"]], ["a", "b"])
    kept = json.loads(path.read_text())
    assert kept["broken"] == {"two": "RuntimeError: out of memory"}
    assert kept["not_finished"] == ["three", "four"]
    said = capsys.readouterr().out
    assert "go on with `make gpu PART=bench-three,four`" in said and "not measured" in said
    assert run.measure(Board(file), [], file, Stop) == 0


def test_make_gpu_passes_groups_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PART=bench-GROUP,GROUP: these alone, and an end in time."""
    folder = Path(groups.__file__).parents[2] / "csrc"
    monkeypatch.syspath_prepend(str(folder))
    spec = importlib.util.spec_from_file_location("make_gpu", folder / "gpu.py")
    assert spec is not None and spec.loader is not None
    make_gpu = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make_gpu)
    commands = []

    def pretended_run(command: list[Any], seconds: float) -> tuple[int, float]:
        commands.append([*map(str, command), seconds])
        Path(command[command.index("--out") + 1]).write_text(json.dumps({"rows": [1], "not_finished": ["strict"]}))
        return 0, 9.0

    monkeypatch.setattr(make_gpu, "run", pretended_run)
    monkeypatch.setattr(make_gpu.importlib.util, "find_spec", lambda name: object())
    assert make_gpu.part("bench-zfnet-step,linears") == ("bench", "zfnet-step,linears")
    assert [make_gpu.part(each) for each in ("build", "bench", "all")] == [("build", ""), ("bench", ""), ("all", "")]
    for wrong in ("bunch", "tests-linears", "bench-", ""):
        with pytest.raises(argparse.ArgumentTypeError, match="allowed: build, tests, sanitize, bench"):
            make_gpu.part(wrong)
    passed, found = make_gpu.bench(tmp_path, "zfnet-step,linears")
    assert passed and found == {"seconds": 9.0, "exit_code": 0, "rows": [1], "not_finished": ["strict"]}
    assert make_gpu.bench(tmp_path)[0]
    some, every = commands
    assert some[1:4] == ["-m", "benchmarks.gpu", "--out"] and some[-1] == make_gpu.LIMIT
    assert some[some.index("--only") + 1] == "zfnet-step,linears" and "--only" not in every
    assert 300 < float(every[every.index("--seconds") + 1]) < make_gpu.LIMIT < 480


def test_runs_are_merged_and_the_newest_row_counts(tmp_path: Path) -> None:
    for name, date, value in (("b", "2027-01-02", 2.0), ("a", "2027-01-01", 3.0)):
        rows = [row("same", ours=1.0, cudnn=value), row(f"only {name}", ours=1.0)]
        (tmp_path / f"{name}.json").write_text(json.dumps({"environment": {"date": date}, "rows": written(rows)}))
    rows, rest = merged(sorted(tmp_path.glob("*.json")))
    assert {each.work: each.ratio for each in rows} == {"same": 2.0, "only a": None, "only b": None}
    assert [each["environment"]["date"] for each in rest] == ["2027-01-01", "2027-01-02"]


def test_the_plan() -> None:
    """Shapes come from the networks; sizes and operations are those of the published table."""
    full = plan.Plan()
    convolutions = full.convolutions()
    assert len(convolutions) == 5 + 4 + 9  # AlexNet's conv3 is ZFNet's
    assert [round(each.gflop(128)) for each in list(convolutions.values())[:3]] == [44, 106, 38]
    assert convolutions["AlexNet conv2"].groups == 2
    assert convolutions["VGG-16 conv1_1"].bytes(128, 2) == 2 * (128 * 224 * 224 * 67 + 64 * 27)
    assert [each.outputs for each in full.pools().values()] == [(55, 55), (13, 13), (6, 6)]
    assert list(full.stages()) == ["conv1", "conv2", "conv5"]
    assert full.dense()["fc6"] == plan.Dense(9216, 4096)
    assert list(full.norms().values()) == [(55, 55, 96), (13, 13, 256)]
    assert set(plan.variants(plan.STRICT)) >= {OURS} and list(plan.variants(plan.BFLOAT16)) == [OURS]


def test_floors() -> None:
    """By hand: operations over the data sheet's rate, or bytes over its bandwidth, which M marks."""
    lines = page.floors().splitlines()
    (conv2,) = (line for line in lines if "ZFNet conv2 |" in line)
    operations = 2 * 128 * 26 * 26 * 256 * 25 * 96
    assert conv2.endswith(f"| {operations / 1e9:.0f} | {operations / 989e6:.0f} | {operations / 494e6:.0f} | "
                          f"{3 * operations / 494e6:.0f} | {operations / 67e6:.0f} |")
    (conv1,) = (line for line in lines if "ZFNet conv1 |" in line)
    assert f"| {2 * (128 * (224 * 224 * 3 + 110 * 110 * 96) + 96 * 147) / 4.8e6:.1f} M |" in conv1
    (pool,) = (line for line in lines if line.startswith("| pool1"))
    assert pool.endswith(f"| {128 * 96 * (4 * 110**2 + 5 * 55**2) / 4.8e6:.0f} |")


def test_the_page_says_that_nothing_was_measured(tmp_path: Path) -> None:
    """And no text but the markers' changes."""
    text = page.PAGE.read_text("utf-8")
    made = page.updated(text, tmp_path)
    assert page.NOTHING in made
    assert page.PLACE.sub(r"\1\3", made) == page.PLACE.sub(r"\1\3", text)
    if not list(page.RESULTS.glob("gpu-bench*.json")):
        assert made == text
        assert not (page.PAGE.parent / page.PICTURE).exists()


def made_up(folder: Path) -> Path:
    """A results file as `make gpu` leaves one, of rows that nobody measured."""
    rows = [Row("convolutions", f"ZFNet conv{number} forward, {precision}", "convolution", precision,
                samples={OURS: [scale * 1e-4 * number, scale * 1.1e-4 * number], "cuDNN": [1.3e-4]}, gflop=40.0,
                bytes=1e8 * number**2, ceiling=5e-5, errors={OURS: 1e-3, "cuDNN": 2e-3}, workspace=2_000_000)
            for number in (1, 2, 5) for precision, scale in (("bfloat16", 0.5), ("tf32", 1.0))]
    rows += [row("pool1 forward", "memory", ours=1e-4, torch=5e-4, torch_compile=2e-4),
             row("broken", "strict", left_out={OURS: "its error, nan, is above 2e-05"}, cudnn=1.0)]
    about = {"device": "made-up device", "driver": "1.2", "date": "2027-01-01T00:00:00", "commit": "abc"}
    file = folder / "gpu-bench.json"
    file.write_text(json.dumps({"environment": about, "torch": "9", "cudnn": 1, "rows": written(rows),
                                "copy_bytes_per_second": 4e12,
                                "product_operations_per_second": {"float32": 5e13, "tf32": 4e14, "bfloat16": 8e14}}))
    return file


def test_the_page_of_results(tmp_path: Path) -> None:
    """Targets, tables, losses, what was left out."""
    made_up(tmp_path)
    text = page.updated(page.PAGE.read_text("utf-8"), tmp_path)
    assert page.NOTHING not in text and "made-up device, driver 1.2, 2027-01-01, commit abc" in text
    assert ("| memory-bound kernels: to eager PyTorch | each >= 3 | mean 5.00, lowest 5.00 (pool1 forward), 1 rows | "
            "met |") in text
    assert ("| ZFNet conv1 forward | 52.5 µs, 761.9 TFLOP/s, 95%, **2.48**x cuDNN, errors 1e-03, 2e-03 | "
            "105 µs, 381.0 TFLOP/s, 48%, **1.24**x cuDNN, errors 1e-03, 2e-03 |") in text
    assert "Slower than the best peer: ZFNet conv2 forward, tf32 (0.62), " in text
    assert "- zfcore, 1 rows (broken): its error, nan, is above 2e-05" in text
    assert "| broken | no result of ours |" in text


def test_the_roofline_picture(tmp_path: Path) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    from PIL import Image

    made_up(tmp_path)
    page.draw(tmp_path, tmp_path / "roofline.png")
    with Image.open(tmp_path / "roofline.png") as picture:
        assert picture.width > 600 and len(picture.convert("RGB").getcolors(1 << 24) or ()) > 20
    assert matplotlib.get_backend().lower() == "agg"
    empty = tmp_path / "empty"
    empty.mkdir()
    page.draw(empty, empty / "roofline.png")
    assert not list(empty.iterdir())


# --------------------------------------------------------------------------------------- with PyTorch


@pytest.fixture
def bench(tmp_path: Path) -> Any:
    """A bench over the emulated kernels."""
    torch = pytest.importorskip("torch")
    if backends.why_not("emulated"):
        pytest.skip("the emulated kernels are not built (make emulated)")
    from benchmarks.gpu.bench import Bench
    from benchmarks.gpu.device import Device

    class Here(Device):
        """Work is done at once; time is counted in runs."""

        name = "cpu"
        captured = runs = 0

        def stream(self) -> int:
            return 0

        def synchronize(self) -> None:
            """Nothing is under way."""

        release = forget = synchronize

        def capture(self, call: Any, sets: int) -> Any:
            for index in range(sets):
                call(index)
            self.captured += 1
            return lambda: None

        def seconds(self, run: Any) -> float:
            self.runs += 1
            run()
            return 1e-3 * self.runs

        wall = seconds

        def compile(self, function: Any, graphs: bool = False) -> Any:
            return function

    torch.manual_seed(0)
    file = run.File(tmp_path / "rows.json")
    with stand_in.installed():
        made = Bench(backends.get("emulated").extension, Here(), SMALL, file.keep)
        made.ceilings()
        yield made


# What is known to be left out here, and why.
EXPECTED = ("No module named 'captum'", '"avg_pool3d_out_frame" not implemented for \'BFloat16\'')


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # PyTorch's compiler is imported
@pytest.mark.parametrize("name", list(groups.GROUPS))
def test_every_row_of_a_group(bench: Any, name: str) -> None:
    """Ours computes what float64 does, nobody is left out, every row is complete."""
    bench.group = name
    groups.GROUPS[name](bench)
    assert bench.rows
    for one in bench.rows:
        unexpected = {who: why for who, why in one.left_out.items() if not any(each in why for each in EXPECTED)}
        assert not unexpected, one.text()
        assert one.ours and one.peer and one.ratio and one.samples[OURS if OURS in one.samples else one.ours]
        assert one.group == name and (name == "projections" or (one.ceiling > 0 and one.rate))
        mine = [value for who, value in one.errors.items() if who.startswith(OURS)]
        assert mine and all(value < 0.2 for value in mine), one.text()
        if one.precision == "float32" and name in ("strict", "linears", "chains", "zfnet-step"):
            assert set(plan.variants(plan.STRICT)) <= set(one.samples)
        if name.endswith("-step") and one.precision == "bfloat16":
            assert {each for each in one.samples if each.startswith(OURS)} == {
                OURS, "zfcore, captured", "zfcore, stored in bfloat16", "zfcore, stored in bfloat16, captured"}
        if one.work.startswith("contrast norm"):
            assert one.workspace == 4 * 3 * 4 * 4 * 8 * (5 if "gradient" in one.work else 1)
    assert len({one.work for one in bench.rows}) == len(bench.rows)
    assert len(json.loads(bench.keep.__self__.path.read_text())["rows"]) == len(bench.rows)


def test_all_rows_that_targets_need_are_measured(bench: Any) -> None:
    """Families, precisions and contenders that the summary looks for."""
    for name in ("convolutions", "strict", "chains"):
        groups.GROUPS[name](bench)
    works = "\n".join(one.work for one in bench.rows)
    for wanted in ("ZFNet conv1 3x3 s2 3->8 forward, bfloat16",
                   "ZFNet conv1 3x3 s2 3->8, padded before weight gradient, tf32",
                   "AlexNet conv2 3x3 s1 8->6 g2 input gradient, float16",
                   "ZFNet conv2 3x3 s1 8->6 weight gradient, float32", "ZFNet conv1 + ReLU + pool forward, tf32",
                   "ZFNet conv2: unpool (last wins), rectify, filter, float32"):
        assert wanted in works
    narrow = next(one for one in bench.rows if one.work == "ZFNet conv1 3x3 s2 3->8 forward, bfloat16")
    assert set(narrow.samples) == {f"{who}{channels}" for who in (OURS, "cuDNN")
                                   for channels in ("", ", 4 channels", ", 8 channels")}
    assert {one.family for one in bench.rows} == {"convolution", "strict", "chain", "chain down", ""}
    chain = next(one for one in bench.rows if "conv1 + ReLU + pool forward, bfloat16" in one.work)
    assert set(chain.samples) == {f"{who}{channels}{way}" for channels in ("", ", 4 channels") for who, way in (
        (OURS, ""), (OURS, ", one by one"), ("torch", ""), ("torch.compile", ""))} | {
        "torch.compile, int8 places", "torch.compile, int8 places, 4 channels"}


def test_whoever_fails_is_left_out_with_the_reason(bench: Any) -> None:
    import torch

    from benchmarks.gpu.bench import Compiled, TimeIsUp

    exact = torch.arange(6, dtype=torch.float64)

    def raises(_: int) -> Any:
        raise RuntimeError("CUDA error: no kernel image\nfurther lines")

    contenders = {OURS: lambda _: exact.float(), "wrong": lambda _: exact + 1,
                  "no number": lambda _: exact * float("nan"), "raises": raises,
                  "compiled": Compiled(lambda x: x, lambda _: (exact,))}
    bench.add("work", contenders, 2, bytes=1.0, exact=exact)
    one = bench.rows[-1]
    assert set(one.samples) == {OURS, "compiled"} and one.errors[OURS] == 0
    assert one.left_out["raises"] == "RuntimeError: CUDA error: no kernel image"
    assert one.left_out["wrong"].startswith("its error, ") and one.left_out["no number"].startswith("its error, nan")
    assert len(one.samples[OURS]) == SMALL.repeats
    bench.add("work", contenders, 2, bytes=1.0, refused="its switches differ")
    assert bench.rows[-1].left_out[OURS] == "its switches differ" and bench.rows[-1].ratio is None
    bench.allowed, bench.begun = 1000.0, bench.begun - 800.0
    bench.add("work", contenders, 2, bytes=1.0)
    assert bench.rows[-1].left_out["compiled"].startswith("no time was left to compile it (80")
    bench.allowed = 1.0
    with pytest.raises(TimeIsUp):
        bench.add("work", contenders, 2, bytes=1.0)


def test_wrong_switches_where_values_tie_are_noticed(bench: Any) -> None:
    """A kernel that takes the last of equal values has PyTorch's values, and is left out all the same."""
    from benchmarks.gpu.memory_bound import STORAGE, pooling

    class LastOfEqual:
        def __getattr__(self, name: str) -> Any:
            return getattr(bench_extension, name)

        def max_pool(self, y: Any, switches: Any, *rest: Any) -> None:
            bench_extension.max_pool(y, switches, *rest)
            switches.tensor.copy_(8 - switches.tensor)

    bench_extension, bench.extension = bench.extension, LastOfEqual()
    pooling(bench, "pool1", SMALL.pools()["pool1"], STORAGE[0])
    assert len(bench.rows) == 3
    for one in bench.rows:
        assert one.left_out[OURS] == "its switches are not PyTorch's indices where values tie" and one.ours is None


def test_a_tensor_that_is_not_dense_is_refused(bench: Any) -> None:
    import torch

    with pytest.raises(ValueError, match="not contiguous"):
        bench.run("relu", torch.ones(4, 4).T, torch.ones(4, 4))


def test_the_device_forgets_what_was_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    from benchmarks.gpu.device import Device

    compiled = []

    def backend(graph: Any, _: Any) -> Any:
        compiled.append(graph)
        return graph.forward

    def twice(x: Any) -> Any:
        return 2 * x

    function = torch.compile(twice, backend=backend)
    for _ in range(2):
        function(torch.ones(3))
    assert len(compiled) == 1
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    Device().forget()
    assert function(torch.ones(3)).tolist() == [2, 2, 2]
    assert len(compiled) == 2


def test_clocks_are_asked_for_while_rows_are_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program of that name which says its arguments and goes on, and none at all."""
    pytest.importorskip("torch")
    from benchmarks.gpu.device import Clocks

    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\necho \"$@\" > {tmp_path}/asked\necho '1980, 3201, 600.5, 51'\n"
                       f"touch {tmp_path}/said\nexec sleep 60\n")
    program.chmod(0o755)
    with monkeypatch.context() as patched:
        patched.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        with Clocks() as clocks:
            for _ in range(1000):
                if (tmp_path / "said").exists():
                    break
                time.sleep(0.01)
    assert clocks.samples == [["1980", "3201", "600.5", "51"]]
    asked = (tmp_path / "asked").read_text()
    assert "--query-gpu=clocks.sm,clocks.mem" in asked
    assert not any(word.startswith(("-r", "-pm", "-pl", "-ac", "-lgc", "-mig")) for word in asked.split())
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    with Clocks() as clocks:
        pass
    assert clocks.samples == []
