"""The onnx package's own tests of its operators, through the backend; what does not run is listed by name."""

from __future__ import annotations

import warnings
from collections import Counter
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx")

import onnx
from onnx import helper
from onnx_exclusions import EXCLUDED, OPERATORS, REASONS

from zfcore.formats.onnx.backend import ZfcoreBackend

FEWEST = 250  # a whole operator that stopped running would show here


@pytest.fixture(scope="module")
def cases() -> list[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the package's own, while it computes all of its cases
        from onnx.backend.test.case.node import collect_testcases

        every = collect_testcases(None)
    return [case for case in every if {node.op_type for node in case.model.graph.node} <= OPERATORS]


def outcome(case: Any) -> str | None:
    """None where the case passes, else what went wrong."""
    try:
        for inputs, outputs in case.data_sets:
            results = ZfcoreBackend.run_model(case.model, list(inputs))
            assert len(results) == len(outputs)
            for result, expected in zip(results, outputs, strict=True):
                expected = np.asarray(expected)
                assert (result.shape, result.dtype) == (expected.shape, expected.dtype)
                np.testing.assert_allclose(result, expected, rtol=case.rtol, atol=case.atol)
    except (ValueError, AssertionError, NotImplementedError) as error:
        return f"{type(error).__name__}: {str(error)[:200]}"
    return None


def test_every_case_passes_or_is_listed(cases: list[Any]) -> None:
    found = {case.name: outcome(case) for case in cases}
    failed = {name: text for name, text in found.items() if text is not None and name not in EXCLUDED}
    assert failed == {}
    passed = [name for name, text in found.items() if text is None]
    assert [name for name in passed if name in EXCLUDED] == [], "listed, but they pass"
    print(f"{len(passed)} of {len(found)} conformance cases pass; left out: "
          f"{dict(Counter(EXCLUDED[name] for name in found if name in EXCLUDED))}")
    assert len(passed) >= FEWEST


def test_reasons_are_from_the_closed_list() -> None:
    assert set(EXCLUDED.values()) == set(REASONS)


def test_a_wrong_result_is_found(cases: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    case = next(case for case in cases if case.name == "test_leakyrelu")
    assert outcome(case) is None
    monkeypatch.setattr("zfcore.layers.LeakyReLU.forward", lambda self, ops, x, run=None: (ops.relu(x), {}))
    assert "Mismatched" in (outcome(case) or "")


def test_the_backend_interface() -> None:
    x = np.array([[-1.0, 2.0]], np.float32)
    node = helper.make_node("Relu", ["x"], ["y"])
    np.testing.assert_array_equal(ZfcoreBackend.run_node(node, [x])[0], [[0, 2]])
    assert ZfcoreBackend.supports_device("CPU") and not ZfcoreBackend.supports_device("CUDA")
    info = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 2]) for name in "xy"]
    model = helper.make_model(helper.make_graph([node], "g", info[:1], info[1:]))
    with pytest.raises(ValueError, match="device"):
        ZfcoreBackend.prepare(model, "CUDA")
    with pytest.raises(ValueError, match="inputs"):
        ZfcoreBackend.run_model(model, [])
