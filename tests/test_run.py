"""Training runs in a folder: a resumed run equals an uninterrupted one, and faults lose nothing."""

from __future__ import annotations

import errno
import json
import os
import signal
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from training_cases import COUNT, begin, feeds, images, network, result

import zfcore
from zfcore import files
from zfcore.formats import safetensors
from zfcore.training import SGD, Adam, ArrayFeed, NonFiniteLoss, measure
from zfcore.training.checkpoint import CheckpointError, Generations
from zfcore.training.loop import Training
from zfcore.training.run import train
from zfcore.training.schedules import ByHand, Constant, LinearDecay, Plateau

GENERATIONS = ("checkpoint-0.safetensors", "checkpoint-1.safetensors")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    begin(folder)
    return folder


class Stop(Exception):
    """What the tests raise in the middle of a run."""


def stop_after(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """Let the run stop in its step number `steps` (from 1), before its update."""
    from zfcore.training import loop

    taken = [0]
    kept = loop.train_step

    def counted(*arguments: Any, **options: Any) -> Any:
        taken[0] += 1
        if taken[0] == steps:
            raise Stop
        return kept(*arguments, **options)

    monkeypatch.setattr(loop, "train_step", counted)


def test_what_a_run_leaves(whole: Path) -> None:
    assert sorted(path.name for path in whole.iterdir()) == [
        "best.safetensors", *GENERATIONS, "curves.png", "lock", "log.jsonl", "model.safetensors", "run.json",
        "summary.json"]
    log = result(whole)["log"]
    assert [row["epoch"] for row in log if row["kind"] == "epoch"] == [1, 2, 3, 4]
    assert [(row["epoch"], row["step"]) for row in log if row["kind"] == "step"] == [
        (epoch, step) for epoch in (1, 2, 3, 4) for step in (1, 2, 3)]
    summary = json.loads((whole / "summary.json").read_text())
    assert summary["epochs"] == 4 and summary["steps"] == 12 and summary["images"] == COUNT
    net, validation = zfcore.load(whole / "model.safetensors"), feeds()[1]
    assert measure(net, validation).accuracy == summary["validation_accuracy"]
    best = measure(zfcore.load(whole / "best.safetensors"), validation)
    assert best.accuracy == summary["best"]["validation_accuracy"]
    assert best.accuracy == max(row["validation_accuracy"] for row in log if row["kind"] == "epoch")
    assert net.algorithm == "direct"
    picture = np.asarray(Image.open(whole / "curves.png"))
    assert picture.shape[1] > 900 and (picture < 128).any()


def test_models_of_chosen_epochs_are_kept_and_resumed_runs_keep_the_same(whole: Path, tmp_path: Path) -> None:
    begin(tmp_path / "kept", keep=(0, 2, 4))
    names = [path.name for path in sorted((tmp_path / "kept").glob("epoch-*"))]
    assert names == ["epoch-0000.safetensors", "epoch-0002.safetensors", "epoch-0004.safetensors"]
    kept = [safetensors.load(tmp_path / "kept" / name).parameters() for name in names]
    assert all(np.array_equal(kept[0][name], value) for name, value in network().parameters().items())
    last = safetensors.load(whole / "model.safetensors").parameters()
    assert all(np.array_equal(kept[2][name], value) for name, value in last.items())
    assert any(not np.array_equal(kept[1][name], value) for name, value in last.items())
    begin(tmp_path / "parts", epochs=2, keep=(0, 2, 4), schedule=Constant())
    begin(tmp_path / "parts", epochs=4, keep=(0, 2, 4), schedule=Constant(), resume=True)
    begin(tmp_path / "one", epochs=4, keep=(0, 2, 4), schedule=Constant())
    for name in names:
        parts, one = (safetensors.load(tmp_path / folder / name).parameters() for folder in ("parts", "one"))
        assert all(np.array_equal(parts[key], value) for key, value in one.items())
    begin(tmp_path / "kept", epochs=1, force=True)
    assert not list((tmp_path / "kept").glob("epoch-*"))
    with pytest.raises(ValueError, match="keep is -1; allowed"):
        begin(tmp_path / "bad", keep=(-1,))


def test_equals_the_loop_without_a_folder(whole: Path) -> None:
    net, (feed, validation) = network(), feeds()
    schedule = Plateau(patience=1)
    training = Training(net, feed, SGD(0.05, decay=1e-3, radius=0.1),
                        lambda epoch, errors: schedule.rate(0.05, epoch, 4, errors), validation=validation)
    history = training.run(4, progress=False)
    saved = zfcore.load(whole / "model.safetensors").parameters()
    assert all(array.tobytes() == saved[name].tobytes() for name, array in net.parameters().items())
    rates = [row["rate"] for row in result(whole)["log"] if row["kind"] == "epoch"]
    assert rates == [epoch.learning_rate for epoch in history]


@pytest.mark.parametrize("steps", range(1, 13))
def test_resumed_after_any_step_equals_the_whole_run(whole: Path, tmp_path: Path, steps: int,
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        stop_after(patch, steps)
        with pytest.raises(Stop):
            begin(tmp_path / "run", checkpoint_seconds=0 if steps % 2 else 1e9)
    begin(tmp_path / "run", resume=True)
    assert result(tmp_path / "run") == result(whole)


def test_resumed_within_an_epoch_with_adam(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                           capsys: pytest.CaptureFixture[str]) -> None:
    options = {"schedule": ByHand({2: 0.001}), "epochs": 3, "frozen": ("conv1",)}
    begin(tmp_path / "whole", optimizer=Adam(0.01, factors={"fc2": 0.5}), **options)
    with monkeypatch.context() as patch:
        stop_after(patch, 6)
        with pytest.raises(Stop):
            begin(tmp_path / "run", optimizer=Adam(0.01, factors={"fc2": 0.5}), checkpoint_seconds=0, **options)
    capsys.readouterr()
    begin(tmp_path / "run", optimizer=Adam(0.01, factors={"fc2": 0.5}), resume=True, **options)
    assert "epoch 1 of 3, step 2 of 3 of the next" in capsys.readouterr().err
    assert result(tmp_path / "run") == result(tmp_path / "whole")
    rows = [row for row in result(tmp_path / "run")["log"] if row["kind"] == "epoch"]
    assert [row["rate"] for row in rows] == [0.01, 0.01, 0.001]
    trained, fresh = zfcore.load(tmp_path / "run" / "model.safetensors").parameters(), network().parameters()
    for name, array in fresh.items():
        assert (array.tobytes() == trained[name].tobytes()) == name.startswith("conv1."), name


def test_a_finished_run_goes_on_with_more_epochs(whole: Path, tmp_path: Path) -> None:
    begin(tmp_path / "run", epochs=2)
    again = begin(tmp_path / "run", epochs=2, resume=True)
    assert again["epochs"] == 2
    begin(tmp_path / "run", epochs=4, resume=True)
    assert result(tmp_path / "run") == result(whole)
    with pytest.raises(ValueError, match="at least 4"):
        begin(tmp_path / "run", epochs=3, resume=True)


def test_annealing_by_hand(tmp_path: Path) -> None:
    """A run goes on with rates that were chosen after looking at it: as if they had been known before."""
    begin(tmp_path / "run", epochs=2, schedule=LinearDecay())
    with pytest.raises(CheckpointError, match=r"epoch 2 was 0\.025 and would now be 0\.0375"):
        begin(tmp_path / "run", epochs=4, schedule=LinearDecay(), resume=True)
    chosen = ByHand({1: 0.025, 2: 0.02, 3: 0.001})
    begin(tmp_path / "run", epochs=4, schedule=chosen, resume=True)
    begin(tmp_path / "whole", epochs=4, schedule=chosen)
    assert result(tmp_path / "run") == result(tmp_path / "whole")


def test_other_versions_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    begin(tmp_path / "run", epochs=1)
    path = tmp_path / "run" / "run.json"
    path.write_text(path.read_text().replace('"backend": "numba"', '"backend": "cuda"'))
    begin(tmp_path / "run", epochs=2, resume=True)
    assert 'backend is "numba", not "cuda"; its bits may differ' in capsys.readouterr().err


# Signals


@pytest.mark.parametrize(("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
@pytest.mark.parametrize("during", ["step", "validation"])
def test_a_signal_saves_and_ends(whole: Path, tmp_path: Path, number: int, error: type[BaseException], during: str,
                                 monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from zfcore.training import loop

    name = "train_step" if during == "step" else "measure"
    kept, calls = getattr(loop, name), [0]

    def signalled(*arguments: Any, **options: Any) -> Any:
        calls[0] += 1
        if calls[0] == 2:
            os.kill(os.getpid(), number)
        return kept(*arguments, **options)

    def terminate(signum: int, _frame: Any) -> None:
        raise SystemExit(128 + signum)

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(loop, name, signalled)
            with pytest.raises(error):
                begin(tmp_path / "run")
        assert signal.getsignal(signal.SIGTERM) is terminate
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGTERM, before)
    assert "--resume goes on" in capsys.readouterr().err
    saved = Generations(tmp_path / "run").load()[0]
    assert saved is not None and saved.place == ((0, 2) if during == "step" else (1, 3))
    begin(tmp_path / "run", resume=True)
    assert result(tmp_path / "run") == result(whole)


# Bad values


def test_a_loss_that_is_not_a_number_keeps_the_last_good_checkpoint(tmp_path: Path,
                                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    """The values go bad in the update of the fifth step: neither it nor anything after it is saved."""
    kept = SGD._update

    def spoils(self: SGD, ops: Any, name: str, weight: Any, *rest: Any) -> None:
        kept(self, ops, name, weight, *rest)
        if self.steps == 5 and name == "fc2.weight":
            weight[0, 0] = np.nan

    with monkeypatch.context() as patch:
        patch.setattr(SGD, "_update", spoils)
        with pytest.raises(NonFiniteLoss, match=r"step 5.*'fc2'.*after 1 epochs and 1 steps, stays"):
            begin(tmp_path / "run", checkpoint_seconds=0)
        with pytest.raises(NonFiniteLoss, match=r"step 5.*'fc2'.*after 1 epochs and 0 steps, stays"):
            begin(tmp_path / "rarely", checkpoint_seconds=1e9)
    saved = Generations(tmp_path / "run").load()[0]
    assert saved is not None and saved.place == (1, 1) and saved.first_not_finite() is None


def test_a_model_that_is_not_a_number_is_never_the_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The values go bad in the last step of the first epoch, whose model would be the best so far."""
    kept = SGD._update

    def spoils(self: SGD, ops: Any, name: str, weight: Any, *rest: Any) -> None:
        kept(self, ops, name, weight, *rest)
        if self.steps == 3 and name == "fc3.weight":
            weight[:] = np.nan

    monkeypatch.setattr(SGD, "_update", spoils)
    with pytest.raises(NonFiniteLoss, match=r"step 3.*'fc3'.*after 0 epochs and 0 steps, stays"):
        begin(tmp_path / "run")
    assert not (tmp_path / "run" / "best.safetensors").exists()


# The log


@pytest.mark.parametrize("lost", ["its last bytes", "all of it", "a bit in it"])
def test_a_damaged_log_is_said_and_the_run_comes_to_its_end(whole: Path, tmp_path: Path, lost: str,
                                                            monkeypatch: pytest.MonkeyPatch,
                                                            capsys: pytest.CaptureFixture[str]) -> None:
    with monkeypatch.context() as patch:
        stop_after(patch, 8)
        with pytest.raises(Stop):
            begin(tmp_path / "run", checkpoint_seconds=0)
    path = tmp_path / "run" / "log.jsonl"
    content = path.read_bytes()
    path.write_bytes({"its last bytes": content[:-20], "all of it": b"", "a bit in it": content.replace(b":", b";", 1)
                      }[lost])
    begin(tmp_path / "run", resume=True)
    assert ("has lost" in capsys.readouterr().err) == (lost != "a bit in it")
    found, expected = result(whole), json.loads((whole / "summary.json").read_text())
    for name in ("model.safetensors", "best.safetensors"):
        assert (tmp_path / "run" / name).read_bytes() == (whole / name).read_bytes()
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["loss"] == expected["loss"] and summary["best"] == expected["best"]
    if lost != "a bit in it":  # whole lines are left, and nothing stands between them
        rows = result(tmp_path / "run")["log"]
        assert [row for row in found["log"] if row in rows] == rows


# Checkpoints


def damaged(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "truncated":
        content = content[:-7]
    elif how == "empty":
        content = bytearray()
    elif how == "bit in an array":
        content[-3] ^= 16
    elif how == "bit in the state":
        content[content.index(b'optimizer_steps') + 22] ^= 1
    elif how == "bit in a name":
        content[content.index(b"parameter.conv1")] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("how", ["truncated", "empty", "bit in an array", "bit in the state", "bit in a name"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(whole: Path, tmp_path: Path, how: str,
                                                           monkeypatch: pytest.MonkeyPatch,
                                                           capsys: pytest.CaptureFixture[str]) -> None:
    with monkeypatch.context() as patch:
        stop_after(patch, 9)
        with pytest.raises(Stop):
            begin(tmp_path / "run", checkpoint_seconds=0)
    generations = Generations(tmp_path / "run")
    saved = generations.load()[0]
    assert saved is not None and saved.place == (2, 2)
    newest = GENERATIONS[1 - GENERATIONS.index(generations._next)]
    damaged(tmp_path / "run" / newest, how)
    capsys.readouterr()
    begin(tmp_path / "run", resume=True)
    told = capsys.readouterr().err
    assert newest in told and "damaged" in told and "going on from the other checkpoint" in told
    assert "epoch 2 of 4, step 1 of 3 of the next" in told
    assert result(tmp_path / "run") == result(whole)


def test_two_damaged_checkpoints_are_an_error(tmp_path: Path) -> None:
    begin(tmp_path / "run", epochs=1)
    for name in GENERATIONS:
        damaged(tmp_path / "run" / name, "bit in an array")
    with pytest.raises(CheckpointError, match=r"checkpoint-0.*checkpoint-1.*no whole checkpoint is left: --force"):
        begin(tmp_path / "run", resume=True)
    begin(tmp_path / "run", epochs=1, force=True)


def test_every_flipped_bit_is_found(tmp_path: Path) -> None:
    """A hundred places drawn with a seed, all over a checkpoint."""
    from zfcore.training.checkpoint import Checkpoint

    begin(tmp_path / "run", epochs=1)
    path = tmp_path / "run" / GENERATIONS[0]
    content = path.read_bytes()
    for place in np.random.default_rng(0).integers(0, 8 * len(content), 100).tolist():
        changed = bytearray(content)
        changed[place // 8] ^= 1 << place % 8
        path.write_bytes(bytes(changed))
        with pytest.raises(CheckpointError, match=r"checkpoint-0\.safetensors"):
            Checkpoint.read(path)


@pytest.mark.parametrize(("change", "words"), [
    (lambda run: begin(run, width=4, resume=True), ["another network", "conv1.filters is 3, not 4"]),
    (lambda run: begin(run, optimizer=SGD(0.5, radius=0.1), resume=True),
     ["decay is 0.001, not 0.0", "epoch 1 was 0.05 and would now be 0.5"]),
    (lambda run: begin(run, optimizer=Adam(0.05), resume=True), ["kind", '"sgd"', '"adam"']),
    (lambda run: begin(run, schedule=ByHand({0: 0.01}), resume=True), ["epoch 1 was 0.05 and would now be 0.01"]),
    (lambda run: begin(run, seed=1, resume=True), ["seed is 0, not 1"]),
    (lambda run: begin(run, frozen=("fc2",), resume=True), ["frozen", "fc2"]),
])
def test_another_networks_or_trainings_checkpoint_is_refused(tmp_path: Path, change: Callable[[Path], Any],
                                                             words: list[str]) -> None:
    begin(tmp_path / "run", epochs=1)
    with pytest.raises(CheckpointError) as caught:
        change(tmp_path / "run")
    for word in ["checkpoint-", *words]:
        assert word in str(caught.value), caught.value


@pytest.mark.parametrize("which", ["training", "validation"])
def test_changed_data_are_refused(tmp_path: Path, which: str) -> None:
    begin(tmp_path / "run", epochs=1)
    feed, validation = feeds()
    changed = feed if which == "training" else validation
    changed.images = changed.images.copy()
    changed.images[3, 2, 1, 0] += 1
    with pytest.raises(CheckpointError, match=f"the {which} data changed since"):
        train(tmp_path / "run", network(), feed, SGD(0.05, decay=1e-3, radius=0.1), epochs=2,
              schedule=Plateau(patience=1), validation=validation, resume=True, progress=False)


# The folder


def test_two_runs_in_one_folder_are_refused(tmp_path: Path) -> None:
    with files.locked(tmp_path / "lock", "x"), pytest.raises(BlockingIOError, match="another process is training"):
        begin(tmp_path)
    begin(tmp_path, epochs=1)


def test_a_run_is_replaced_only_when_asked(tmp_path: Path) -> None:
    begin(tmp_path / "run", epochs=1)
    before = result(tmp_path / "run")
    with pytest.raises(FileExistsError, match=r"holds a run.*--resume.*--force"):
        begin(tmp_path / "run")
    assert result(tmp_path / "run") == before
    begin(tmp_path / "run", epochs=2, force=True, optimizer=Adam())
    assert len([row for row in result(tmp_path / "run")["log"] if row["kind"] == "epoch"]) == 2
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    for options in ({}, {"force": True}, {"resume": True}):
        with pytest.raises(FileExistsError, match=r"thesis\.tex"):
            begin(tmp_path / "mine", **options)
    (tmp_path / "file").write_text("x")
    with pytest.raises(FileExistsError, match="not a folder"):
        begin(tmp_path / "file", force=True)


def test_bad_arguments(tmp_path: Path) -> None:
    feed = ArrayFeed(*images(), batch_size=8)
    for options, word in (({"epochs": 0}, "epochs"), ({"log_every": 0}, "log_every"), ({"seed": -1}, "seed"),
                          ({"frozen": ["conv9"]}, "conv1"), ({"checkpoint_seconds": -1}, "checkpoint_seconds"),
                          ({"schedule": Plateau()}, "validation")):
        with pytest.raises(ValueError, match=word):
            train(tmp_path / "run", network(), feed, SGD(), **{"epochs": 1, **options})
        with pytest.raises(ValueError, match="fc9"):
            train(tmp_path / "run", network(), feed, SGD(factors={"fc9": 2.0}), epochs=1)
        with pytest.raises(ValueError, match="not every layer with parameters"):
            train(tmp_path / "run", network(), feed, SGD(), epochs=1, frozen=("conv1", "norm1", "fc2", "fc3"))
        assert not (tmp_path / "run").exists()


def test_tensorboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with monkeypatch.context() as patch:
        stop_after(patch, 6)
        with pytest.raises(Stop):
            begin(tmp_path / "run", tensorboard=True)
    begin(tmp_path / "run", tensorboard=True, resume=True)
    events = EventAccumulator(str(tmp_path / "run" / "events"))
    events.Reload()
    log = result(tmp_path / "run")["log"]
    losses = [row["loss"] for row in log if row["kind"] == "step"]
    assert [event.value for event in events.Scalars("training/loss")] == pytest.approx(losses)
    accuracies = [row["validation_accuracy"] for row in log if row["kind"] == "epoch"]
    assert [event.value for event in events.Scalars("epoch/validation accuracy")] == pytest.approx(accuracies)


# Disk full


@pytest.mark.parametrize("where", ["write", "fsync", "replace", "mkstemp", "log"])
def test_a_full_disk_loses_nothing(whole: Path, tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """At every write in turn the disk is full; when there is room again the run goes on to the same end."""
    from zfcore.training.log import Log

    folder, counted, limit = tmp_path / "run", [0], [0]

    def fails(kept: Callable[..., Any], half: bool = False) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            if where == "fsync" and stat.S_ISDIR(os.fstat(arguments[0]).st_mode):
                return kept(*arguments)  # a folder's, whose errors are passed over
            counted[0] += 1
            if counted[0] == limit[0]:
                if half:
                    kept(arguments[0], bytes(arguments[1])[:11])
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return kept(*arguments, **options)
        return call

    def half_a_line(self: Log, record: Any) -> None:
        self._file.write(json.dumps(record).encode()[:9])

    times = 0
    while True:
        counted[0] = 0
        limit[0] += 1
        before = {name: (folder / name).read_bytes() for name in GENERATIONS if (folder / name).exists()}
        with monkeypatch.context() as patch:
            if where == "write":
                patch.setattr(files.Sink, "write", fails(files.Sink.write, half=True))
            elif where == "log":
                kept = Log.write

                def write(self: Log, record: Any, kept: Any = kept) -> None:
                    counted[0] += 1
                    if counted[0] == limit[0]:
                        half_a_line(self, record)
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                    kept(self, record)

                patch.setattr(Log, "write", write)
            elif where == "mkstemp":
                patch.setattr(files.tempfile, "mkstemp", fails(files.tempfile.mkstemp))
            else:
                patch.setattr(os, where, fails(getattr(os, where)))
            try:
                begin(folder, resume=True, checkpoint_seconds=0)
                break
            except OSError as error:
                assert error.errno == errno.ENOSPC
                assert where not in ("write", "fsync") or str(folder) in str(error)  # the system does not say where
        times += 1
        assert not [path.name for path in folder.iterdir() if path.name.endswith(".tmp")]
        if before:
            assert Generations(folder).load()[0] is not None and not Generations(folder).load()[1]
    assert times >= 4
    assert result(folder) == result(whole)
