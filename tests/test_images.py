"""Every kind of picture is converted as documented, or refused with its path."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from zfcore.data import ImageError, ImageFolder, Stream, decode, fit
from zfcore.preprocessing import Preprocessing

GRADIENT = (np.add.outer(np.arange(20), 3 * np.arange(30)) % 256).astype(np.uint8)
COLOURS = np.stack([GRADIENT, GRADIENT.T.reshape(20, 30), 255 - GRADIENT], axis=2)


def encode(image: Any, kind: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    picture.save(stream, kind, **options)
    return stream.getvalue()


def test_gray_and_colour_come_back_as_they_were() -> None:
    assert np.array_equal(decode(encode(GRADIENT))[:, :, 0], GRADIENT)
    for kind in ("PNG", "BMP", "TIFF", "PPM"):
        assert np.array_equal(decode(encode(COLOURS, kind)), COLOURS)
    assert np.array_equal(decode(encode(COLOURS, "WEBP", lossless=True)), COLOURS)


def test_a_jpeg_decodes_as_pillow_does() -> None:
    data = encode(COLOURS, "JPEG", quality=90)
    assert np.array_equal(decode(data), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


def test_sixteen_bits_become_eight() -> None:
    wide = np.array([[0, 128, 129, 257, 32768, 65535]], np.uint16)
    assert decode(encode(wide))[0, :, 0].tolist() == [0, 0, 1, 1, 128, 255]
    assert decode(encode(wide, "TIFF"))[0, :, 0].tolist() == [0, 0, 1, 1, 128, 255]

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    colour = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)) + chunk(
        b"IDAT", zlib.compress(b"\0" + struct.pack(">HHH", 0x00FF, 0x80FF, 0xFFFF))) + chunk(b"IEND", b"")
    assert decode(b"\x89PNG\r\n\x1a\n" + colour).tolist() == [[[0, 128, 255]]]  # the high bytes


def test_black_and_white_and_palettes() -> None:
    assert set(np.unique(decode(encode(Image.fromarray(GRADIENT).convert("1"))))) == {0, 255}
    palette = Image.fromarray(COLOURS).quantize(16)
    assert np.array_equal(decode(encode(palette)), np.asarray(palette.convert("RGB")))
    assert np.array_equal(decode(encode(palette, "GIF")), np.asarray(palette.convert("RGB")))


def test_cmyk_becomes_rgb() -> None:
    picture = Image.fromarray(COLOURS).convert("CMYK")
    decoded = decode(encode(picture, "TIFF"))
    assert np.array_equal(decoded, np.asarray(picture.convert("RGB")))
    assert decode(encode(picture, "JPEG")).shape == (20, 30, 3)


def test_transparency_shows_the_background() -> None:
    layers = np.zeros((1, 3, 4), np.uint8)
    layers[0, :, 0], layers[0, :, 3] = 200, (0, 255, 128)
    assert decode(encode(layers))[0].tolist()[:2] == [[255, 255, 255], [200, 0, 0]]
    assert decode(encode(layers), background=0)[0].tolist() == [[0, 0, 0], [200, 0, 0], [100, 0, 0]]
    gray = Image.fromarray(np.array([[[10, 0], [10, 255]]], np.uint8), "LA")
    assert decode(encode(gray))[0].tolist() == [[255], [10]]
    palette = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    palette.putpalette([9, 9, 9, 50, 60, 70])
    assert decode(encode(palette, transparency=0))[0].tolist() == [[255, 255, 255], [50, 60, 70]]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    shown = {1: lambda a: a, 2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1],
             5: lambda a: a.swapaxes(0, 1), 6: lambda a: a.swapaxes(0, 1)[:, ::-1],
             7: lambda a: a.swapaxes(0, 1)[::-1, ::-1], 8: lambda a: a.swapaxes(0, 1)[::-1]}[orientation]
    assert np.array_equal(decode(encode(COLOURS, exif=exif)), shown(COLOURS))
    blocks = np.kron(np.array([[0, 255, 128]], np.uint8), np.ones((16, 16), np.uint8))
    assert np.abs(decode(encode(blocks, "JPEG", exif=exif, quality=95))[:, :, 0].astype(int)
                  - shown(blocks)).max() < 12


def test_the_content_counts_not_the_name(tmp_path: Path) -> None:
    (tmp_path / "really-a-png.JPEG").write_bytes(encode(COLOURS))
    assert np.array_equal(ImageFolder(tmp_path).pixels(0), COLOURS)


def test_one_pixel_is_enough() -> None:
    pixel = decode(encode(np.array([[[1, 2, 3]]], np.uint8)))
    assert fit(pixel, size=8, crop=8).tolist() == np.full((8, 8, 3), [1, 2, 3]).tolist()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb(side: int) -> bytes:
    """A few hundred bytes that declare side x side RGB pixels."""
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000)))
            + chunk(b"IEND", b""))


BAD = {
    "empty": b"",
    "text": b"hello, I am no picture",
    "pdf": b"%PDF-1.4 nothing",
    "truncated-jpeg": encode(COLOURS, "JPEG")[:300],
    "truncated-png": encode(COLOURS)[:60],
    "header-only": encode(COLOURS)[:20],
    "bomb": bomb(60_000),
    "quiet-bomb": bomb(10_000),
    "float": encode(Image.fromarray(GRADIENT.astype(np.float32)), "TIFF"),
    "icon": encode(Image.fromarray(COLOURS[:16, :16].copy()), "ICO"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_files_are_named(tmp_path: Path, kind: str) -> None:
    (tmp_path / f"{kind}.png").write_bytes(BAD[kind])
    images = ImageFolder(tmp_path)
    with pytest.raises(ImageError, match=f"{kind}.png"):
        images.load(0, Preprocessing("RGB", size=8))


def test_a_limit_of_pixels_can_be_set() -> None:
    with pytest.raises(ImageError, match="30 x 20 pixels; allowed: at most 599"):
        decode(encode(COLOURS), max_pixels=599)
    assert decode(encode(COLOURS), max_pixels=600).shape == (20, 30, 3)


def test_skipping_records_every_bad_file(tmp_path: Path) -> None:
    for kind, data in BAD.items():
        (tmp_path / f"{kind}.png").write_bytes(data)
    (tmp_path / "good.png").write_bytes(encode(COLOURS))
    stream = Stream(ImageFolder(tmp_path, on_bad="skip"), Preprocessing("RGB", size=(8, 8)))
    assert sum(len(batch.indices) for batch in stream) == 1
    assert len(stream.skipped) == len(BAD)


def test_messages_stay_on_one_line() -> None:
    with pytest.raises(ImageError) as caught:
        decode(b"", "two\nlines\x1b[31m \udcff")
    assert str(caught.value) == "two\\nlines\\x1b[31m \\udcff: the file is empty"


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "folder.png" / "x.png").write_bytes(encode(COLOURS))
    images = ImageFolder(tmp_path)
    with pytest.raises(ImageError, match=r"gone\.png: cannot be read"):
        images.load(images.names.index("gone.png"), Preprocessing("RGB"))


@given(st.binary(max_size=200), st.integers(0, 400))
def test_broken_bytes_never_surprise(noise: bytes, where: int) -> None:
    whole = encode(COLOURS, "JPEG") if len(noise) % 2 else encode(COLOURS)
    try:
        pixels = decode(whole[:where] + noise + whole[where + len(noise):])
        assert pixels.dtype == np.uint8 and pixels.ndim == 3
    except ImageError:
        pass


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 40), st.integers(1, 40))
def test_resize_and_crop_equal_pillows_two_steps(height: int, width: int, side: int, crop: int) -> None:
    generator = np.random.default_rng(height * 64 + width)
    pixels = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
    crop = min(crop, side)
    longer = max(side * max(height, width) // min(height, width), 1)
    scale = (side, longer) if height <= width else (longer, side)
    result = fit(pixels, size=side, crop=crop)
    whole = np.asarray(Image.fromarray(pixels).resize((scale[1], scale[0]), Image.Resampling.BILINEAR))
    top, left = (scale[0] - crop) // 2, (scale[1] - crop) // 2
    expected = whole[top:top + crop, left:left + crop]
    assert result.shape == (crop, crop, 3)
    assert np.abs(result.astype(int) - expected).max() <= 1


def test_a_long_thin_picture_takes_little_memory() -> None:
    assert fit(np.zeros((1, 60_000, 1), np.uint8), size=256, crop=224).shape == (224, 224, 3)


def test_exact_size_gray_and_errors() -> None:
    assert fit(COLOURS, size=(5, 9)).shape == (5, 9, 3)
    assert np.array_equal(fit(COLOURS, gray=True)[:, :, 0], np.asarray(Image.fromarray(COLOURS).convert("L")))
    assert np.array_equal(fit(COLOURS, crop=(20, 10)), COLOURS[:, 10:20])
    with pytest.raises(ImageError, match=r"small\.png.*20 x 30.*at least 21 x 21"):
        fit(COLOURS, crop=21, name="small.png")
