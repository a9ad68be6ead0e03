"""Decoding: the same pixels as the field's loaders, known answers for every colour mode, clear refusals."""

from __future__ import annotations

import io
import re
import struct
import subprocess
import sys
import threading
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image, ImageOps

from shipbench.data import images
from shipbench.data.framing import resize
from shipbench.data.images import (
    MAX_PHOTOGRAPH_PIXELS,
    MAX_PIXELS,
    decode,
    decode_photograph,
    identify_picture,
    image_format,
    sniff,
    to_rgb,
)
from shipbench.errors import InputError
from tests.data.builders import encode

RNG = np.random.default_rng(7)
PHOTO = RNG.integers(0, 256, (31, 47, 3)).astype(np.uint8)


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def pixels(data: bytes) -> np.ndarray:
    image = decode(data, "image")
    assert image.mode == "RGB"
    return np.asarray(image)


@pytest.mark.parametrize("kind", ["png", "bmp", "ppm"])
def test_lossless_files_keep_their_pixels(kind: str) -> None:
    assert np.array_equal(pixels(encode(PHOTO, kind)), PHOTO)


def test_jpeg_decodes_as_pillow_does() -> None:
    data = encode(PHOTO, "jpeg")
    assert np.array_equal(pixels(data), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


def test_grey_is_repeated_over_channels() -> None:
    grey = PHOTO[..., 0]
    assert np.array_equal(pixels(encode(grey)), np.repeat(grey[..., None], 3, axis=2))


def test_one_bit_is_black_and_white() -> None:
    mask = PHOTO[..., 0] > 127
    data = saved(Image.fromarray(mask), "PNG")
    assert np.array_equal(pixels(data)[..., 1], mask * 255)


@pytest.mark.parametrize(("mode", "channels"), [("LA", 2), ("RGBA", 4)])
def test_transparency_is_dropped_and_the_colour_kept(mode: str, channels: int) -> None:
    array = RNG.integers(0, 256, (5, 6, channels)).astype(np.uint8)
    array[..., -1] = np.arange(6) * 51
    colour = np.repeat(array[..., :1], 3, axis=2) if mode == "LA" else array[..., :3]
    assert np.array_equal(pixels(saved(Image.fromarray(array, mode), "PNG")), colour)


@pytest.mark.parametrize("transparency", [None, 1, bytes([0, 128, 255])])
def test_palettes_are_looked_up(transparency: int | bytes | None) -> None:
    image = Image.new("P", (3, 1))
    image.putpalette([10, 20, 30, 200, 100, 50, 1, 2, 3])
    image.putdata([0, 1, 2])
    options = {} if transparency is None else {"transparency": transparency}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        decoded = pixels(saved(image, "PNG", **options))
    assert decoded.tolist() == [[[10, 20, 30], [200, 100, 50], [1, 2, 3]]]


@pytest.mark.parametrize("kind", ["png", "ppm"])
def test_sixteen_bit_grey_is_scaled_not_clipped(kind: str) -> None:
    values = np.array([[0, 128, 129, 257, 32768, 65278, 65535]], dtype=np.uint16)
    assert pixels(encode(values, kind))[0, :, 0].tolist() == [0, 0, 1, 1, 128, 254, 255]


def test_big_endian_sixteen_bit_grey_is_scaled() -> None:
    image = Image.frombytes("I;16B", (2, 1), b"\x80\x00\xff\xff")
    assert np.asarray(to_rgb(image))[0, :, 2].tolist() == [128, 255]


def test_cmyk_jpeg_becomes_rgb() -> None:
    flat = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    decoded = pixels(saved(flat, "JPEG", quality=95))
    assert np.abs(decoded.astype(int) - [255, 0, 0]).max() <= 4


def test_exif_orientation_is_ignored() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = saved(Image.fromarray(PHOTO), "JPEG", exif=exif)
    assert decode(turned, "image").size == (47, 31)
    assert np.array_equal(pixels(turned), pixels(encode(PHOTO, "jpeg")))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("kind", "options"), [("JPEG", {}), ("PNG", {}), ("WEBP", {"lossless": True})])
def test_a_photograph_is_turned_upright(orientation: int, kind: str, options: dict[str, bool]) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = saved(Image.fromarray(PHOTO), kind, exif=exif, **options)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(turned)).convert("RGB"))
    upright = decode_photograph(turned, "image")
    assert upright.size == ((47, 31) if orientation < 5 else (31, 47))
    assert np.array_equal(np.asarray(upright), np.asarray(expected))


