"""Sizes beyond what a launch counts are refused before anything is touched: the arrays here have no memory."""

from __future__ import annotations

import pytest

from zfcore import backends

extension = backends.get("emulated").extension
WHOLE = ((1, 1), (0, 0, 0, 0), (1, 1))  # stride, padding, dilation


class Claimed:
    """An array of a shape, at an address that nobody may read."""

    def __init__(self, *shape: int, typestr: str = "<f4") -> None:
        self.__array_interface__ = {"shape": shape, "typestr": typestr, "data": (16, False), "version": 3}


def refuse(match, name, *arguments):
    with pytest.raises(ValueError, match=match):
        getattr(extension, name)(*arguments, 0)


def test_convolutions():
    x, one = Claimed(2**15, 2**8, 2**8, 1), Claimed(1, 1, 1, 1)
    refuse("more cells or weights", "convolution_forward", x, x, one, None, *WHOLE, 1, False, 0)
    refuse("more cells or weights", "convolution_input_gradient", x, x, one, *WHOLE, 1, 0)
    long = Claimed(2**31, 1, 1, 1)
    refuse("an axis of 2", "convolution_forward", long, long, one, None, *WHOLE, 1, False, 0)
    y, weight = Claimed(1, 1, 1, 2**23), Claimed(2**23, 1, 1, 1)
    refuse("too many filters", "convolution_forward", y, one, weight, None, *WHOLE, 1, False, 0)
    x, weight = Claimed(1, 1, 1, 2**16), Claimed(2**16, 1, 1, 1)
    refuse("at most 65,535", "convolution_forward", x, x, weight, None, *WHOLE, 2**16, False, 0)
    x = Claimed(1, 2, 2, 1)
    far = ((1, 1), (2**29, 0, 0, 0), (2**29, 1))
    refuse("dilations too large", "convolution_forward", one, x, x, None, *far, 1, False, 0)


def test_linear_layers():
    y, one = Claimed(1, 2**23), Claimed(1, 1)
    refuse("too many inputs or outputs", "linear_forward", y, None, one, Claimed(2**23, 1), None, False, 0)
    refuse("too many inputs or outputs", "linear_forward", y, None, one, Claimed(2**23, 1), None, False, 1)


def test_pooling_and_normalisation():
    wide, once = Claimed(1, 1, 2**16, 2**15), ((1, 1), (1, 1), (0, 0))
    refuse("shorter than 2", "max_pool", wide, Claimed(1, 1, 2**16, 2**15, typestr="|u1"), wide, None, *once)
    y, x = Claimed(1, 1, 1, 1), Claimed(1, 17, 17, 1)
    refuse("at most 256 cells", "max_pool", y, Claimed(1, 1, 1, 1, typestr="|u1"), x, None, (17, 17), (1, 1), (0, 0))
    refuse("shorter than 2", "contrast_norm", wide, wide, wide, None, 3, 0.1, 0.5, 1.0, False)
    name = "response_norm_gradient"
    refuse("too large for this device", name, *[Claimed(4, 2**15)] * 3, 2**14, 0.1, 0.75, 1.0)
    refuse("too many channels", name, *[Claimed(1, 2**26)] * 3, 5, 0.1, 0.75, 1.0)


def test_pointwise():
    huge = Claimed(2**21, 2**21)
    refuse("too many for one launch", "relu", huge, huge)
    refuse("too many for one launch", "convert", Claimed(2**21, 2**21, typestr="<f2"), huge)
    image = Claimed(1, 2**17, 2**18)
    refuse("an image of 2", "dropout", image, image, 1, 1.0, 0, 0, 0)
