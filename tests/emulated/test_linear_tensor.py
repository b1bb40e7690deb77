"""Linear layers on emulated tensor cores: exact on integers, near float64 else, a row's bits its own."""

from __future__ import annotations

import numpy as np
import pytest

from zfcore import backends

from .launch import run
from .storage import STORAGES, stored, wide
from .test_convolution import integers
from .test_tensor_cores import PLAIN, TF32, TF32X3, gamma

emulated = backends.get("emulated")
EVERY = [("tf32", TF32, np.float32, 0.0, 0.0), ("tf32x3", TF32X3, np.float32, 0.0, 0.0), *STORAGES]
IDS = [storage[0] for storage in EVERY]


def kept(array, storage):
    """An array of float32 as the storage has it."""
    return array if storage[2] is np.float32 else stored(array, storage)


def workspace(rows, columns, terms, precision):
    return emulated.empty(emulated.extension.linear_workspace(rows, columns, terms, precision), np.float32)


def forward(x, weight, bias, relu, storage, room, precision=None):
    y = emulated.empty((len(x), len(weight)), storage[2])
    run("linear_forward", y, room, x, weight, bias, relu, storage[1] if precision is None else precision)
    return y


def input_gradient(dy, weight, storage, room, precision=None):
    dx = emulated.empty((len(dy), weight.shape[1]), storage[2])
    run("linear_input_gradient", dx, room, dy, weight, storage[1] if precision is None else precision)
    return dx


@pytest.mark.parametrize("storage", EVERY, ids=IDS)
@pytest.mark.parametrize(("rows", "inputs", "outputs"), [
    (3, 600, 70), (1, 1, 1), (130, 70, 65), (0, 8, 4), (5, 520, 7), (33, 136, 72), (2, 24, 544), (3, 513, 3)])
def test_exact_on_integers(rows, inputs, outputs, storage):
    """Sums of small integers are exact: on tensor cores in pieces and whole, and on plain arithmetic."""
    x, weight, bias = (integers(shape, np.float32, seed) for seed, shape in
                       enumerate(((rows, inputs), (outputs, inputs), outputs)))
    dy = integers((rows, outputs), np.float32, 3)
    y, dx = np.maximum(x @ weight.T + bias, 0), dy @ weight
    given = [kept(array, storage) for array in (x, weight, dy)]
    for precision in (storage[1], PLAIN):
        for room in (True, False):
            y_room, dx_room = (workspace(rows, *sizes, precision) if room else None
                               for sizes in ((outputs, inputs), (inputs, outputs)))
            np.testing.assert_array_equal(forward(*given[:2], bias, True, storage, y_room, precision), kept(y, storage))
            np.testing.assert_array_equal(input_gradient(given[2], given[1], storage, dx_room, precision),
                                          kept(dx, storage))


@pytest.mark.parametrize("storage", [EVERY[0], *STORAGES], ids=["tf32", "float16", "bfloat16"])
def test_rounding_bound(storage):
    """As for convolutions: sums in float32, of exact products or of factors rounded to tf32."""
    name, _, _, unit, step = storage
    generator = np.random.default_rng(0)
    x, weight = (kept(generator.standard_normal(shape).astype(np.float32), storage) for shape in ((4, 700), (9, 700)))
    wide_x, wide_weight = (array.astype(np.float64) if name == "tf32" else wide(array).astype(np.float64)
                           for array in (x, weight))
    exact, size = wide_x @ wide_weight.T, abs(wide_x) @ abs(wide_weight).T
    error = (gamma(702, 2.0**-23) + (2 * 2.0**-11 + 2.0**-22 if name == "tf32" else 0)) * size
    bound = error + unit * (abs(exact) + error) + step / 2
    y = forward(x, weight, None, False, storage, workspace(4, 9, 700, storage[1]))
    got = y if name == "tf32" else wide(y)
    assert (abs(got - exact) <= bound).all()
    assert (abs(got - exact) > bound / 500).any()


@pytest.mark.parametrize("storage", EVERY, ids=IDS)
def test_a_row_does_not_depend_on_the_others(storage):
    """Pieces of terms in many blocks, or all in one; of one row, a few, more than a tile: the bits are the same."""
    generator = np.random.default_rng(0)
    x, weight = (kept(generator.standard_normal((rows, 584)).astype(np.float32), storage) for rows in (131, 24))
    bias = generator.standard_normal(24).astype(np.float32)
    room = workspace(131, 24, 584, storage[1])
    assert room.size == 131 * 24 * 2  # pieces of 320 terms
    first = forward(x, weight, bias, False, storage, room)
    transposed = np.ascontiguousarray(weight.T)
    dx = input_gradient(x, transposed, storage, room)
    if storage[2] is np.float32:  # else two sums may round to the same 16 bits
        assert (first[:4] != forward(x[:4], weight, bias, False, storage, None, PLAIN)).any()
    for begin, end in ((0, 131), (0, 1), (130, 131), (64, 99)):
        part = np.ascontiguousarray(x[begin:end])
        for given in (workspace(end - begin, 24, 584, storage[1]), None):
            np.testing.assert_array_equal(forward(part, weight, bias, False, storage, given), first[begin:end])
            np.testing.assert_array_equal(input_gradient(part, transposed, storage, given), dx[begin:end])


def test_pieces_do_not_depend_on_rows():
    """As many as make the blocks some 256 with the tiles of columns, each of 256 terms at least."""
    def pieces(rows, columns, terms):
        return emulated.extension.linear_workspace(rows, columns, terms, TF32) / (rows * columns)

    # Two tiles of rows times 64 of columns are enough blocks.
    assert [pieces(rows, 4096, 9216) for rows in (1, 100, 128, 129)] == [4, 4, 4, 0]
    assert [pieces(1, columns, 4096) for columns in (1, 10, 1000, 4096, 8128, 8192)] == [16, 16, 16, 4, 2, 0]
    assert [pieces(1, 10, terms) for terms in (0, 1, 511, 512, 513, 576)] == [0, 0, 2, 2, 2, 2]


@pytest.mark.parametrize("storage", EVERY, ids=IDS)
def test_what_lies_beyond_the_terms_stays_out(storage):
    """The last step has more terms than are left: the next row's NaN is not even multiplied by 0."""
    x, weight = integers((6, 600), np.float32, 0), integers((70, 600), np.float32, 1)
    x[2, 0] = weight[5, 0] = np.nan
    given, room = [kept(array, storage) for array in (x, weight)], workspace(6, 70, 600, storage[1])
    np.testing.assert_array_equal(forward(*given, None, False, storage, room), kept(x @ weight.T, storage))
    dy, weight = integers((4, 70), np.float32, 2), integers((70, 72), np.float32, 3)
    dy[3, 0] = np.nan
    dx = input_gradient(kept(dy, storage), kept(weight, storage), storage, workspace(4, 72, 70, storage[1]))
    np.testing.assert_array_equal(dx, kept(dy @ weight, storage))


def test_too_small_a_workspace_is_refused():
    x, weight = np.ones((3, 600), np.float32), np.ones((70, 600), np.float32)
    for precision in (PLAIN, TF32):
        room = workspace(3, 70, 600, precision)[:-1].copy()
        with pytest.raises(ValueError, match="too small a workspace"):
            forward(x, weight, None, False, EVERY[0], room, precision)
        with pytest.raises(ValueError, match="too small a workspace"):
            input_gradient(np.ones((3, 600), np.float32), np.ones((600, 70), np.float32), EVERY[0], room, precision)
