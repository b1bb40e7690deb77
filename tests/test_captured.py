"""A captured training step on the stand-in for CuPy: recorded once, the plain step's bits at every launch.

The stand-in records what the step gives its stream and runs it again; no CUDA graph has been made. Skipped where the
emulated kernels are not built (make emulated).
"""

from __future__ import annotations

import numpy as np
import pytest
import stand_in

from zfcore import Network, backends, ops
from zfcore.layers import AveragePool, BatchNorm, Convolution, Dropout, Flatten, Linear, MaxPool, ResponseNorm
from zfcore.training import SGD, Adam, CapturedStep, NonFiniteLoss, Observer, fit, train_step

if backends.why_not("emulated"):
    pytest.skip("the emulated kernels are not built (make emulated)", allow_module_level=True)

LABELS = np.array([0, 3, 1])


@pytest.fixture
def cuda():
    with stand_in.installed() as backend:
        stand_in.copies.clear()
        yield backend


stored = pytest.mark.parametrize("storage", ["float32", "bfloat16"])


def network(backend: str = "cuda", norm: bool = True, storage: str = "float32") -> Network:
    net = Network("small", (13, 11, 3), scheme="he", backend=backend, storage=storage)
    net.add("conv1", Convolution(6, 3, stride=2, padding=1, activation="relu"))
    net.add("norm1", ResponseNorm(3))
    net.add("pool1", MaxPool(2, 1))
    if norm:
        net.add("batch1", BatchNorm())
    net.add("mean1", AveragePool(2, 1, padding=1, divisor="window"))
    net.add("flat", Flatten())
    net.add("fc2", Linear(7, activation="relu"))
    net.add("drop2", Dropout(0.5))
    net.add("fc3", Linear(4))
    return net.initialize(3)


def images(seed: int, count: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, 13, 11, 3)).astype(np.float32)


def values(net: Network) -> dict[str, np.ndarray]:
    return {name: np.array(backends.to_numpy(array)) for name, array in net.parameters().items()}


def optimizers():
    return [SGD(learning_rate=0.1, decay=1e-3, radius=0.1, factors={"fc3": 10.0}),
            SGD(learning_rate=0.1, rate_in_velocity=False),
            Adam(learning_rate=0.01, decay=1e-3, factors={"conv1": 0.5})]


@stored
@pytest.mark.parametrize("place", range(3))
def test_the_bits_of_the_plain_step(cuda, place, storage):
    """Other images, labels, rates and masks in every step: what was recorded reads them from memory."""
    results = []
    for captured in (False, True):
        net, optimizer = network(storage=storage), optimizers()[place]
        step_of = CapturedStep(net, optimizer, seed=5, frozen=("conv1",) if place == 1 else ()) if captured else None
        losses = []
        for step in range(4):
            optimizer.learning_rate = 0.1 / (1 + step)
            labels = (LABELS + step) % 4
            losses.append(step_of(images(step), labels, step) if step_of else
                          train_step(net, images(step), labels, optimizer, seed=5, step=step,
                                     frozen=("conv1",) if place == 1 else ()))
        results.append((losses, values(net), {key: backends.to_numpy(each) for key, each in optimizer.state.items()},
                        optimizer.steps))
    (losses, parameters, state, steps), (others_losses, others, others_state, others_steps) = results
    assert losses == others_losses
    assert len({loss for loss, _ in losses}) == 4
    assert steps == others_steps == 4
    for one, other in ((parameters, others), (state, others_state)):
        assert one.keys() == other.keys()
        for name, array in one.items():
            np.testing.assert_array_equal(array, other[name])


@stored
def test_nothing_is_allocated_and_little_copied(cuda, storage):
    """After the first step: the batch, labels, counter and rates up, losses and probabilities down, no memory."""
    net, optimizer = network(storage=storage), SGD(learning_rate=0.1, radius=0.1)
    step_of = CapturedStep(net, optimizer)
    step_of(images(0), LABELS, 0)
    pools = stand_in._pools[0], step_of._recording._pool
    asked, held = [pool.asked for pool in pools], step_of._recording.bytes
    assert asked[1] > 20
    stand_in.copies.clear()
    for step in range(1, 4):
        step_of(images(step), LABELS, step)
    assert [pool.asked for pool in pools] == asked
    assert step_of._recording.bytes == held
    assert stand_in.copies == {"up": 3 * 4, "down": 3 * 2}
    stand_in.copies.clear()
    step_of(cuda.asarray(images(4)), LABELS, 4)  # a batch that is on the device stays there
    assert stand_in.copies == {"up": 1 + 3, "down": 2}


@stored
def test_recording_asks_the_device_for_nothing(cuda, storage):
    """The step that is recorded finds its memory in the pool, where the one before has left it."""
    net = network(storage=storage)
    step_of = CapturedStep(net, SGD(learning_rate=0.1))
    record, asked = step_of._recording.record, []
    pool = step_of._recording._pool

    def watched(work):
        asked.append(pool.asked)
        result = record(work)
        asked.append(pool.asked)
        return result

    step_of._recording.record = watched
    step_of(images(0), LABELS, 0)
    assert asked[0] == asked[1]


