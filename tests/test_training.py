"""Training: steps equal PyTorch's, runs repeat bit for bit, faults stop with a name."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from zfcore.kernels.threads import set_num_threads
from zfcore.layers import Convolution, Dropout, Flatten, Linear, MaxPool, ResponseNorm, Softmax
from zfcore.network import Network
from zfcore.preprocessing import Preprocessing
from zfcore.training import SGD, Adam, NonFiniteLoss, Optimizer, Shifts, evaluate, fit, train_step

CLASSES = 4


def small(dropout: float = 0.0, softmax: bool = True) -> Network:
    """Two convolutions, overlapping pooling, response norm, two fully connected layers."""
    net = Network("small", (12, 12, 2), preprocessing=None, scheme="he")
    net.add("conv1", Convolution(5, 3, padding=1, activation="relu"))
    net.add("pool1", MaxPool(3, 2, ceil_mode=True))
    net.add("norm1", ResponseNorm())
    net.add("conv2", Convolution(6, 3, activation="relu"))
    net.add("flat", Flatten())
    net.add("fc3", Linear(8, activation="relu"))
    if dropout:
        net.add("drop3", Dropout(dropout))
    net.add("fc4", Linear(CLASSES))
    if softmax:
        net.add("softmax", Softmax())
    net.initialize(3)
    return net


def data(count: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Labelled blobs: the class is the corner that is bright."""
    generator = np.random.default_rng(11)
    labels = generator.integers(0, CLASSES, count)
    images = generator.normal(0, 0.3, (count, 12, 12, 2)).astype(np.float32)
    for image, label in zip(images, labels, strict=True):
        image[6 * (label // 2):, 6 * (label % 2):][:6, :6] += 1
    return images, labels


def trained(optimizer: Optimizer, **options: Any) -> dict[str, np.ndarray]:
    """Parameters after two epochs."""
    net = small(dropout=options.pop("dropout", 0.0))
    fit(net, *data(), epochs=2, batch_size=16, optimizer=optimizer, progress=False, **options)
    return net.parameters()


def torch_twin(net: Network) -> Any:
    """The same network in PyTorch, with the same parameters."""
    torch = pytest.importorskip("torch")

    class Twin(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.conv2 = torch.nn.Conv2d(2, 5, 3, padding=1), torch.nn.Conv2d(5, 6, 3)
            self.fc3, self.fc4 = torch.nn.Linear(96, 8), torch.nn.Linear(8, CLASSES)

        def forward(self, x: Any) -> Any:
            functional = torch.nn.functional
            y = functional.max_pool2d(self.conv1(x).relu(), 3, 2, ceil_mode=True)
            y = functional.local_response_norm(y, 5, alpha=5e-4, beta=0.75, k=2.0)
            y = self.conv2(y).relu().permute(0, 2, 3, 1).flatten(1)
            return self.fc4(self.fc3(y).relu())

    twin = Twin()
    with torch.no_grad():
        for name, parameter in twin.named_parameters():
            array = torch.from_numpy(net.parameters()[name])
            parameter.copy_(array.permute(0, 3, 1, 2) if array.ndim == 4 else array)
    return twin


def torch_optimizer(twin: Any, optimizer: Optimizer) -> Any:
    """PyTorch's optimizer with the same settings; biases do not decay."""
    import torch

    groups = [{"params": [p for p in twin.parameters() if p.ndim > 1], "weight_decay": optimizer.decay},
              {"params": [p for p in twin.parameters() if p.ndim == 1], "weight_decay": 0.0}]
    if isinstance(optimizer, Adam):
        return torch.optim.Adam(groups, lr=optimizer.learning_rate, betas=(optimizer.beta1, optimizer.beta2))
    return torch.optim.SGD(groups, lr=optimizer.learning_rate, momentum=optimizer.momentum)


@pytest.mark.parametrize("make", [
    lambda: SGD(0.05, momentum=0.9, decay=5e-4),
    lambda: SGD(0.05, momentum=0.9, rate_in_velocity=False),
    lambda: SGD(0.05, momentum=0.9, radius=0.1),
    lambda: Adam(3e-3, decay=1e-3),
], ids=["momentum and decay", "torch's velocity", "renormalised", "adam"])
def test_steps_equal_pytorchs(make: Any) -> None:
    """Six steps on the same batches in the same order, parameter by parameter."""
    torch = pytest.importorskip("torch")
    net, optimizer = small(), make()
    twin = torch_twin(net)
    theirs = torch_optimizer(twin, optimizer)
    images, labels = data()
    losses = []
    history = fit(net, images, labels, epochs=2, batch_size=16, optimizer=optimizer, seed=5, progress=False)
    for number in range(2):
        order = np.random.default_rng([5, number]).permutation(len(labels))
        total = 0.0
        for start in range(0, len(order), 16):
            chosen = order[start:start + 16]
            x = torch.from_numpy(images[chosen]).permute(0, 3, 1, 2)
            loss = torch.nn.functional.cross_entropy(twin(x), torch.from_numpy(labels[chosen]))
            theirs.zero_grad()
            loss.backward()
            theirs.step()
            total += float(loss.detach()) * len(chosen)
            if getattr(optimizer, "radius", None):
                with torch.no_grad():
                    for weight in (twin.conv1.weight, twin.conv2.weight):
                        size = weight.pow(2).mean((1, 2, 3), keepdim=True).sqrt()
                        weight.mul_(torch.clamp(optimizer.radius / size, max=1))
        losses.append(total / len(order))
    np.testing.assert_allclose([epoch.loss for epoch in history], losses, rtol=1e-4)
    for name, parameter in twin.named_parameters():
        expected = parameter.detach()
        expected = (expected.permute(0, 2, 3, 1) if expected.ndim == 4 else expected).numpy()
        # Rounding differs by sums' order; Adam divides tiny gradients by their own size.
        np.testing.assert_allclose(net.parameters()[name], expected, rtol=2e-3, atol=2e-5, err_msg=name)


def test_runs_repeat_bit_for_bit_for_any_number_of_threads() -> None:
    def run(**options: Any) -> dict[str, np.ndarray]:
        return trained(SGD(0.05, radius=0.1), dropout=0.5, **options)

    try:
        results = []
        for threads in (1, 2, 3):
            set_num_threads(threads)
            results.append(run())
    finally:
        set_num_threads(None)
    for first, second in itertools.pairwise(results):
        for name in first:
            assert first[name].tobytes() == second[name].tobytes(), name
    other = run(seed=1)
    assert any(first[name].tobytes() != other[name].tobytes() for name in first)


def test_training_learns_and_evaluation_agrees() -> None:
    net, (images, labels) = small(), data(120)
    seen = []
    history = fit(net, images, labels, epochs=8, batch_size=16, optimizer=SGD(0.05), progress=False,
                  validation=(images, labels), callback=seen.append)
    assert history == seen and [epoch.number for epoch in history] == list(range(8))
    assert history[-1].loss < 0.2 * history[0].loss
    assert history[-1].validation.accuracy > 0.95
    whole, parts = evaluate(net, images, labels), evaluate(net, images, labels, batch_size=7)
    assert whole.loss == parts.loss and (whole.predictions == parts.predictions).all()
    assert whole.accuracy == (net(images).argmax(axis=1) == labels).mean()


def test_a_closing_softmax_changes_nothing() -> None:
    with_it, without = small(), small(softmax=False)
    for net in (with_it, without):
        fit(net, *data(), epochs=1, batch_size=16, optimizer=SGD(0.05), progress=False)
    for name, array in with_it.parameters().items():
        assert array.tobytes() == without.parameters()[name].tobytes()


def test_pixels_are_preprocessed_batch_by_batch() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 12, 12, 1)).astype(np.uint8)
    labels = np.arange(20) % CLASSES
    preprocessing = Preprocessing(channels="L", mean=100.0, scale=1 / 64)
    results = []
    for images in (pixels, preprocessing.apply(pixels)):
        net = Network("gray", (12, 12, 1), preprocessing=preprocessing, scheme="he")
        net.add("conv1", Convolution(3, 3, activation="relu"))
        net.add("flat", Flatten())
        net.add("fc2", Linear(CLASSES))
        net.initialize(0)
        fit(net, images, labels, epochs=1, batch_size=8, progress=False)
        results.append(net.parameters())
    for name in results[0]:
        assert results[0][name].tobytes() == results[1][name].tobytes()


def rms(weight: np.ndarray) -> np.ndarray:
    """Root mean square of each filter."""
    return np.sqrt((weight.astype(np.float64) ** 2).mean(axis=(1, 2, 3)))


def test_filters_stay_within_the_radius() -> None:
    parameters = trained(SGD(0.2, radius=0.1))
    for name, weight in parameters.items():
        if weight.ndim == 4:
            assert rms(weight).max() <= 0.1 * (1 + 1e-6), name
    free = trained(SGD(0.2))
    assert rms(free["conv1.weight"]).max() > 0.1


def test_a_schedule_sets_each_epochs_rate() -> None:
    net = small()
    rates = [0.1, 0.01, 0.0]
    history = fit(net, *data(), epochs=3, batch_size=40, optimizer=SGD(9.0, momentum=0.0), progress=False,
                  schedule=lambda epoch: rates[epoch])
    assert [epoch.learning_rate for epoch in history] == rates


def test_a_loss_that_is_not_a_number_names_the_first_bad_layer() -> None:
    net, (images, labels) = small(), data()
    net.parameters()["conv2.weight"][0, 0, 0, 0] = np.nan
    before = {name: array.copy() for name, array in net.parameters().items()}
    with pytest.raises(NonFiniteLoss, match="'conv2'") as caught:
        fit(net, images, labels, epochs=1, progress=False)
    assert (caught.value.layer, caught.value.step) == ("conv2", 0)
    for name, array in net.parameters().items():
        assert array.tobytes() == before[name].tobytes()
    net = small()
    images = images.copy()
    images[3, 0, 0, 0] = np.inf
    with pytest.raises(NonFiniteLoss, match="'input'"):
        fit(net, images, labels, epochs=1, progress=False)


@pytest.mark.parametrize(("options", "error", "word"), [
    ({"epochs": 0}, ValueError, "epochs is 0"),
    ({"batch_size": 0}, ValueError, "batch_size is 0"),
    ({"batch_size": 2.5}, TypeError, "batch_size"),
    ({"seed": -1}, ValueError, "seed"),
    ({"labels": np.zeros(39, int)}, ValueError, "labels"),
    ({"labels": np.zeros(40)}, TypeError, "labels"),
    ({"labels": np.full(40, CLASSES)}, ValueError, "from 0 to 3"),
    ({"labels": np.full(40, -1)}, ValueError, "from 0 to 3"),
    ({"images": np.zeros((0, 12, 12, 2), "f4"), "labels": np.zeros(0, int)}, ValueError, "at least one"),
    ({"images": np.zeros((40, 12, 12, 2), np.uint8)}, TypeError, "uint8"),
    ({"images": np.zeros((40, 11, 12, 2), np.float32)}, ValueError, "x.shape"),
])
def test_bad_arguments(options: dict[str, Any], error: type[Exception], word: str) -> None:
    images, labels = data()
    arguments = {"images": images, "labels": labels, "epochs": 1, "progress": False, **options}
    with pytest.raises(error, match=word):
        fit(small(), **arguments)


@pytest.mark.parametrize("make", [
    lambda: SGD(-1.0), lambda: SGD(float("nan")), lambda: SGD(0.1, momentum=1.5),
    lambda: SGD(0.1, decay=-1.0), lambda: SGD(0.1, radius=0.0), lambda: Adam(beta1=1.0),
    lambda: Adam(epsilon=-1.0), lambda: Adam(float("inf")),
])
def test_bad_settings(make: Any) -> None:
    with pytest.raises(ValueError, match="allowed: a"):
        make()


def test_unknown_gradients_are_refused() -> None:
    net = small()
    with pytest.raises(ValueError, match=r"conv9\.weight"):
        SGD().step(net.ops, net.parameters(), {"conv9.weight": np.zeros(1, np.float32)})


@pytest.mark.parametrize("make", [SGD, Adam])
def test_a_step_without_memory_changes_nothing(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    net, optimizer, (images, labels) = small(), make(), data(8)
    before = {name: array.copy() for name, array in net.parameters().items()}
    kept, calls = net.ops.backend.zeros, [0]

    def exhausted(*arguments: Any) -> Any:
        calls[0] += 1
        if calls[0] == 3:
            raise MemoryError
        return kept(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(net.ops.backend, "zeros", exhausted)
        with pytest.raises(MemoryError):
            train_step(net, images, labels, optimizer)
    assert optimizer.steps == 0
    assert all(array.tobytes() == before[name].tobytes() for name, array in net.parameters().items())
    train_step(net, images, labels, optimizer)
    assert optimizer.steps == 1


def test_shifts_move_every_image_by_its_own_step() -> None:
    images = np.random.default_rng(0).integers(1, 256, (60, 9, 7, 1)).astype(np.uint8)
    shifted = Shifts(2, fill=0)(images, np.random.default_rng(4))
    again = Shifts(2, fill=0)(images, np.random.default_rng(4))
    assert shifted.dtype == np.uint8 and shifted.tobytes() == again.tobytes()
    steps = set()
    for before, after in zip(images, shifted, strict=True):
        padded = np.pad(before, ((2, 2), (2, 2), (0, 0)))
        places = [(row, column) for row in range(5) for column in range(5)
                  if (padded[row:row + 9, column:column + 7] == after).all()]
        assert len(places) == 1
        steps.update(places)
    assert len(steps) > 15  # of 25
    assert (Shifts(0)(images, np.random.default_rng(0)) == images).all()
    with pytest.raises(ValueError, match="most is -1"):
        Shifts(-1)


def test_augmented_runs_repeat_and_differ() -> None:
    first, second = (trained(SGD(0.05), augment=Shifts(1)) for _ in range(2))
    plain = trained(SGD(0.05))
    assert all(first[name].tobytes() == second[name].tobytes() for name in first)
    assert any(first[name].tobytes() != plain[name].tobytes() for name in first)
