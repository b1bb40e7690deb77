"""Linear classifiers on fixed features: softmax regression and linear SVMs (scikit-learn), and how they are judged."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import checks

__all__ = ["CLASSIFIERS", "STRENGTHS", "average_precision", "check_choice", "chosen_strength", "class_accuracies",
           "fit_scores", "prepared"]

CLASSIFIERS = ("softmax", "svm")
STRENGTHS = (0.1, 1.0, 10.0, 100.0)
PARTS = 3  # of the training pictures, one held out in turn, when the strength is chosen


def check_choice(where: str, classifier: str, strengths: Sequence[float]) -> None:
    """Refuse an unknown classifier, and strengths to choose from that are none.

    Parameters
    ----------
    where : the operation, for errors
    classifier, strengths : see `chosen_strength`
    """
    checks.one_of(where, "classifier", classifier, CLASSIFIERS)
    checks.require(len(strengths) > 0 and all(0 < each < float("inf") for each in strengths), where, "strengths",
                   strengths, "numbers above 0")


def prepared(train: Any, test: Any) -> tuple[np.ndarray, np.ndarray]:
    """Features brought to mean 0 and deviation 1 of the training pictures, and divided by the root of their number.

    So a picture's features have a length of about 1, whatever the layer, and one strength means the same
    everywhere. Where there are more features than training pictures, both sets are turned into the space that
    the training pictures span: linear classifiers with a quadratic penalty never leave it, so nothing changes
    but the time. A feature that never varies becomes 0.

    Parameters
    ----------
    train, test : (pictures, features)

    Returns
    -------
    train, test : float64, standardised
    """
    rows, others = np.asarray(train, np.float64), np.asarray(test, np.float64)
    mean, deviation = rows.mean(axis=0), rows.std(axis=0)
    scale: np.ndarray = np.where(deviation > 1e-6 * np.abs(mean), 1 / np.where(deviation > 0, deviation, 1), 0.0)
    scale /= float(np.count_nonzero(scale) or 1) ** 0.5
    rows, others = (rows - mean) * scale, (others - mean) * scale
    if rows.shape[1] > rows.shape[0]:
        basis = np.linalg.qr(rows.T)[0]
        return rows @ basis, others @ basis
    return rows, others


def fit_scores(classifier: str, features: np.ndarray, targets: np.ndarray, others: np.ndarray,
               strength: float) -> np.ndarray:
    """Train a classifier and let it judge other pictures.

    Parameters
    ----------
    classifier : "softmax" (for several labels: a logistic regression a class) or "svm" (one against the rest)
    features : (pictures, features), prepared
    targets : int (pictures,) classes from 0, each of which occurs; or 0/1 (pictures, classes) for several labels
    others : (m, features)
    strength : weight of the loss against the quadratic penalty (scikit-learn's C)

    Returns
    -------
    float64 (m, classes) : probabilities, or distances from the SVMs' planes

    Raises
    ------
    ImportError : scikit-learn is not installed
    """
    checks.one_of("fit_scores", "classifier", classifier, CLASSIFIERS)
    try:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression
        from sklearn.svm import LinearSVC
        from threadpoolctl import threadpool_limits  # scikit-learn brings it
    except ImportError as error:
        raise ImportError("linear classifiers need scikit-learn: pip install scikit-learn") from error

    def fitted(labels: np.ndarray) -> np.ndarray:
        # The primal problem, by Newton steps: one minimum with the dual, found in a fraction of the time.
        model = LogisticRegression(C=strength, max_iter=1000) if classifier == "softmax" else \
            LinearSVC(C=strength, dual=False, max_iter=5000, intercept_scaling=10.0)
        model.fit(features, labels)
        return model.predict_proba(others) if classifier == "softmax" else model.decision_function(others)

    # One thread: sums in one order, and no threads that wait for each other over small matrices.
    with threadpool_limits(1, user_api="blas"), warnings.catch_warnings():
        # What has not quite converged is judged as it is.
        warnings.simplefilter("ignore", ConvergenceWarning)
        if targets.ndim == 1:
            found = fitted(targets)
            if found.ndim == 1:  # two classes: one plane
                found = np.stack([-found, found], axis=1)
            return np.asarray(found, np.float64)
        columns = []
        for column in targets.T:
            if column.min() == column.max():  # a class that all pictures have, or none
                columns.append(np.full(len(others), float(column[0])))
                continue
            found = fitted(column)
            columns.append(found[:, 1] if found.ndim == 2 else found)
        return np.stack(columns, axis=1)


def class_accuracies(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Share of each class's pictures whose highest score is their own: (classes,); NaN for a class without pictures.

    Parameters
    ----------
    scores : (pictures, classes)
    labels : int (pictures,)
    """
    classes = scores.shape[1]
    right = np.bincount(labels[scores.argmax(axis=1) == labels], minlength=classes)
    total = np.bincount(labels, minlength=classes)
    return np.where(total > 0, right / np.maximum(total, 1), np.nan)


def average_precision(scores: np.ndarray, positive: np.ndarray, ignored: np.ndarray | None = None) -> float:
    """Area under the interpolated curve of precision over recall, as PASCAL VOC counts it since 2010.

    Parameters
    ----------
    scores : (pictures,); equal scores keep the pictures' order
    positive : bool (pictures,)
    ignored : bool (pictures,), left out: difficult ones

    Returns
    -------
    0 to 1; NaN where no picture is positive
    """
    counted = np.ones(len(scores), bool) if ignored is None else ~ignored.astype(bool)
    values, hits = scores[counted], positive[counted].astype(bool)
    if not hits.any():
        return float("nan")
    hits = hits[np.argsort(-values, kind="stable")]
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    highest = np.maximum.accumulate(precision[::-1])[::-1]  # the best at this recall or a higher one
    return float(highest[hits].sum() / hits.sum())


def chosen_strength(classifier: str, features: np.ndarray, targets: np.ndarray, strengths: Sequence[float],
                    seed: int = 0) -> float:
    """The strength that judges held-out parts of the training pictures best; among equals the weakest.

    Each class is dealt over three parts (two where it has two pictures); each is held out in turn. A class with
    one picture cannot be: then the middle of the strengths is taken.

    Parameters
    ----------
    classifier : see `fit_scores`
    features : (pictures, features), prepared
    targets : see `fit_scores`
    strengths : to choose from, rising
    seed : of the dealing
    """
    strengths = sorted(strengths)
    if len(strengths) == 1:
        return strengths[0]
    single = targets.ndim == 1
    generator = np.random.default_rng([seed, 3])
    parts = np.zeros(len(targets), np.int64)
    count = PARTS
    if single:
        count = min(PARTS, int(np.bincount(targets).min()))
        if count < 2:
            return strengths[len(strengths) // 2]
        for label in np.unique(targets):
            members = generator.permutation(np.flatnonzero(targets == label))
            parts[members] = np.arange(len(members)) % count
    else:
        parts[generator.permutation(len(targets))] = np.arange(len(targets)) % count
    merits = []
    for strength in strengths:
        each = []
        for part in range(count):
            held = parts == part
            scores = fit_scores(classifier, features[~held], targets[~held], features[held], strength)
            if single:
                each.append(np.nanmean(class_accuracies(scores, targets[held])))
            else:
                found = [average_precision(scores[:, column], targets[held, column] > 0)
                         for column in range(targets.shape[1])]
                each.append(np.mean([value for value in found if np.isfinite(value)] or [0.0]))
        merits.append(np.mean(each))
    return strengths[int(np.argmax(np.round(merits, 12)))]
