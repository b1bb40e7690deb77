"""Gradient ascent on the input: images that a unit, a map, a layer or a class would like to see."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import checks
from ..network import Network, unchanging
from ..units import PRE, Unit
from . import penalties
from .progress import bar
from .result import Synthesis, channels_of
from .steps import STEPS, Climber, amplitude
from .targets import ALL, Targets, of_units, pull

__all__ = ["PRESETS", "Settings", "ascent", "presets"]

STARTS = ("zero", "noise")


@dataclass(frozen=True)
class Settings:
    """How an image is climbed. Lengths are in amplitudes: 64 gray levels in the network's numbers (1 without
    a preprocessing), so that settings carry over from network to network.

    Attributes
    ----------
    steps : how many
    step : "plain": x += rate * amplitude ** 2 * g; "normalized": x += rate * amplitude * g / rms(g), every row by
        itself; "adam": of rate * amplitude
    rate : of a step
    start : "zero" (the mean image) or "noise"
    noise : standard deviation of the noise
    l1, l2 : weights of the sums of |x| and of x ** 2 / 2
    variation, beta : weight of total variation R_beta, and its exponent
    blur, blur_every : standard deviation in pixels of a Gaussian blur, and after how many steps it comes
    small_pixels : percentile: pixels of a smaller norm become 0 after each step
    small_gradients : percentile: pixels whose |x * g| is smaller become 0 after each step
    jitter : the image is shifted by up to so many pixels for each gradient, and back
    limits : keep x within what pixels can show
    """

    steps: int = 100
    step: str = "normalized"
    rate: float = 0.05
    start: str = "noise"
    noise: float = 0.1
    l1: float = 0.0
    l2: float = 0.0
    variation: float = 0.0
    beta: float = 2.0
    blur: float = 0.0
    blur_every: int = 4
    small_pixels: float = 0.0
    small_gradients: float = 0.0
    jitter: int = 0
    limits: bool = True

    def __post_init__(self) -> None:
        where = "ascent"
        checks.integer(where, "steps", self.steps, 0)
        checks.one_of(where, "step", self.step, STEPS)
        checks.one_of(where, "start", self.start, STARTS)
        checks.integer(where, "blur_every", self.blur_every, 1)
        checks.integer(where, "jitter", self.jitter, 0)
        for name in ("rate", "noise", "l1", "l2", "variation", "beta", "blur"):
            value = getattr(self, name)
            valid = isinstance(value, (int, float)) and 0 <= value < float("inf")
            checks.require(valid, where, name, value, "a finite number >= 0")
        for name in ("small_pixels", "small_gradients"):
            value = getattr(self, name)
            checks.require(0 <= value < 100, where, name, value, "a percentile, 0 <= value < 100")


PRESETS: dict[str, Settings] = {
    "default": Settings(steps=120, rate=0.1, l2=0.0005, blur=1.0, blur_every=4, jitter=4),
    "plain": Settings(),  # nothing that keeps images like images: see what that gives
    # The student study: 20 steps on the mean of a map; step 0.5 and an L1 penalty of 0.1 on class scores.
    "study-map": Settings(steps=20, step="normalized", rate=0.5, start="noise"),
    "study-class": Settings(steps=200, step="normalized", rate=0.5, l1=0.1, start="zero"),
    # Yosinski et al. 2015, table 1: decay, blur width and period, and the percentiles of pixels of small norm and
    # of small contribution that become 0; the length of a step is ours.
    "yosinski-1": Settings(steps=300, rate=0.05, blur=0.5, blur_every=4, small_pixels=50),
    "yosinski-2": Settings(steps=300, rate=0.05, l2=0.3, small_pixels=20),
    "yosinski-3": Settings(steps=300, rate=0.05, l2=0.0001, blur=1.0, blur_every=4),
    "yosinski-4": Settings(steps=300, rate=0.05, blur=0.5, blur_every=4, small_gradients=90),
}


def presets() -> list[str]:
    """Names of the settings that come with names."""
    return list(PRESETS)


def settings_of(settings: Settings | str, changes: Mapping[str, Any]) -> Settings:
    """Settings from a preset's name, with changes."""
    if isinstance(settings, str):
        checks.one_of("ascent", "settings", settings, PRESETS)
        settings = PRESETS[settings]
    unknown = set(changes) - {item.name for item in dataclasses.fields(Settings)}
    checks.require(not unknown, "ascent", "settings", sorted(unknown),
                   ", ".join(item.name for item in dataclasses.fields(Settings)))
    return dataclasses.replace(settings, **changes)


