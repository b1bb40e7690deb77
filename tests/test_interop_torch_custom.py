"""zfcore's kernels as PyTorch's operators and modules: PyTorch's own checks, and PyTorch's own results."""

from __future__ import annotations

import copy

import numpy as np
import pytest

torch = pytest.importorskip("torch")
if not hasattr(torch.library, "custom_op"):
    pytest.skip("needs PyTorch 2.4", allow_module_level=True)

from torch import nn  # noqa: E402

from zfcore import backends, ops  # noqa: E402
from zfcore.interop import torch as zf  # noqa: E402

POOL = ([3, 2], [2, 2], [1, 0, 1, 1], True)
NORM = (3, 0.1, 0.75, 2.0)
SIZES = ([2, 1], [1, 2, 0, 1], [1, 2], 2)


def normal(*shape, dtype=torch.float32, last=False, grad=False):
    generator = torch.Generator().manual_seed(sum(shape))
    x = torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)
    if last:
        x = x.contiguous(memory_format=torch.channels_last)
    return x.requires_grad_(grad)


def calls(dtype, grad=True):
    """Every operator with arguments: (operator, arguments)."""
    x = normal(2, 4, 7, 6, dtype=dtype)
    y, switches = zf.max_pool(x, *POOL)
    weight, bias = normal(6, 2, 3, 2, dtype=dtype), normal(6, dtype=dtype)

    def fresh(tensor):
        return tensor.detach().clone().requires_grad_(grad)

    return {
        "max_pool": (zf.max_pool, (fresh(x), *POOL)),
        "max_unpool": (zf.max_unpool, (fresh(y), switches, [7, 6], *POOL[:3], False)),
        "max_unpool_last": (zf.max_unpool, (fresh(y), switches, [7, 6], *POOL[:3], True)),
        "response_norm": (zf.response_norm, (fresh(x), *NORM, True)),
        "contrast_norm": (zf.contrast_norm, (fresh(x), *NORM, "divisive")),
        "contrast_norm_subtractive": (zf.contrast_norm, (fresh(x), *NORM, "subtractive")),
        "convolution": (zf.convolution, (fresh(x), fresh(weight), fresh(bias), *SIZES)),
        "convolution_plain": (zf.convolution, (fresh(x), fresh(weight), None, *SIZES)),
    }


NAMES = ("max_pool", "max_unpool", "max_unpool_last", "response_norm", "contrast_norm", "contrast_norm_subtractive",
         "convolution", "convolution_plain")


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("name", NAMES)
def test_opcheck(name):
    """Schema, registration, shape function and compilation, with static and symbolic shapes."""
    operator, arguments = calls(torch.float32)[name]
    torch.library.opcheck(operator, arguments)


@pytest.mark.parametrize("name", NAMES)
def test_gradcheck(name):
    operator, arguments = calls(torch.float64)[name]
    outputs = (lambda *given: operator(*given)[0]) if name == "max_pool" else operator
    assert torch.autograd.gradcheck(outputs, arguments)


