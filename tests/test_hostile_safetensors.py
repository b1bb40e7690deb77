"""safetensors files that lie: each is refused with its path and the reason, before anything is allocated."""

from __future__ import annotations

import io
import json
import os
import tracemalloc
import zipfile
from functools import partial

import numpy as np
import pytest

import zfcore
from zfcore.formats.state_dict import torch_keys
from zfcore.formats.tensors import MAX_HEADER, TensorFile
from zfcore.layers import Convolution, Flatten, Linear
from zfcore.models.torchvision import ARCHITECTURES, Architecture

# {"a": 1} as pickle's protocols 2 and 4 write it.
PICKLES = (b"\x80\x02}q\x00X\x01\x00\x00\x00aq\x01K\x01s.",
           b"\x80\x04\x95\x0a\x00\x00\x00\x00\x00\x00\x00}\x94\x8c\x01a\x94K\x01s.")


def raw(header, data=b""):
    """A file's bytes from a header: bytes, or something for JSON."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(shape, begin, end, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


HOSTILE = {
    "empty": (b"", "0 bytes"),
    "a few bytes": (b"abc", "3 bytes"),
    "header over the limit": ((MAX_HEADER + 1).to_bytes(8, "little") + b"{}", "allowed: 100000000"),
    "header of 2**64 - 1": (b"\xff" * 8 + b"{}", "18446744073709551615"),
    "header beyond the end": ((100).to_bytes(8, "little") + b"{}", "truncated"),
    "no header": ((0).to_bytes(8, "little"), "cannot be read"),
    "no UTF-8": (raw(b'{"\xff\xfe": 1}'), "not UTF-8"),
    "no JSON": (raw(b"{'a': 1}"), "cannot be read"),
    "a list": (raw([1]), "no JSON object"),
    "nested deeply": (raw(b"[" * 100_000), "nested too deeply"),
    "a name twice": (raw(b'{"a": 1, "a": 2}'), "occurs twice"),
    "endless digits": (raw(b'{"a": ' + b"9" * 5000 + b"}"), "cannot be read"),
    "a number for an array": (raw({"a": 1}), "'a' is not described"),
    "another field": (raw({"a": {**entry([1], 0, 4), "url": "x"}}, b"0000"), "'a' is not described"),
    "unknown dtype": (raw({"a": entry([1], 0, 4, "F1")}, b"0000"), "dtype 'F1'"),
    "dtype a list": (raw({"a": entry([1], 0, 4, ["F32"])}, b"0000"), "dtype"),
    "negative shape": (raw({"a": entry([-1, -1], 0, 4)}, b"0000"), "shape [-1, -1]"),
    "true for a size": (raw({"a": entry([True], 0, 4)}, b"0000"), "shape [True]"),
    "fraction": (raw({"a": entry([1.0], 0, 4)}, b"0000"), "shape [1.0]"),
    "many dimensions": (raw({"a": entry([1] * 1000, 0, 4)}, b"0000"), "at most 32"),
    "negative offset": (raw({"a": entry([1], -4, 0)}, b"0000"), "data_offsets [-4, 0]"),
    "backwards": (raw({"a": entry([1], 4, 0)}, b"0000"), "needs 4 bytes"),
    "bytes do not fit the shape": (raw({"a": entry([3], 0, 4)}, b"0000"), "needs 12 bytes"),
    "product overflows to 0": (raw({"a": entry([2**32, 2**32], 0, 0)}), "needs 73786976294838206464 bytes"),
    "offset beyond the end": (raw({"a": entry([2**40], 0, 2**42)}, b"0000"), "need 4398046511104 bytes"),
    "overlap": (raw({"a": entry([2], 0, 8), "b": entry([2], 4, 12)}, b"0" * 12), "'b' overlaps"),
    "hole": (raw({"a": entry([1], 0, 4), "b": entry([1], 8, 12)}, b"0" * 12), "'b' leaves a hole"),
    "hole at the start": (raw({"a": entry([1], 4, 8)}, b"0" * 8), "leaves a hole"),
    "bytes left over": (raw({"a": entry([1], 0, 4)}, b"0" * 8), "the file has 8"),
    "bytes missing": (raw({"a": entry([2], 0, 8)}, b"0" * 4), "the file has 4"),
    "metadata that is no text": (raw({"__metadata__": {"a": 1}}), "__metadata__"),
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("options", [{}, {"architecture": "torchvision/alexnet"}])
def test_hostile_files_are_refused(tmp_path, name, options):
    content, reason = HOSTILE[name]
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError) as caught:
            zfcore.load(path, **options)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert str(path) in str(caught.value) and reason in str(caught.value)
    assert peak < 8_000_000 + 20 * len(content)


def test_pickles_are_refused_and_the_way_out_is_told(tmp_path):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("archive/data.pkl", PICKLES[0])
    for content in (*PICKLES, stream.getvalue()):
        path = tmp_path / "model.pth"
        path.write_bytes(content)
        for options in ({}, {"architecture": "torchvision/alexnet"}):
            with pytest.raises(ValueError, match="refused.*safetensors.torch.save_file"):
                zfcore.load(path, **options)


def test_declared_size_is_limited(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(raw({"a": entry([1000], 0, 2000, "F16")}, bytes(2000)))
    with TensorFile(path, max_bytes=4000) as file:
        assert file.array("a").nbytes == 4000
    with pytest.raises(ValueError, match="need 4000 bytes; allowed: max_bytes, which is 3999"):
        TensorFile(path, max_bytes=3999)
    with pytest.raises(ValueError, match="max_bytes"):
        zfcore.load(path, architecture="torchvision/alexnet", max_bytes=10)
    with pytest.raises(FileNotFoundError, match="no such file"):
        zfcore.load(tmp_path / "nothing.safetensors", architecture="torchvision/alexnet")
    with pytest.raises(FileNotFoundError, match="no such file"):
        zfcore.load(tmp_path, architecture="torchvision/alexnet")


@pytest.mark.parametrize(("dtype", "kind"), [("F64", "f8"), ("F32", "f4"), ("F16", "f2"), ("I64", "i8"),
                                             ("U8", "u1"), ("BOOL", "?")])
def test_arrays_are_read_as_they_are(tmp_path, dtype, kind):
    values = np.arange(6).astype(kind).reshape(2, 3)
    path = tmp_path / "a.safetensors"
    path.write_bytes(raw({"x": entry([2, 3], 0, values.nbytes, dtype), "none": entry([0], 0, 0)},
                         values.tobytes()))
    with TensorFile(path) as file:
        assert np.array_equal(file.array("x"), values)
        assert file.array("none").shape == (0,)
        assert file.array("x").dtype == (np.float32 if dtype == "F16" else values.dtype)


def small_file(path):
    network = zfcore.Network("small", (6, 6, 1))
    network.add("conv", Convolution(2, 3, activation="relu"))
    network.add("flat", Flatten())
    network.add("fc", Linear(3))
    zfcore.save(network.initialize(0), path)
    return path.read_bytes()


def mutate(content, random):
    """Flip, cut, insert, repeat, or exchange a number of the header for a nasty one."""
    data = bytearray(content)
    length = int.from_bytes(data[:8], "little")
    for _ in range(int(random.integers(1, 4))):
        kind = random.integers(6)
        place = int(random.integers(len(data))) if random.random() < 0.3 else int(random.integers(8 + length))
        place = min(place, max(len(data) - 1, 0))
        if kind == 0 and data:
            data[place] ^= 1 << int(random.integers(8))
        elif kind == 1:
            del data[place:place + int(random.integers(1, 40))]
        elif kind == 2:
            data[place:place] = bytes(random.integers(0, 256, int(random.integers(1, 20)), dtype=np.uint8))
        elif kind == 3:
            data[place:place] = data[place:place + 30]
        elif kind == 4:
            data = data[:place]
        else:
            digits = [i for i in range(8, min(8 + length, len(data))) if 48 <= data[i] < 58]
            if digits:
                at = digits[int(random.integers(len(digits)))]
                nasty = (b"-1", b"0", b"4294967296", b"9223372036854775807", b"1e9", b"null", b"[]", b"\"1\"")
                new = nasty[int(random.integers(len(nasty)))]
                data[at:at + 1] = new
                if random.random() < 0.8 and len(data) >= 8:  # keep the header's length right
                    data[:8] = (length + len(new) - 1).to_bytes(8, "little")
                    length += len(new) - 1
    return bytes(data)


def weights_file(path):
    """A classifier's weights with PyTorch's keys and another number of classes than usual, and its options."""
    known = ARCHITECTURES["torchvision/vgg11"]
    small = Architecture(partial(known.build, widths=(1, 1, 2, 2, 2), hidden=3), known.modules, known.head,
                         known.aliases)
    network = small.build(4, input_size=224)
    shapes = network.parameter_shapes()
    header, place = {}, 0
    for key, (layer, parameter) in torch_keys(network, small.modules(network)).items():
        shape = list(shapes[f"{layer}.{parameter}"])
        shape = [shape[0], shape[3], shape[1], shape[2]] if len(shape) == 4 else shape
        size = 2 * int(np.prod(shape))
        header[key] = entry(shape, place, place + size, "F16")
        place += size
    path.write_bytes(raw(header, bytes(place)))
    return small


# With test_onnx_fuzz.py's about a minute on two quiet cores; `make fuzz` runs many more.
CASES = int(os.environ.get("ZFCORE_FUZZ_CASES", "12000"))


def fuzz(folder, seed, rounds, architecture=None):
    """Load mutants of a file: a Network or a ValueError, nothing else. Returns how many were refused."""
    random = np.random.default_rng(seed)
    good = folder / "good.safetensors"
    content = small_file(good) if architecture is None else good.read_bytes()
    path = folder / "bad.safetensors"
    refused = 0
    for number in range(rounds):
        path.write_bytes(mutate(content, random))
        try:
            assert isinstance(zfcore.load(path, architecture), zfcore.Network)
        except ValueError as error:
            refused += 1
            assert str(path) in str(error), (seed, number)
    return refused


def test_fuzzing_meets_only_clear_errors(tmp_path):
    """A fixed seed here; by hand, `python tests/test_hostile_safetensors.py SEED ROUNDS`."""
    assert fuzz(tmp_path, seed=20, rounds=CASES) > CASES // 3


def test_fuzzing_weights_of_an_architecture(tmp_path, monkeypatch):
    small = weights_file(tmp_path / "good.safetensors")
    monkeypatch.setitem(ARCHITECTURES, "torchvision/vgg11", small)
    assert zfcore.load(tmp_path / "good.safetensors", "torchvision/vgg11").shapes["prob"] == (4,)
    assert fuzz(tmp_path, seed=21, rounds=CASES // 2, architecture="torchvision/vgg11") > CASES // 6


if __name__ == "__main__":
    import pathlib
    import sys
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        print(fuzz(pathlib.Path(name), int(sys.argv[1]), int(sys.argv[2])), "refused")
