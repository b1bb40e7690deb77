"""torchvision's and timm's files into this engine: keys, layouts, numbers and gradients."""

from __future__ import annotations

import re

import numpy as np
import pytest

torch = pytest.importorskip("torch")
torch_files = pytest.importorskip("safetensors.torch")

import torch_models  # noqa: E402

import zfcore  # noqa: E402
from zfcore.formats.state_dict import torch_keys  # noqa: E402
from zfcore.layers import Add, Concat, Flatten, GlobalAveragePool, Linear  # noqa: E402
from zfcore.models.torchvision import ARCHITECTURES, Architecture  # noqa: E402
from zfcore.network.layout import flattened, inward, outward  # noqa: E402

U = 2.0**-24


def write(path, state):
    torch_files.save_file({key: value.contiguous() for key, value in state.items()}, path)
    return path


def fill(network, modules, module):
    """Parameters from a module in memory, by the reader's own key map."""
    state, orders = module.state_dict(), flattened(network)
    values = {}
    for key, (layer, parameter) in torch_keys(network, modules).items():
        node = network.nodes[layer]
        values[f"{layer}.{parameter}"] = inward(node.layer, parameter, state[key].numpy(),
                                                orders.get(node.inputs[0]))
    return network.load_parameters(values)


def close(mine, theirs, depth, longest):
    """Two float32 computations of one value: each within `depth` times gamma(longest sum) of it."""
    gamma = (longest + 2) * U / (1 - (longest + 2) * U)
    assert np.abs(mine - theirs).max() <= 2 * depth * gamma * np.abs(theirs).max()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_keys_and_shapes_are_torchvisions(name):
    with torch.device("meta"):
        state = torch_models.build(name).state_dict()
    architecture = ARCHITECTURES[name]
    network = architecture.build()
    keys = torch_keys(network, architecture.modules(network))
    assert set(keys) == {key for key in state if not key.endswith("num_batches_tracked")}
    shapes = network.parameter_shapes()
    for key, (layer, parameter) in keys.items():
        own, theirs = shapes[f"{layer}.{parameter}"], tuple(state[key].shape)
        assert own == (theirs if len(theirs) != 4 else (theirs[0], *theirs[2:], theirs[1])), key
    assert network.preprocessing.size == 256 and network.preprocessing.crop == 224
    assert network.preprocessing.channels == "RGB"


SMALL = {
    "alexnet": (lambda: torch_models.alexnet(7, 32), ARCHITECTURES["torchvision/alexnet"], {"hidden": 32},
                224, 1),
    "vgg11_bn": (lambda: torch_models.vgg(11, True, 7, (8, 8, 16, 16, 16), 24),
                 ARCHITECTURES["torchvision/vgg11_bn"], {"widths": (8, 8, 16, 16, 16), "hidden": 24}, 224, 2),
    "vgg16": (lambda: torch_models.vgg(16, False, 7, (8, 8, 8, 8, 16), 24),
              ARCHITECTURES["torchvision/vgg16"], {"widths": (8, 8, 8, 8, 16), "hidden": 24}, 224, 1),
    "resnet18": (lambda: torch_models.ResNet(18, 7), ARCHITECTURES["torchvision/resnet18"], {}, 64, 2),
    "resnet50": (lambda: torch_models.ResNet(50, 7, (8, 16, 16, 16)), ARCHITECTURES["torchvision/resnet50"],
                 {"widths": (8, 16, 16, 16)}, 64, 2),
    "squeezenet1_0": (lambda: torch_models.SqueezeNet("1_0", 7),
                      ARCHITECTURES["torchvision/squeezenet1_0"], {}, 67, 2),
    "squeezenet1_1": (lambda: torch_models.SqueezeNet("1_1", 7),
                      ARCHITECTURES["torchvision/squeezenet1_1"], {}, 64, 2),
    "densenet": (lambda: torch_models.DenseNet((2, 3, 2, 2), 8, 16, 7),
                 ARCHITECTURES["torchvision/densenet121"],
                 {"blocks": (2, 3, 2, 2), "growth": 8, "first": 16}, 64, 2),
}


