"""The small matrices of Winograd's algorithm, and the vector code that multiplies by them.

F(m, r) computes m outputs of a filter of r taps with m + r - 1 products (Winograd 1980; Lavin & Gray,
arXiv 1509.09308): y = A'[(G g) * (B' d)], where d are m + r - 1 inputs and * is element by element.
In two dimensions each matrix is applied to columns, then to rows. The matrices come from polynomial
evaluation (Toom and Cook) at 0, +-5/8, +-5/4 and infinity, or at 0, +-1 and infinity. The usual +-1, +-2
need the same work, but errors here are 2.5 times smaller, and A and B are exact in float32 all the same.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .compile import kernel
from .instructions import INT64, _Emitter


class Scheme(NamedTuple):
    """F(tile, taps) in each direction: `points` = tile + taps - 1 products, at these numbers and infinity."""

    number: int
    tile: int
    taps: int
    numbers: tuple[float, ...]

    @property
    def points(self) -> int:
        return self.tile + self.taps - 1


EXACT = Scheme(0, 2, 3, (0, 1, -1))  # on small integers it is exact: halves are its only fractions
LARGE = Scheme(1, 4, 3, (0, 0.625, -0.625, 1.25, -1.25))
LONG = Scheme(2, 2, 5, (0, 0.625, -0.625, 1.25, -1.25))  # for 5 x 5 filters
SCHEMES = (EXACT, LARGE, LONG)


class Matrices(NamedTuple):
    """A' (tile, points), G (points, taps) and B' (points, points), float64."""

    output: np.ndarray
    filter: np.ndarray
    input: np.ndarray


def matrices(scheme: Scheme) -> Matrices:
    """The three matrices of a scheme; the last point is infinity, where the last coefficient is read."""
    points = scheme.points
    output, filters = np.zeros((scheme.tile, points)), np.zeros((points, scheme.taps))
    inputs = np.zeros((points, points))
    for j, number in enumerate(scheme.numbers):
        others = [other for other in scheme.numbers if other != number]
        output[:, j] = [number**i for i in range(scheme.tile)]
        filters[j] = [number**k / np.prod([number - other for other in others]) for k in range(scheme.taps)]
        inputs[j, : points - 1] = np.poly(others)[::-1]
    output[-1, -1] = filters[-1, -1] = 1
    inputs[-1] = np.poly(scheme.numbers)[::-1]
    return Matrices(output, filters, inputs)


def _combine(emit: _Emitter, matrix: np.ndarray, values: list[Any]) -> list[Any]:
    """matrix times a column of vectors; zeros and ones cost nothing.

    Where two rows differ in the sign of every other number only, both are made of two shared sums.
    """

    def total(row: np.ndarray, places: Any) -> Any:
        result = None
        for place in places:
            factor = float(row[place])
            if factor == 0:
                continue
            if result is None and factor == 1:
                result = values[place]
            elif result is None:
                result = emit.builder.fmul(constant(factor), values[place])
            elif abs(factor) == 1:
                operation = emit.builder.fadd if factor == 1 else emit.builder.fsub
                result = operation(result, values[place])
            else:
                result = emit.multiply_add(constant(factor), values[place], result)
        return result

    def constant(value: float) -> Any:
        return ir.Constant(emit.vector, [value] * emit.lanes)

    columns = range(matrix.shape[1])
    signs = np.array([(-1) ** column for column in columns])
    results: list[Any] = []
    while len(results) < len(matrix):
        row = matrix[len(results)]
        twin = len(results) + 1 < len(matrix) and np.array_equal(matrix[len(results) + 1], row * signs)
        if twin and np.count_nonzero(row[::2]) and np.count_nonzero(row[1::2]):
            even, odd = total(row, columns[::2]), total(row, columns[1::2])
            results += [emit.builder.fadd(even, odd), emit.builder.fsub(even, odd)]
        else:
            results.append(total(row, sorted(columns, key=lambda column: row[column] != 1)))
    return results


def _transform(matrix: np.ndarray) -> Any:
    """Make out = matrix * source * matrix', for `vectors` vectors of neighbouring channels.

    Cells of the source and of the output lie `row` and `column` numbers apart.
    """
    rows, columns = matrix.shape

    @intrinsic
    def transform(typing: Any, out: Any, out_start: Any, out_row: Any, out_column: Any, source: Any,
                  source_start: Any, source_row: Any, source_column: Any, vectors: Any) -> Any:
        number = types.int64
        signature = types.void(out, number, number, number, source, number, number, number, number)

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            emit = _Emitter(context, builder, signature, arguments)
            targets, sources = emit.pointer(0), emit.pointer(4)

            def offsets(row: Any, column: Any, height: int, width: int) -> list[list[Any]]:
                return [[builder.add(builder.mul(INT64(i), row), builder.mul(INT64(j), column))
                         for j in range(width)] for i in range(height)]

            into = offsets(arguments[2], arguments[3], rows, rows)
            places = offsets(arguments[6], arguments[7], columns, columns)

            def step(pointers: list[Any]) -> list[Any]:
                target, origin = pointers
                half = [_combine(emit, matrix, [emit.load(emit.move(origin, places[i][j])) for i in range(columns)])
                        for j in range(columns)]  # half[column][row]
                for i in range(rows):
                    for j, value in enumerate(_combine(emit, matrix, [half[c][i] for c in range(columns)])):
                        emit.store(value, emit.move(target, into[i][j]))
                return [emit.move(pointer, emit.lanes) for pointer in pointers]

            emit.loop(arguments[8], [targets, sources], step)
            return context.get_dummy_value()

        return signature, generate

    return transform


_MATRICES = [matrices(scheme) for scheme in SCHEMES]
_input4, _input6 = _transform(_MATRICES[0].input), _transform(_MATRICES[1].input)
_filter0, _filter1, _filter2 = (_transform(each.filter) for each in _MATRICES)
_output0, _output1, _output2 = (_transform(each.output) for each in _MATRICES)
_signal0, _signal1, _signal2 = (_transform(each.output.T.copy()) for each in _MATRICES)
_taps0, _taps1, _taps2 = (_transform(each.filter.T.copy()) for each in _MATRICES)


@kernel
def transform_input(scheme, out, out_start, out_row, out_column, source, start, row, column, vectors):
    """B' d B: from input cells to points."""
    if scheme == 0:
        _input4(out, out_start, out_row, out_column, source, start, row, column, vectors)
    else:
        _input6(out, out_start, out_row, out_column, source, start, row, column, vectors)