def test_sixteen_bit_photographs_are_turned_too() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = saved(Image.fromarray(np.array([[0, 257, 65535]], dtype=np.uint16)), "PNG", exif=exif)
    assert np.asarray(decode_photograph(data, "image"))[:, 0, 0].tolist() == [0, 1, 255]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("exif", [b"", b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\0\x09"])
def test_damaged_metadata_leave_a_photograph_as_stored(exif: bytes) -> None:
    data = saved(Image.fromarray(PHOTO), "JPEG", exif=exif)
    assert decode_photograph(data, "image").size == (47, 31)


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "ppm"])
@pytest.mark.parametrize("lost", [0.5, 0.9, 1])
def test_truncated_files_are_refused_by_name(kind: str, lost: float) -> None:
    data = encode(PHOTO, kind)
    cut = data[:-1] if lost == 1 else data[: int(len(data) * (1 - lost))]
    with pytest.raises(InputError, match=r"images/test/3\.img"):
        decode(cut, "images/test/3.img")


def test_damaged_pixels_are_refused() -> None:
    data = bytearray(encode(PHOTO))
    data[len(data) // 2] ^= 0xFF
    with pytest.raises(InputError, match="cannot be decoded"):
        decode(bytes(data), "x.png")


@pytest.mark.parametrize("data", [b"", b"hello", b"GIF89a" + b"\0" * 40, b"\x89PNG\r\n\x1a\n"])
def test_other_files_are_refused(data: bytes) -> None:
    with pytest.raises(InputError, match=r"x\.png"):
        decode(data, "x.png")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is empty; get the file again"),
        (bytes(64), "holds nothing but zero bytes; get the file again"),
        (encode(PHOTO, "gif"), "is a GIF image; convert it to PNG"),
        (encode(PHOTO, "tiff"), "is a TIFF image; convert it to PNG"),
        (b"\0\0\0\x18ftypheic" + b"\0" * 40, "is a HEIC image; convert it to PNG"),
        (b"\0\0\0\x20ftypavif" + b"\0" * 40, "is an AVIF image; convert it to PNG"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a Git LFS pointer, not the file itself;"),
        (b"\n <!DOCTYPE HTML>\n<html>404</html>", "is a web page that was saved in place of the file; download it"),
        (b"\x00\x05\x16\x07\x00\x02", "is the metadata that macOS stores beside a file"),
        (b"PK\x03\x04 and so on", "is a zip archive; unpack it"),
        (b"\x89PNG\r\n\x1a\n", "cannot be decoded: the png file is truncated or damaged"),
        (b"\xff\xd8\xff", "cannot be decoded"),
        (b"hello", "is not an image (JPEG, PNG, WebP, BMP or PPM)"),
    ],
)
def test_the_message_says_what_the_file_is(data: bytes, words: str) -> None:
    with pytest.raises(InputError, match=re.escape(f"x.png {words}")):
        decode(data, "x.png")


@pytest.mark.parametrize("side", [7072, 30_000])
def test_absurd_dimensions_are_refused_without_decoding(side: int) -> None:
    assert side * side > MAX_PIXELS
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 10)), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        for name, content in chunks
    )
    with pytest.raises(InputError, match=r"huge\.png is .*pixels"):
        decode(b"\x89PNG\r\n\x1a\n" + body, "huge.png")