@pytest.mark.parametrize("name", SMALL)
def test_forward_and_every_gradient_equal_torchs(name):
    make, architecture, options, size, batch = SMALL[name]
    module = torch_models.randomize(make()).double()
    network = architecture.build(7, input_size=size, **options)
    fill(network, architecture.modules(network), module).astype(np.float64)
    x = np.random.default_rng(1).standard_normal((batch, size, size, 3))
    signal = np.random.default_rng(2).standard_normal((batch, 7))
    forward = network.forward(x, cache=True, to=network.logits)
    back = network.backward(forward, signal)

    theirs_x = torch.from_numpy(x.transpose(0, 3, 1, 2).copy()).requires_grad_()
    output = module(theirs_x)
    output.backward(torch.from_numpy(signal))
    # In float64 the two agree to far more than any mistake of layout, padding or scale would leave.
    def same(mine, theirs, what):
        assert mine.shape == theirs.shape, what
        assert np.abs(mine - theirs).max() <= 1e-9 * max(np.abs(theirs).max(), 1e-30), what

    same(forward.output, output.detach().numpy(), "output")
    same(back.input, theirs_x.grad.numpy().transpose(0, 2, 3, 1), "input")
    orders = flattened(network)
    parameters = dict(module.named_parameters())
    checked = 0
    for key, (layer, parameter) in torch_keys(network, architecture.modules(network)).items():
        if parameter in ("mean", "variance"):
            continue
        node = network.nodes[layer]
        mine = outward(node.layer, parameter, back.gradients[f"{layer}.{parameter}"],
                       orders.get(node.inputs[0]))
        same(mine, parameters[key].grad.numpy(), key)
        checked += 1
    assert checked == len(parameters)


def test_a_file_gives_the_network(tmp_path):
    module = torch_models.randomize(torch_models.SqueezeNet("1_1", 5))
    path = write(tmp_path / "weights.safetensors", module.state_dict())
    names = [f"class {number}" for number in range(5)]
    network = zfcore.load(path, architecture="torchvision/squeezenet1_1", class_names=names, input_size=96)
    x = np.random.default_rng(3).standard_normal((2, 96, 96, 3)).astype(np.float32)
    with torch.no_grad():
        theirs = module(torch.from_numpy(x.transpose(0, 3, 1, 2).copy())).numpy()
    close(network.forward(x, to=network.logits).output, theirs, depth=26, longest=3 * 3 * 64)
    assert network.class_names == names
    again = tmp_path / "own.safetensors"
    zfcore.save(network, again)
    assert np.array_equal(zfcore.load(again)(x), network(x))


def tiny_architecture(monkeypatch):
    """VGG-11 with batch norm, small enough to be written often."""
    known = ARCHITECTURES["torchvision/vgg11_bn"]
    options = {"widths": (4, 4, 8, 8, 8), "hidden": 12}
    small = Architecture(lambda classes, input_size: known.build(classes, input_size=input_size, **options),
                         known.modules, known.head, known.aliases)
    monkeypatch.setitem(ARCHITECTURES, "torchvision/vgg11_bn", small)
    return torch_models.randomize(torch_models.vgg(11, True, 6, **options))


def test_timms_keys_and_convolutional_head(tmp_path, monkeypatch):
    state = tiny_architecture(monkeypatch).state_dict()
    ours = zfcore.load(write(tmp_path / "a.safetensors", state), architecture="torchvision/vgg11_bn")
    for old, new, shape in (("classifier.0", "pre_logits.fc1", (-1, 8, 7, 7)),
                            ("classifier.3", "pre_logits.fc2", (-1, 12, 1, 1)),
                            ("classifier.6", "head.fc", (-1, 12))):
        state[f"{new}.weight"] = state.pop(f"{old}.weight").reshape(shape)
        state[f"{new}.bias"] = state.pop(f"{old}.bias")
    theirs = zfcore.load(write(tmp_path / "b.safetensors", state), architecture="torchvision/vgg11_bn")
    for key, value in ours.parameters().items():
        assert np.array_equal(value, theirs.parameters()[key]), key


def test_densenets_published_spelling_and_wrappers(tmp_path, monkeypatch):
    known = ARCHITECTURES["torchvision/densenet121"]
    small = Architecture(lambda classes, input_size: known.build(
        classes, blocks=(2, 1, 1, 1), growth=4, first=8, input_size=input_size),
        known.modules, known.head, known.aliases)
    monkeypatch.setitem(ARCHITECTURES, "torchvision/densenet121", small)
    state = torch_models.randomize(torch_models.DenseNet((2, 1, 1, 1), 4, 8, 3)).state_dict()
    old = {"module." + re.sub(r"(denselayer\d+\.(?:norm|conv))([12])\.", r"\1.\2.", key): value
           for key, value in state.items() if not key.endswith("num_batches_tracked")}
    assert "module.features.denseblock1.denselayer1.norm.1.weight" in old
    first = zfcore.load(write(tmp_path / "new.safetensors", state), architecture="torchvision/densenet121")
    second = zfcore.load(write(tmp_path / "old.safetensors", old), architecture="torchvision/densenet121")
    for key, value in first.parameters().items():
        assert np.array_equal(value, second.parameters()[key])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_other_precisions_become_float32(tmp_path, monkeypatch, dtype):
    state = tiny_architecture(monkeypatch).state_dict()
    other = {key: value.to(getattr(torch, dtype)) if value.is_floating_point() else value
             for key, value in state.items()}
    network = zfcore.load(write(tmp_path / "w.safetensors", other), architecture="torchvision/vgg11_bn")
    expected = other["features.0.weight"].float().numpy().transpose(0, 2, 3, 1)
    assert network.parameters()["conv1_1.weight"].dtype == np.float32
    assert np.array_equal(network.parameters()["conv1_1.weight"], expected)