def read_targets(network: Network, target: Any) -> Targets:
    """Targets of a class, a unit, or a list of classes or of units of one layer; a row each."""
    if isinstance(target, np.ndarray):
        target = target.tolist()
    items = list(target) if isinstance(target, Sequence) and not isinstance(target, (str, Unit)) else [target]
    checks.require(bool(items), "ascent", "target", items, "a class or unit, or a list of one or more")
    if isinstance(items[0], (str, Unit)):
        return of_units(network, items)
    shape = network.tensor_shape(network.logits)
    if len(shape) != 1:
        checks.fail("ascent", "target", target, "a unit: the network ends in maps and has no classes")
    for item in items:
        checks.integer("ascent", "class", item, 0)
        checks.require(item < shape[0], "ascent", "class", item, f"0 to {shape[0] - 1}")
    everywhere = np.full(len(items), ALL, np.intp)
    return Targets(network.logits, np.array(items, np.intp), everywhere, everywhere, classes=True)


def starts(network: Network, count: int, settings: Settings, start: Any, seed: int) -> np.ndarray:
    """Images to climb from: of the settings, or given ones (one for all, or one a row)."""
    shape = network.input_shape
    if start is not None:
        given = np.asarray(start)
        checks.floats("ascent", "start", given)
        given = given[None] if given.ndim == 3 else given
        network._check_input(given)
        checks.require(len(given) in (1, count), "ascent", "len(start)", len(given), f"1 or {count}")
        return np.broadcast_to(given, (count, *shape)).copy()
    x = np.zeros((count, *shape), np.float32)
    if settings.start == "noise":
        for row in range(count):
            x[row] = _noise(network, settings.noise, seed, row)
    return x


def _noise(network: Network, size: float, seed: int, row: int) -> np.ndarray:
    generator = np.random.default_rng([seed, row])
    return np.float32(size * amplitude(network)) * generator.standard_normal(network.input_shape, np.float32)