def test_layouts():
    """A channels-last tensor is worked on where it lies; results are channels last."""
    x = normal(2, 4, 6, 6, last=True)
    seen = []
    kernel = backends.get("numba").response_norm
    backend = backends.get("numba")
    try:
        backend.response_norm = lambda y, x, *rest: (seen.append(x.ctypes.data), kernel(y, x, *rest))
        one = zf.response_norm(x, *NORM, True)
        other = zf.response_norm(x.contiguous(), *NORM, True)
    finally:
        backend.response_norm = kernel
    assert seen[0] == x.data_ptr()
    assert seen[1] != x.data_ptr()
    assert one.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(one, other)
    expected = ops.response_norm(x.permute(0, 2, 3, 1).numpy(), size=3, alpha=0.1, beta=0.75, k=2.0,
                                 alpha_is_divided_by_size=True)
    np.testing.assert_array_equal(one.permute(0, 2, 3, 1).numpy(), expected)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_compiled():
    """One graph, nothing left to Python, and the eager values and gradients."""
    model = nn.Sequential(nn.Conv2d(3, 8, 3), zf.MaxPool2d(3, 2, ceil_mode=True), zf.LocalResponseNorm(5), nn.Flatten(),
                          nn.Linear(8 * 4 * 4, 3))
    compiled = torch.compile(copy.deepcopy(model), backend="aot_eager", fullgraph=True)
    x = normal(2, 3, 10, 10)
    for net in (model, compiled):
        net(x).square().sum().backward()
    assert torch.equal(model(x), compiled(x))
    for one, other in zip(model.parameters(), compiled.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


@pytest.mark.parametrize(("window", "stride", "padding", "ceil"), [
    (3, 2, 1, False), (2, None, 0, True), ((3, 2), (1, 2), (1, 0), True)])
@pytest.mark.parametrize("shape", [(2, 5, 9, 8), (5, 9, 8)])
def test_max_pool_is_torchs(window, stride, padding, ceil, shape):
    x = normal(*shape, grad=True)
    twin = x.detach().clone().requires_grad_()
    y = zf.MaxPool2d(window, stride, padding, ceil_mode=ceil)(x)
    expected = nn.MaxPool2d(window, stride, padding, ceil_mode=ceil)(twin)
    assert torch.equal(y, expected)
    signal = torch.randn(y.shape, generator=torch.Generator().manual_seed(0))
    y.backward(signal)
    expected.backward(signal)
    torch.testing.assert_close(x.grad, twin.grad)


def test_max_unpool_is_torchs_where_windows_do_not_share():
    x = normal(2, 3, 8, 6)
    y, switches = zf.MaxPool2d(2, return_indices=True)(x)
    expected, indices = nn.MaxPool2d(2, return_indices=True)(x)
    assert switches.dtype == torch.uint8
    unpool, twin = zf.MaxUnpool2d(2), nn.MaxUnpool2d(2)
    assert torch.equal(unpool(y, switches), twin(expected, indices))
    assert torch.equal(unpool(y[0], switches[0]), twin(expected[0], indices[0]))
    odd = normal(2, 3, 9, 7)  # a row and a column are in no window
    y, switches = zf.MaxPool2d(2, return_indices=True)(odd)
    expected, indices = nn.MaxPool2d(2, return_indices=True)(odd)
    assert torch.equal(unpool(y, switches, output_size=(2, 3, 9, 7)), twin(expected, indices, output_size=(9, 7)))


def test_max_unpool_where_windows_share():
    """The sum is the adjoint; "last" is what torch does on the CPU."""
    x = normal(2, 4, 9, 9)
    y, switches = zf.MaxPool2d(3, 2, return_indices=True)(x)
    _, indices = nn.MaxPool2d(3, 2, return_indices=True)(x)
    assert torch.equal(zf.MaxUnpool2d(3, 2, overlap="last")(y, switches), nn.MaxUnpool2d(3, 2)(y, indices))
    signal = normal(2, 4, 9, 9)
    taken = torch.ops.zfcore.max_unpool_gradient(signal, switches, [3, 3], [2, 2], [0] * 4, False)
    torch.testing.assert_close((zf.MaxUnpool2d(3, 2)(y, switches) * signal).sum(), (y * taken).sum())


@pytest.mark.parametrize(("size", "shape"), [(5, (2, 7, 4, 5)), (4, (2, 7, 4, 5)), (3, (2, 5)), (5, (2, 3, 4, 4)),
                                             (5, (2, 6, 9)), (3, (1, 4, 2, 3, 2))])
def test_response_norm_is_torchs(size, shape):
    settings = {"alpha": 0.2, "beta": 0.75, "k": 1.5}
    x = normal(*shape, dtype=torch.float64, grad=True)
    twin = x.detach().clone().requires_grad_()
    y, expected = zf.LocalResponseNorm(size, **settings)(x), nn.LocalResponseNorm(size, **settings)(twin) \
        if len(shape) > 2 else nn.LocalResponseNorm(size, **settings)(twin[..., None])[..., 0]
    torch.testing.assert_close(y, expected)
    y.square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(x.grad, twin.grad)


def test_convolution_is_torchs():
    x, weight, bias = normal(2, 4, 7, 6), normal(6, 2, 3, 2), normal(6)
    torch.testing.assert_close(zf.convolution(x, weight, bias, [2, 1], [1, 1, 2, 2], [1, 2], 2),
                               nn.functional.conv2d(x, weight, bias, (2, 1), (1, 2), (1, 2), 2))


def test_replacing_torchs_modules():
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.LocalResponseNorm(5), nn.MaxPool2d(3, 2),
                          nn.Sequential(nn.MaxPool2d(2, return_indices=True)), nn.MaxPool2d(17, padding=8))
    twin = copy.deepcopy(model)
    assert zf.replace(model) == 2
    x = normal(1, 3, 40, 40)
    torch.testing.assert_close(model[:4](x), twin[:4](x))
    assert type(model[4][0]) is nn.MaxPool2d
    assert type(model[5]) is nn.MaxPool2d
    assert repr(model[3]) == "MaxPool2d(kernel_size=(3, 3), stride=(2, 2), padding=(0, 0))"


@pytest.mark.parametrize(("call", "error", "says"), [
    (lambda: zf.MaxPool2d(17)(normal(1, 1, 20, 20)), ValueError, "an area of at most 256"),
    (lambda: zf.MaxPool2d(2, dilation=2), ValueError, "dilation is 2; allowed: 1"),
    (lambda: zf.MaxPool2d(2)(normal(1, 1, 4, 4).half()), TypeError, "float32 or float64"),
    (lambda: zf.MaxUnpool2d(2, overlap="first"), ValueError, "'sum', 'last'"),
    (lambda: zf.MaxUnpool2d(2)(normal(1, 1, 2, 2), torch.full((1, 1, 2, 2), 9, dtype=torch.uint8)), IndexError,
     "positions inside the window"),
    (lambda: zf.MaxUnpool2d(2)(normal(1, 1, 2, 2), torch.zeros(1, 1, 2, 2, dtype=torch.int64)), TypeError, "uint8"),
    (lambda: zf.LocalResponseNorm(0), ValueError, "size is 0"),
    (lambda: zf.LocalResponseNorm(3)(normal(4)), ValueError, r"\(N, C, ...\)"),
])
def test_what_is_refused(call, error, says):
    with pytest.raises(error, match=says):
        call()