def test_a_mismatch_lists_everything(tmp_path, monkeypatch):
    state = tiny_architecture(monkeypatch).state_dict()
    del state["features.0.bias"], state["classifier.3.weight"]
    state["features.4.weight"] = torch.zeros(4, 4, 5, 5)
    state["classifier.0.bias"] = torch.zeros(12, dtype=torch.int32)
    state["extra.weight"] = torch.zeros(2)
    path = write(tmp_path / "w.safetensors", state)
    with pytest.raises(ValueError) as caught:
        zfcore.load(path, architecture="torchvision/vgg11_bn")
    message = str(caught.value)
    assert "missing: features.0.bias, classifier.3.weight" in message
    assert "unexpected: extra.weight" in message
    assert "misshapen: features.4.weight (4, 4, 5, 5) instead of (4, 4, 3, 3)" in message
    assert "not floating-point: classifier.0.bias I32" in message
    assert str(path) in message


def test_wrong_architectures_are_refused(tmp_path):
    path = write(tmp_path / "w.safetensors", {"a": torch.zeros(1)})
    with pytest.raises(ValueError, match="'torchvision/resnet18'"):
        zfcore.load(path, architecture="resnet18")
    with pytest.raises(ValueError, match="need architecture="):
        zfcore.load(path)
    with pytest.raises(ValueError, match="class_names"):
        module = torch_models.randomize(torch_models.SqueezeNet("1_1", 5))
        zfcore.load(write(tmp_path / "s.safetensors", module.state_dict()),
                    architecture="torchvision/squeezenet1_1", class_names=["one"])
    with pytest.raises(ValueError, match="s.safetensors: .* cannot be built"):
        zfcore.load(tmp_path / "s.safetensors", architecture="torchvision/squeezenet1_1", input_size=4)
    with pytest.raises(ValueError, match="input_size is 100"):
        ARCHITECTURES["torchvision/vgg16"].build(input_size=100)


def test_projections_through_forks_and_sums():
    """On a residual network a projection's crop is the whole image's part, under each rule."""
    network = ARCHITECTURES["torchvision/resnet18"].build(4, input_size=96, widths=(8, 8, 8, 8)).initialize(0)
    x = np.random.default_rng(5).standard_normal((1, 96, 96, 3)).astype(np.float32)
    for rule in ("gradient", "deconvnet", "guided"):
        part = network.project(x, "layer1.1:3", rule=rule, seed="one")
        whole = network.project(x, "layer1.1:3", rule=rule, seed="one", crop=False).pixels[0]
        assert np.abs(whole).max() > 0
        size = part.pixels.shape[1:3]
        assert size[0] < 96
        (row, column), tile = part.origins[0], part.pixels[0]
        inside = [slice(max(-start, 0), min(96 - start, length))
                  for start, length in ((row, size[0]), (column, size[1]))]
        assert np.array_equal(tile[inside[0], inside[1]],
                              whole[max(row, 0):row + size[0], max(column, 0):column + size[1]])
        assert np.count_nonzero(tile) == np.count_nonzero(whole)


def test_vectors_of_different_orders_are_not_added():
    network = zfcore.Network("fork", (2, 4, 3))
    network.add("one", Flatten(), "input")
    network.add("two", Linear(24), "one")
    network.add("sum", Add(), ("one", "two"))
    with pytest.raises(ValueError, match="different orders"):
        flattened(network)


def test_joined_vectors_keep_their_orders():
    network = zfcore.Network("join", (2, 2, 3))
    network.add("pool", GlobalAveragePool(), "input")
    network.add("flat", Flatten(), "input")
    network.add("both", Concat(), ("pool", "flat"))
    order = flattened(network)["both"]
    here = np.concatenate([[0, 1, 2], 3 + np.arange(12)])
    maps = np.arange(12).reshape(3, 2, 2)  # as PyTorch flattens
    assert np.array_equal(here[:3], order[:3])
    assert np.array_equal(maps.transpose(1, 2, 0).ravel() + 3, order[3:])