@kernel
def transform_filter(scheme, out, out_start, out_row, out_column, source, start, row, column, vectors):
    """G g G': from taps to points."""
    if scheme == 0:
        _filter0(out, out_start, out_row, out_column, source, start, row, column, vectors)
    elif scheme == 1:
        _filter1(out, out_start, out_row, out_column, source, start, row, column, vectors)
    else:
        _filter2(out, out_start, out_row, out_column, source, start, row, column, vectors)


@kernel
def transform_output(scheme, out, out_start, out_row, out_column, source, start, row, column, vectors):
    """A' m A: from points to output cells."""
    if scheme == 0:
        _output0(out, out_start, out_row, out_column, source, start, row, column, vectors)
    elif scheme == 1:
        _output1(out, out_start, out_row, out_column, source, start, row, column, vectors)
    else:
        _output2(out, out_start, out_row, out_column, source, start, row, column, vectors)


@kernel
def transform_signal(scheme, out, out_start, out_row, out_column, source, start, row, column, vectors):
    """A dy A': from signals at output cells to points, the adjoint of `transform_output`."""
    if scheme == 0:
        _signal0(out, out_start, out_row, out_column, source, start, row, column, vectors)
    elif scheme == 1:
        _signal1(out, out_start, out_row, out_column, source, start, row, column, vectors)
    else:
        _signal2(out, out_start, out_row, out_column, source, start, row, column, vectors)


@kernel
def transform_taps(scheme, out, out_start, out_row, out_column, source, start, row, column, vectors):
    """G' m G: from points to taps, the adjoint of `transform_filter`."""
    if scheme == 0:
        _taps0(out, out_start, out_row, out_column, source, start, row, column, vectors)
    elif scheme == 1:
        _taps1(out, out_start, out_row, out_column, source, start, row, column, vectors)
    else:
        _taps2(out, out_start, out_row, out_column, source, start, row, column, vectors)
