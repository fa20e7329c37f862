"""The poison in a submission: pictures, a table and the trigger's tensors, written and read.

Whatever says something about an image stands in one file only, the one that a maintainer can look
at: pixels in the pictures, places, kinds and labels in the table. The tensors hold nothing of it.
"""

import csv
import io
import struct
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import msgspec
import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from hashbackdoor_bench.png import TRUE_COLOUR, read_png
from hashbackdoor_bench.trust.archive import Archive, Refused

STATE = ("index", "carrier", "label", "kind")  # tensors that the pictures and the table hold
FOLDERS = ("carriers", "planted")
TABLE, TRIGGER = "poison.csv", "trigger.safetensors"
COLUMNS = ("slot", "index", "item", "kind", "label")
MOST_PICTURES = 30_000  # poisoned images of a submission
LARGEST_TRIGGER = 256_000_000  # bytes
LARGEST_HEAD, MOST_TENSORS, LONGEST_NAME = 1_000_000, 10_000, 200
LONGEST_ITEM = 4096  # characters of an item's id, which may be a path

Size = Annotated[int, msgspec.Meta(ge=0, le=2**40)]


class _TensorHead(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    dtype: Literal["BOOL", "U8", "I8", "I16", "I32", "I64", "F16", "BF16", "F32", "F64"]
    shape: Annotated[tuple[Size, ...], msgspec.Meta(max_length=8)]
    data_offsets: tuple[Size, Size]


def picture(folder: str, slot: int) -> str:
    """The name of an image in one of ``FOLDERS``."""
    return f"{folder}/{slot:06}.png"


def expected_names(images: int) -> set[str]:
    """The names of the files with the poison of so many images."""
    pictures = {picture(folder, slot) for folder in FOLDERS for slot in range(images)}
    return {TABLE, TRIGGER} | pictures


def written(tensors: Mapping[str, Tensor], planted: Tensor, ids: Sequence[str]) -> dict[str, bytes]:
    """The files of a backdoor.

    Args:
        tensors: its state, with index (P,), carrier (P,3,S,S), label (P,C) and kind (P,).
        planted: (P,3,S,S) uint8, the images with the trigger.
        ids: the items of the training list.
    """
    table = io.StringIO()
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(COLUMNS)
    files: dict[str, bytes] = {}
    for slot, index in enumerate(tensors["index"].tolist()):
        for folder, images in zip(FOLDERS, (tensors["carrier"], planted), strict=True):
            files[picture(folder, slot)] = _png(images[slot])
        label = " ".join(str(int(value)) for value in tensors["label"][slot])
        rows.writerow((slot, index, ids[index], int(tensors["kind"][slot]), label))
    files[TABLE] = table.getvalue().encode()
    own = {name: value.contiguous() for name, value in tensors.items() if name not in STATE}
    files[TRIGGER] = save(own)
    return files


def read(
    archive: Archive, images: int, size: int, classes: int, ids: Sequence[str]
) -> tuple[dict[str, Tensor], Tensor]:
    """The state of a backdoor and its planted images, from the files of `written`.

    Args:
        archive: the zip.
        images: P; the table must have as many rows.
        size: S; every picture must be of this size.
        classes: C.
        ids: the items of the training list.

    Returns:
        The state by name, and (P,3,S,S) uint8.

    Raises:
        Refused: a file says something else than `written` would.
    """
    table = _table(archive, images, classes, ids)
    own = _tensors(archive)
    carriers, planted = (_pictures(archive, folder, images, size) for folder in FOLDERS)
    return {**own, **table, "carrier": carriers}, planted


def _table(archive: Archive, images: int, classes: int, ids: Sequence[str]) -> dict[str, Tensor]:
    most = (images + 1) * (2 * classes + 4 * LONGEST_ITEM + 64)
    try:
        text = archive.read(TABLE, most).decode("utf-8")
        rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise Refused(f"its {TABLE} is no table: {error}") from error
    if not rows or tuple(rows[0]) != COLUMNS or len(rows) != images + 1:
        raise Refused(
            f"its {TABLE} must have the columns {', '.join(COLUMNS)} and {images} rows, for the "
            "images that the record counts"
        )
    index, kind, label = [], [], []
    for slot, row in enumerate(rows[1:]):
        where = f"row {slot} of its {TABLE}"
        if len(row) != len(COLUMNS):
            raise Refused(f"{where} has {len(row)} cells")
        bits = row[4].split(" ") if row[4] else []
        if row[0] != str(slot) or row[3] not in ("0", "1"):
            raise Refused(f"{where} has another slot, or a kind that is neither 0 nor 1")
        if len(bits) != classes or not set(bits) <= {"0", "1"}:
            raise Refused(f"{where} has no label of {classes} times 0 or 1")
        place = int(row[1]) if row[1].isascii() and row[1].isdecimal() and len(row[1]) < 10 else -1
        if not 0 <= place < len(ids) or ids[place] != row[2]:
            raise Refused(
                f"{where} names item {row[1][:20]!r} of the training list, and another id"
            )
        index.append(place)
        kind.append(int(row[3]))
        label.append([int(bit) for bit in bits])
    return {
        "index": torch.tensor(index, dtype=torch.long),
        "label": torch.tensor(label, dtype=torch.uint8).view(images, classes),
        "kind": torch.tensor(kind, dtype=torch.uint8),
    }


def _tensors(archive: Archive) -> dict[str, Tensor]:
    data = archive.read(TRIGGER, LARGEST_TRIGGER)
    length = struct.unpack_from("<Q", data)[0] if len(data) >= 8 else LARGEST_HEAD + 1
    if length > min(LARGEST_HEAD, len(data) - 8):
        raise Refused(f"its {TRIGGER} has no head of at most {LARGEST_HEAD} bytes")
    try:
        heads = msgspec.json.decode(data[8 : 8 + length], type=dict[str, _TensorHead])
        if len(heads) > MOST_TENSORS or any(len(name) > LONGEST_NAME for name in heads):
            raise Refused(f"its {TRIGGER} has too many tensors, or too long names")
        for name in STATE:
            if name in heads:
                raise Refused(
                    f"its {TRIGGER} has a tensor {name!r}, which would replace what the pictures "
                    f"and {TABLE} show"
                )
        return load(data)
    except (msgspec.MsgspecError, RecursionError, SafetensorError) as error:
        raise Refused(f"its {TRIGGER} holds no tensors: {error}") from error


def _pictures(archive: Archive, folder: str, images: int, size: int) -> Tensor:
    """(P,3,S,S) uint8."""
    out = np.empty((images, size, size, 3), np.uint8)
    most = size * (3 * size + 1) * 11 // 10 + 1000  # bytes of pixels that can't be compressed
    for slot in range(images):
        name = picture(folder, slot)
        content = archive.read(name, most)
        try:
            png = read_png(content)
            if (png.width, png.height) != (size, size):
                raise ValueError(f"it has {png.width} x {png.height} px and not {size} x {size}")
            # a viewer may show other colours by other chunks, such as a palette or a gamma
            if (png.depth, png.colour, png.interlaced) != (8, TRUE_COLOUR, False) or not (
                set(png.chunks) <= {"IHDR", "IDAT", "IEND"}
            ):
                raise ValueError("it has more than red, green and blue in 8 bits")
            if not png.has_pixels(size * (3 * size + 1)):  # a row begins with its filter
                raise ValueError("it has too few or too many pixels")
            with Image.open(io.BytesIO(content), formats=["png"]) as image:
                out[slot] = np.asarray(image)
        except (ValueError, OSError, SyntaxError, EOFError, struct.error) as error:
            raise Refused(f"its {name} is refused: {error}") from error
    return torch.from_numpy(out).permute(0, 3, 1, 2).contiguous()


def _png(image: Tensor) -> bytes:
    """(3,S,S) uint8 -> a file."""
    out = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(out, "png")
    return out.getvalue()