@stored
def test_a_loss_that_is_not_finite(cuda, storage):
    """No parameter moves, and the step does not count, as with the plain one; the next step goes on."""
    for optimizer in (SGD(learning_rate=0.1, radius=0.1), Adam()):
        net = network(norm=False, storage=storage)
        step_of = CapturedStep(net, optimizer)
        for step in range(2):
            step_of(images(step), LABELS, step)
        before, state = values(net), {key: backends.to_numpy(each) for key, each in optimizer.state.items()}
        bad = images(2)
        bad[1, 2, 3, 1] = np.nan
        with pytest.raises(NonFiniteLoss, match="at step 2; .* from 'input'"):
            step_of(bad, LABELS, 2)
        for name, array in values(net).items():
            np.testing.assert_array_equal(array, before[name])
        for name, array in optimizer.state.items():
            np.testing.assert_array_equal(cuda.to_numpy(array), state[name])
        assert optimizer.steps == 2
        step_of(images(3), LABELS, 3)
        assert any((array != before[name]).any() for name, array in values(net).items())


def test_other_arrays_are_recorded_anew(cuda):
    nets, optimizer = [network(), network()], SGD(learning_rate=0.1)
    step_of = CapturedStep(nets[0], optimizer)
    step_of(images(0), LABELS, 0)
    nets[0].load_parameters(values(nets[1]))
    plain = SGD(learning_rate=0.1)
    for step in range(4):
        if step % 2 == 0:  # the first time with the parameters, then alone
            optimizer.state.clear()
            plain.state.clear()
        assert step_of(images(step), LABELS, step) == train_step(nets[1], images(step), LABELS, plain, step=step)
    for name, array in values(nets[0]).items():
        np.testing.assert_array_equal(array, values(nets[1])[name])


def test_training(cuda):
    """The loop: smaller batches, and steps that an observer looks into, kernel by kernel; the bits of a plain run."""

    class Looking(Observer):
        def wanted(self, training):
            return ("conv1",) if training.step == 1 else ()

    results = []
    for captured in (False, True):
        net = network()
        history = fit(net, images(0, 11), np.arange(11) % 4, epochs=2, batch_size=3, captured=captured, progress=False,
                      callback=Looking(), validation=(images(1, 4), np.arange(4)),
                      schedule=lambda epoch: 0.1 / (epoch + 1))
        results.append(([(each.loss, each.validation.loss) for each in history], values(net)))
    assert results[0][0] == results[1][0]
    for name, array in results[0][1].items():
        np.testing.assert_array_equal(results[1][1][name], array)


def test_what_cannot_be_is_refused(cuda):
    with pytest.raises(ValueError, match="CapturedStep: backend is 'numba'; allowed: 'cuda', which records steps"):
        CapturedStep(network("numba"), SGD())
    with pytest.raises(ValueError, match="backend is 'numba'"):
        fit(network("numba"), images(0), LABELS, epochs=1, captured=True, progress=False)
    net = network()
    step_of = CapturedStep(net, SGD(learning_rate=0.1))
    with pytest.raises(IndexError, match="CapturedStep: labels is 4; allowed: a class from 0 to 3"):
        step_of(images(0), np.array([0, 4, 1]), 0)
    step_of(images(0), LABELS, 0)
    with pytest.raises(ValueError, match="batch.shape is .2, 13, 11, 3.; allowed: .3, 13, 11, 3., as recorded"):
        step_of(images(0, 2), LABELS[:2], 1)
    x, rate, count = (np.ones(shape, kind) for shape, kind in (((2, 3), np.float32), (1, np.float64), (1, np.uint64)))
    numba = backends.get("numba")
    with pytest.raises(ValueError, match="learning_rate is 'an array on the backend numba'; allowed: a number"):
        ops.sgd_step(x, x + 1, x + 2, learning_rate=rate, backend=numba)
    with pytest.raises(ValueError, match="dropout: step is 'an array of uint64 .1,. on the backend numba'"):
        ops.dropout(x, 0.5, seed=1, step=count, backend=numba)
    there = [cuda.asarray(each) for each in (x, x, x, x)]
    for wrong in (np.ones(2), np.ones(1, np.float32)):
        with pytest.raises(ValueError, match="or one of float64"):
            ops.sgd_step(*there[:3], learning_rate=cuda.asarray(wrong))
    with pytest.raises(ValueError, match="adam_step: step is 1; allowed: in memory as the learning rate is"):
        ops.adam_step(*there, step=1, learning_rate=cuda.asarray(rate))


def test_another_arithmetic_is_recorded_anew(cuda):
    results = []
    for captured in (False, True):
        net, optimizer, losses = network(), SGD(learning_rate=0.1), []
        step_of = CapturedStep(net, optimizer)
        for step, (net.storage, net.precision) in enumerate([("float32", None), ("float32", None), ("bfloat16", None),
                                                             ("bfloat16", "float32"), ("float32", "tf32")]):
            losses.append(step_of(images(step), LABELS, step) if captured else
                          train_step(net, images(step), LABELS, optimizer, step=step))
        results.append((losses, values(net)))
        net.storage, net.precision = "float16", None
        with pytest.raises(ValueError, match="storage is 'float16'; allowed: 'float32' or 'bfloat16': gradients below"):
            step_of(images(0), LABELS, 5)
    assert results[0][0] == results[1][0]
    for name, array in results[0][1].items():
        np.testing.assert_array_equal(results[1][1][name], array)


def test_recorded_work_copies_nothing_from_the_host(cuda):
    recording = cuda.recording()
    with pytest.raises(RuntimeError, match="an array of the host's inside recorded work"):
        recording.record(lambda: cuda.asarray(np.ones(3)))
    with pytest.raises(RuntimeError, match="capturing"):
        recording.record(lambda: cuda.to_numpy(cuda.zeros(3, np.float32)))
    made = recording.record(lambda: ops.relu(cuda.zeros((2, 2), np.float32)))
    recording.launch()
    np.testing.assert_array_equal(cuda.to_numpy(made), np.zeros((2, 2), np.float32))
