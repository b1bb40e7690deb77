"""Points in the plane onto a grid, one a cell, so that pictures laid out by them do not overlap."""

from __future__ import annotations

import numpy as np

from .. import checks

__all__ = ["grid_layout"]

EXACT = 1500  # points up to which the best assignment is computed; its time grows with the cube


def grid_layout(points: np.ndarray, rows: int | None = None, columns: int | None = None) -> np.ndarray:
    """A cell of its own for every point, near to where it lies.

    Up to 1,500 points the assignment has the least sum of squared distances (SciPy); above that the points are
    cut at the median, across the longer side, again and again.

    Parameters
    ----------
    points : (N, 2), x to the right and y upwards
    rows, columns : of the grid; None: about square, as few cells as hold the points

    Returns
    -------
    int (N, 2), row and column of each point; row 0 is at the top
    """
    where = "grid_layout"
    points = np.asarray(points, np.float64)
    checks.require(points.ndim == 2 and points.shape[1] == 2, where, "points.shape", points.shape, "(N, 2)")
    checks.require(bool(np.isfinite(points).all()), where, "points", "not finite", "finite numbers")
    count = len(points)
    if columns is None:
        columns = max(-(-count // rows), 1) if rows else max(int(np.ceil(np.sqrt(count))), 1)
    rows = max(-(-count // columns), 1) if rows is None else rows
    checks.integer(where, "rows", rows, 1)
    checks.integer(where, "columns", columns, 1)
    checks.require(rows * columns >= count, where, "(rows, columns)", (rows, columns), f"at least {count} cells")
    low, extent = (points.min(axis=0), np.ptp(points, axis=0)) if count else (0.0, 1.0)
    unit = (points - low) / np.where(np.asarray(extent) > 0, extent, 1)
    places = np.stack([(1 - unit[:, 1]) * (rows - 1), unit[:, 0] * (columns - 1)], axis=1)
    if count <= EXACT:
        from scipy.optimize import linear_sum_assignment

        cells = np.stack(np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij"), axis=-1).reshape(-1, 2)
        costs = np.square(places[:, None] - cells[None]).sum(axis=2)
        return cells[linear_sum_assignment(costs)[1]]
    result = np.zeros((count, 2), np.intp)
    _divide(places, np.arange(count), (0, rows), (0, columns), result)
    return result


def _divide(places: np.ndarray, members: np.ndarray, rows: tuple[int, int], columns: tuple[int, int],
            result: np.ndarray) -> None:
    """Give `members` the cells of a rectangle that holds at least as many."""
    height, width = rows[1] - rows[0], columns[1] - columns[0]
    if not len(members):
        return
    if height == width == 1:
        result[members] = rows[0], columns[0]
        return
    axis = 0 if height > width else 1
    span = (rows, columns)[axis]
    middle = (span[0] + span[1]) // 2
    other = width if axis == 0 else height
    first_cells, last_cells = (middle - span[0]) * other, (span[1] - middle) * other
    order = members[np.argsort(places[members, axis], kind="stable")]
    share = round(len(members) * first_cells / (first_cells + last_cells))
    share = min(max(share, len(members) - last_cells), first_cells)
    for part, bounds in ((order[:share], (span[0], middle)), (order[share:], (middle, span[1]))):
        _divide(places, part, bounds if axis == 0 else rows, columns if axis == 0 else bounds, result)