@unchanging
def ascent(network: Network, target: Any, settings: Settings | str = "default", *, start: Any = None,
           seed: int = 0, batch_size: int = 64, progress: bool = False, **changes: Any) -> Synthesis:
    """Climb the score of each target: I* = argmax S(I) - penalties(I).

    Erhan et al., *Visualizing Higher-Layer Features* (2009); Simonyan et al. (2013), section 2; Yosinski et al.,
    *Understanding Neural Networks Through Deep Visualization* (2015). Each penalty's gradient is taken off the
    score's, which is scaled to a root mean square of 1 for "normalized" and "adam" steps: x and the penalties are
    then in amplitudes, and their weights mean the same in every network.

    Parameters
    ----------
    network : with parameters
    target : a class (its score before the softmax), a unit ("conv5:42@6,7"), a map ("conv5:42": its mean), a
        layer, or a list: many units of one layer, or many classes, are climbed in one batch
    settings : Settings or a preset's name (`presets`)
    start : an image, or one for each row (a class's mean image, a photograph), preprocessed; "zero" or "noise";
        None: the settings'
    seed : of noise and jitter; row i does not depend on the other rows
    batch_size : rows in one walk
    progress : show a bar on stderr
    changes : single settings by name, such as steps=50

    Returns
    -------
    Synthesis. Rows without a gradient at the start, nor from noise, nor after climbing what is before their ReLU,
    are `dead`: they keep their start and cost nothing further.

    Raises
    ------
    ValueError : targets, settings or starts that are not allowed
    """
    named = {"start": start} if isinstance(start, str) else {}
    chosen, start = settings_of(settings, {**changes, **named}), None if named else start
    checks.integer("ascent", "batch_size", batch_size, 1)
    checks.integer("ascent", "seed", seed, 0)
    targets = read_targets(network, target)
    x = starts(network, len(targets), chosen, start, seed)
    history = np.zeros((chosen.steps + 1, len(targets)), np.float32)
    dead = np.zeros(len(targets), bool)
    with bar(chosen.steps * -(-len(targets) // batch_size), "ascent", progress) as shown:
        for begin in range(0, len(targets), batch_size):
            rows = np.arange(begin, min(begin + batch_size, len(targets)))
            first = _wake(network, targets, x, rows, seed)
            dead[rows] = ~first[1].any(axis=(1, 2, 3))
            alive = ~dead[rows]
            if alive.any():
                climbed = rows[alive]
                x[climbed], history[:, climbed] = _climb(network, x[climbed], targets[climbed], chosen, seed,
                                                         (first[0][alive], first[1][alive]), shown)
            history[:, rows[~alive]] = first[0][~alive]
    described = {**dataclasses.asdict(chosen), "seed": seed, "given_start": start is not None}
    return Synthesis("ascent", x, history, targets.names(), dead, described, channels_of(network))


def _wake(network: Network, targets: Targets, x: np.ndarray, rows: np.ndarray, seed: int
          ) -> tuple[np.ndarray, np.ndarray]:
    """Scores and gradients at the start; rows without a gradient get other starts.

    First noise, more and more of it; then what 30 steps from noise make that climb the score before the ReLU. A
    row whose gradient is zero in the end is dead, and keeps its start.
    """
    scores, slopes = pull(network, x[rows], targets[rows])
    before = _before_rectification(network, targets)
    for size in (0.1, 0.5, 1.0, 2.0, None):
        asleep = np.flatnonzero(~slopes.any(axis=(1, 2, 3)))
        if size is None:  # a whole layer's score has no one value before its ReLU
            asleep = asleep[targets.maps[rows[asleep]] != ALL] if before is not None else asleep[:0]
        if not len(asleep):
            break
        noise = np.stack([_noise(network, size or 0.5, seed + 1, row) for row in rows[asleep]]).astype(x.dtype)
        trial = noise if size or before is None else _climbed_below(network, before[rows[asleep]], noise)
        found, slope = pull(network, trial, targets[rows[asleep]])
        awake = slope.any(axis=(1, 2, 3))
        woken = asleep[awake]
        x[rows[woken]], scores[woken], slopes[woken] = trial[awake], found[awake], slope[awake]
    return scores, slopes


def _before_rectification(network: Network, targets: Targets) -> Targets | None:
    """The same scores before their layer's ReLU, if it has one."""
    node = network.nodes.get(targets.tensor)
    if node is None:
        return None
    if node.layer.activation == "relu":
        return dataclasses.replace(targets, tensor=targets.tensor + PRE)
    return dataclasses.replace(targets, tensor=node.inputs[0]) if type(node.layer).__name__ == "ReLU" else None


def _climbed_below(network: Network, targets: Targets, x: np.ndarray, steps: int = 30) -> np.ndarray:
    """Images after plain steps of a tenth of an amplitude."""
    rate = x.dtype.type(0.1 * amplitude(network))
    for _ in range(steps):
        slope = pull(network, x, targets)[1]
        size = np.sqrt(np.square(slope).mean(axis=(1, 2, 3), keepdims=True))
        x = x + rate * slope / np.where(size > 0, size, 1)
    return x


def _climb(network: Network, x: np.ndarray, targets: Targets, settings: Settings, seed: int,
           first: tuple[np.ndarray, np.ndarray], shown: Any) -> tuple[np.ndarray, np.ndarray]:
    """All steps of one batch, in amplitudes: numbers of the order of 1, whatever the preprocessing.

    `first` are scores and gradients at x, so that the first step is taken without jitter.
    """
    size = x.dtype.type(amplitude(network))
    x = x / size
    climber = Climber(settings.step, settings.rate)
    history = np.zeros((settings.steps + 1, len(x)), np.float32)
    shifts = np.random.default_rng([seed, 1_000_003])
    low, high = (None, None)
    if settings.limits and network.preprocessing is not None:
        low, high = (limit / size for limit in network.preprocessing.limits(x.shape[1:]))
    for number in range(settings.steps):
        reach = settings.jitter
        shift = tuple(shifts.integers(-reach, reach + 1, 2).tolist()) if reach and number else (0, 0)
        if number:
            moved = np.roll(x, shift, axis=(1, 2)) if any(shift) else x
            history[number], slope = pull(network, moved * size, targets)
        else:
            history[0], slope = first
        if any(shift):
            slope = np.roll(slope, (-shift[0], -shift[1]), axis=(1, 2))
        climber.step(x, _penalised(x, slope * size, settings))
        x = _regularised(x, slope, settings, number)
        if low is not None:
            np.clip(x, low, high, out=x)
        shown.update()
    x *= size
    history[-1] = targets.scores(network.forward(x, to=targets.tensor).output)
    return x, history


def _penalised(x: np.ndarray, slope: np.ndarray, settings: Settings) -> np.ndarray:
    """The score's gradient, scaled where the step has its own length, less the penalties'."""
    if settings.step != "plain":
        length = np.sqrt(np.square(slope).mean(axis=(1, 2, 3), keepdims=True))
        slope = slope / np.where(length > 0, length, 1)
    for weight, penalty in ((settings.l1, penalties.l1), (settings.l2, penalties.l2)):
        if weight:
            slope = slope - x.dtype.type(weight) * penalty(x)[1]
    if settings.variation:
        slope = slope - x.dtype.type(settings.variation) * penalties.total_variation(x, settings.beta)[1]
    return slope


def _regularised(x: np.ndarray, slope: np.ndarray, settings: Settings, number: int) -> np.ndarray:
    """What is done to the images after a step: blur, small pixels and small contributions to zero."""
    if settings.blur and (number + 1) % settings.blur_every == 0:
        from scipy.ndimage import gaussian_filter

        x = gaussian_filter(x, (0, settings.blur, settings.blur, 0), mode="nearest")
    if settings.small_pixels:
        x = _without_small(x, np.sqrt(np.square(x).sum(axis=3)), settings.small_pixels)
    if settings.small_gradients:
        x = _without_small(x, np.abs((x * slope).sum(axis=3)), settings.small_gradients)
    return x


def _without_small(x: np.ndarray, sizes: np.ndarray, percentile: float) -> np.ndarray:
    """Zero the pixels whose size is below a percentile of their own image's."""
    least = np.percentile(sizes, percentile, axis=(1, 2), keepdims=True)
    return np.where((sizes < least)[..., None], x.dtype.type(0), x)
