"""Files that are not what their name promises, recognised by their first bytes."""

from __future__ import annotations

_GET_AGAIN = "get the file again"

# What a file starts with, what it is, and the remedy if there is only one.
_BY_START: tuple[tuple[bytes, str, str | None], ...] = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself", "fetch the content with 'git lfs pull'"),
    (b"<!doctype html", "a web page that was saved in place of the file", "download it again"),
    (b"<html", "a web page that was saved in place of the file", "download it again"),
    (b"\x00\x05\x16\x07", "the metadata that macOS stores beside a file", _GET_AGAIN),
    (b"GIF8", "a GIF image", None),
    (b"II*\x00", "a TIFF image", None),
    (b"MM\x00*", "a TIFF image", None),
    (b"\xff\x0a", "a JPEG XL image", None),
    (b"\x00\x00\x00\x0cJXL ", "a JPEG XL image", None),
    (b"\x00\x00\x00\x0cjP  ", "a JPEG 2000 image", None),
    (b"8BPS", "a Photoshop file", None),
    (b"<svg", "an SVG drawing", None),
    (b"<?xml", "an XML file, perhaps an SVG drawing", None),
    (b"%PDF", "a PDF file", None),
    (b"\x93NUMPY", "a NumPy array", None),
    (b"PK\x03\x04", "a zip archive", "unpack it"),
    (b"Rar!", "a RAR archive", "unpack it"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", "unpack it"),
    (b"\x1f\x8b", "a gzip archive", "unpack it"),
    (b"\xfd7zXZ\x00", "an xz archive", "unpack it"),
    (b"BZh91AY", "a bzip2 archive", "unpack it"),
    (b"(\xb5/\xfd", "a Zstandard archive", "unpack it"),
)
# ISO media files have their brand after the size and the word "ftyp".
_BY_BRAND = {"avif": "an AVIF image", "avis": "an AVIF image"} | dict.fromkeys(
    ("heic", "heix", "heim", "heis", "hevc", "hevx", "mif1", "msf1"), "a HEIC image"
)


def impostor(data: bytes, otherwise: str) -> str | None:
    """Return a clause such as ``is empty; get the file again``, or ``None`` if the bytes give nothing away.

    ``data`` is the content of a file that could not be read as what it should be, or its first 512 bytes.
    ``otherwise`` says what to do about a sound file of another kind.
    """
    if not data:
        return f"is empty; {_GET_AGAIN}"
    if not data.strip(b"\x00"):
        return f"holds nothing but zero bytes; {_GET_AGAIN}"
    if data[4:8] == b"ftyp":
        brand = data[8:12].decode("latin-1")
        return f"is {_BY_BRAND[brand]}; {otherwise}" if brand in _BY_BRAND else None
    if data.startswith(b"PK\x03\x04") and b"[Content_Types].xml" in data[:512]:
        return "is a spreadsheet or another document of Office; save its table as CSV"
    text = data[:64].lstrip().lower()
    for start, kind, remedy in _BY_START:
        if data.startswith(start) or text.startswith(start):
            return f"is {kind}; {remedy or otherwise}"
    return None