def test_a_photograph_may_be_the_first_image_of_an_animation() -> None:
    frames = [Image.new("P", (3, 1)), Image.new("P", (3, 1))]
    for frame, colour in zip(frames, ([10, 20, 30], [1, 2, 3]), strict=True):
        frame.putpalette(colour)
    data = saved(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert np.asarray(decode_photograph(data, "cat.jpg")).tolist() == [[[10, 20, 30]] * 3]


def test_a_photograph_may_be_larger_than_an_image_of_a_data_set() -> None:
    side = int(MAX_PIXELS**0.5) + 1
    assert side * side * 2 < MAX_PHOTOGRAPH_PIXELS
    large = saved(Image.new("L", (side, side * 2), 7), "PNG", compress_level=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decode_photograph(large, "photo.png").size == (side, side * 2)
    with pytest.raises(InputError, match=r"photo\.png is .*pixels"):
        decode(large, "photo.png")
    huge = saved(Image.new("1", (30_000, 5_100)), "PNG", compress_level=1)
    with pytest.raises(InputError, match=r"photo\.png is 30000 x 5100 pixels, more than the allowed 150000000"):
        decode_photograph(huge, "photo.png")


def test_floating_point_pixels_are_refused() -> None:
    with pytest.raises(ValueError, match="8-bit"):
        to_rgb(Image.new("F", (2, 2)))


@pytest.mark.parametrize("size", [1, 10, 32, 224])
@pytest.mark.parametrize("shape", [(31, 47), (32, 32), (300, 20)])
def test_resize_is_pillows_bicubic(size: int, shape: tuple[int, int]) -> None:
    image = Image.fromarray(RNG.integers(0, 256, (*shape, 3)).astype(np.uint8))
    resized = resize(image, size)
    assert resized.dtype == np.uint8
    assert np.array_equal(resized, np.asarray(image.resize((size, size), Image.Resampling.BICUBIC)))


def test_a_flat_image_of_any_shape_stays_flat() -> None:
    flat = Image.new("RGB", (37, 5), (12, 200, 99))
    assert (resize(flat, 64) == (12, 200, 99)).all()


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (encode(PHOTO, "jpeg"), "jpeg"),
        (encode(PHOTO, "png"), "png"),
        (encode(PHOTO, "webp"), "webp"),
        (saved(Image.fromarray(PHOTO), "WEBP", lossless=True), "webp-lossless"),
        (saved(Image.fromarray(PHOTO), "WEBP", lossless=True, exif=b"Exif\0\0MM"), "webp-lossless"),
        # Of an odd length, before the pixels.
        (saved(Image.fromarray(PHOTO), "WEBP", lossless=True, icc_profile=b"sRG"), "webp-lossless"),
        (saved(Image.fromarray(PHOTO), "WEBP", icc_profile=b"VP8L"), "webp"),
        (encode(PHOTO, "webp")[:14], "webp"),
        (encode(PHOTO, "bmp"), "bmp"),
        (encode(PHOTO, "ppm"), "ppm"),
        (saved(Image.fromarray(PHOTO), "TIFF"), "tiff"),
        (saved(Image.fromarray(PHOTO), "GIF"), "gif"),
        (b"plain text", "unknown"),
        (b"", "unknown"),
    ],
)
def test_the_kind_follows_from_the_bytes(data: bytes, kind: str) -> None:
    assert sniff(data) == kind


def test_one_lossy_file_makes_a_lossy_copy() -> None:
    assert image_format({"png", "jpeg"}) == "jpeg"
    assert image_format({"webp"}) == "jpeg"
    assert image_format({"png", "bmp", "ppm", "webp-lossless"}) == "png"


def tiff(channels: int, bits: int, pixels: bytes) -> bytes:
    """Build an uncompressed TIFF of 2 x 2 pixels, as satellites deliver with more channels than Pillow reads."""
    tags = [
        (256, 2),
        (257, 2),
        (258, bits),
        (259, 1),
        (262, 1),
        (273, 8),
        (277, channels),
        (278, 2),
        (279, len(pixels)),
    ]
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return (
        struct.pack("<2sHI", b"II", 42, 8 + len(pixels)) + pixels + struct.pack("<H", len(tags)) + directory + bytes(4)
    )


def test_a_tiff_of_many_channels_is_refused_as_such() -> None:
    whole = tiff(13, 16, bytes(2 * 2 * 13 * 2))
    with pytest.raises(InputError, match=r"is a TIFF image with 13 channels of 16 bits, which is not read; convert it"):
        decode_photograph(whole, "image")
    with pytest.raises(InputError, match=r"the tiff file is truncated or damaged|Invalid dimensions"):
        decode_photograph(whole[:60], "image")


def test_what_pillow_logs_is_not_printed() -> None:
    code = (
        "from shipbench.data.images import decode_photograph\nfrom shipbench.errors import InputError\n"
        f"try: decode_photograph({tiff(13, 16, bytes(104))!r}, 'image')\nexcept InputError: pass\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    assert done.stderr == b""


def test_pictures_that_differ_in_their_palette_alone_have_two_identities() -> None:
    black, red = Image.new("P", (4, 4)), Image.new("P", (4, 4))
    black.putpalette([0, 0, 0])
    red.putpalette([255, 0, 0])
    assert black.tobytes() == red.tobytes()
    assert identify_picture(black) != identify_picture(red)


def test_threads_that_decode_leave_the_warnings_of_others_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    entered, started, ended = threading.Event(), threading.Event(), threading.Event()

    def decode_first(data: bytes, *_: object, **__: object) -> None:
        # The first that begins is the first that ends, while the second is under way.
        if data == b"first":
            entered.set()
            assert started.wait(10)
        else:
            started.set()
            assert ended.wait(10)

    def first_of_two() -> None:
        decode_photograph(b"first", "")
        ended.set()

    monkeypatch.setattr(images, "_decode", decode_first)
    before = list(warnings.filters)
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(first_of_two)
        assert entered.wait(10)
        second = threads.submit(decode_photograph, b"second", "")
        first.result()
        second.result()
    assert warnings.filters == before
