"""Checking codes, labels and ids, and packing them in 64-bit words for `ranking`.

Errors are ValueErrors that name the wrong argument of the function in `metrics`.
"""

from collections.abc import Iterator
from operator import index
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Words = NDArray[np.uint64]
Sides = tuple[Words, Words, Words, Words]
Ints = NDArray[np.integer[Any]]
Floats = NDArray[np.float64]

LABELS = 2**22  # entries of label rows that are processed at once


def whole_number(name: str, value: object) -> int:
    """A whole number; a share, NaN, a truth value or a word is none.

    Raises:
        ValueError: it is none.
    """
    try:
        if not isinstance(value, bool | np.bool_ | Tensor):
            return index(value)  # type: ignore[arg-type]
    except TypeError:
        pass
    raise ValueError(f"{name}={value!r}: expected a whole number")


def common_bits(codes: dict[str, Tensor], bits: int | None) -> int:
    """K, which must be the same for all ``codes``; if all are packed, all of their bits."""
    for name, code in codes.items():
        if code.dim() != 2:
            raise ValueError(f"{name}: expected the shape (items, bits), not {tuple(code.shape)}")
    known = {name: code.shape[1] for name, code in codes.items() if code.dtype != torch.uint8}
    if bits is not None:
        known["bits"] = whole_number("bits", bits)
    if len(set(known.values())) > 1:
        raise ValueError(f"codes of different lengths: {known}")
    first = next(iter(codes.values()))
    bits = next(iter(known.values()), 8 * first.shape[1])
    for name, code in codes.items():
        if code.dtype == torch.uint8 and code.shape[1] != -(-bits // 8):
            raise ValueError(
                f"{name}: {code.shape[1]} packed bytes per item do not hold {bits} bits"
            )
    return bits


def pack_codes(name: str, codes: Tensor, first: int = 0) -> NDArray[np.uint8]:
    """Pack codes (N, K) of ±1 as `metrics.pack` does; ``first``: number of the first row."""
    if codes.dtype == torch.uint8:
        raise ValueError(f"{name}: uint8 means packed already, expected ±1 of another dtype")
    wrong = ~((codes == 1) | (codes == -1))
    if wrong.any():
        row, column = divmod(int(wrong.flatten().byte().argmax()), codes.shape[1])
        raise ValueError(
            f"{name}: {codes[row, column].item()} in row {first + row}, column {column} is neither "
            "-1 nor +1; torch.sign(0) is 0, use torch.where(z >= 0, 1, -1)"
        )
    return np.packbits((codes > 0).cpu().numpy(), axis=1)


def code_words(name: str, codes: Tensor, bits: int, first: int = 0) -> Words:
    """Codes of either form as (N, W) words, zero past ``bits``; ``first``: see `pack_codes`."""
    packed = (
        codes.cpu().numpy().copy() if codes.dtype == torch.uint8 else pack_codes(name, codes, first)
    )
    packed[:, bits // 8 :] &= 256 - (1 << (8 - bits % 8))
    return _as_words(packed)


def _as_words(rows: NDArray[np.uint8]) -> Words:
    padded = np.zeros((len(rows), -(-rows.shape[1] // 8) * 8), np.uint8)
    padded[:, : rows.shape[1]] = rows
    return padded.view(np.uint64)


def by_word(rows: Words, order: NDArray[np.intp]) -> Words:
    """(D, W), in an order, as (W, D): one word of all items side by side, for a vector unit."""
    out = np.empty(rows.shape[::-1], np.uint64)
    for word, column in zip(out, rows.T, strict=True):
        np.take(column, order, out=word, mode="clip")  # the default mode takes a copy of it
    return out


def check_labels(name: str, labels: Tensor) -> None:
    """Refuse labels that are not of the shape (N, C)."""
    if labels.dim() != 2:
        raise ValueError(f"{name}: expected the shape (items, classes), not {tuple(labels.shape)}")


def hot_rows(name: str, labels: Tensor) -> Iterator[tuple[slice, NDArray[np.bool_]]]:
    """Labels (N, C) as booleans, 4 MB at a time, each part with the slice of its rows."""
    check_labels(name, labels)
    step = max(1, LABELS // max(1, labels.shape[1]))
    for start in range(0, max(1, len(labels)), step):
        rows = slice(start, start + step)
        part = labels[rows].cpu()
        if part.dtype == torch.uint8:  # the type of data sets: no copy is made
            valid, hot = part.numpy().max(initial=0) <= 1, part.numpy().view(np.bool_)
        else:
            valid, hot = torch.equal(part.bool().to(part.dtype), part), part.bool().numpy()
        if not valid:
            raise ValueError(f"{name}: expected 0 and 1 only, one column per class")
        yield rows, hot


def tag_words(name: str, labels: Tensor) -> tuple[Words, NDArray[np.uint16] | None]:
    """Labels (N, C) as words (N, T), and the single tag of each row (C if it has none).

    The single tags are None if a row has two tags, or if there are 2^16 classes or more: numpy
    sorts 16-bit numbers by counting.
    """
    items, classes = len(labels), labels.shape[-1]
    words: Words = np.zeros((items, -(-classes // 64)), np.uint64)
    single = classes < 2**16
    packed, tag = words.view(np.uint8), np.full(items, classes if single else 0, np.uint16)
    for rows, hot in hot_rows(name, labels):
        packed[rows, : -(-classes // 8)] = np.packbits(hot, axis=1)
        if single and hot.size:
            tags = np.bitwise_count(words[rows]).sum(1)
            tag[rows] = np.where(tags == 0, classes, hot.argmax(1))
            single = bool(tags.max() <= 1)
    return words, tag if single else None


def check_classes(labels: Tensor, other: Tensor) -> None:
    """Refuse labels (N, C) and (M, C') of different numbers of classes."""
    if labels.shape[1] != other.shape[1]:
        raise ValueError(f"labels of {labels.shape[1]} classes against {other.shape[1]} classes")


def check_ids(database: int, ids: Tensor) -> None:
    """Refuse ids that are not D distinct integers."""
    names = ids.cpu().numpy()
    if names.shape != (database,) or names.dtype.kind not in "iu":
        raise ValueError(f"ids: expected {database} integers, not {names.dtype} {names.shape}")
    if len(np.unique(names)) < database:
        raise ValueError("ids: one id names two items, which would leave their order open")


def seeded_order(database: int, ids: Tensor | None, seed: int) -> NDArray[np.intp]:
    """Positions of the items in the order of a random number made from each id (splitmix64)."""

    def mix(x: Words) -> Words:  # in place
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            x ^= x >> np.uint64(shift)
            x *= np.uint64(factor)
        x ^= x >> np.uint64(31)
        return x

    salt = mix(np.array([seed]).astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15))
    names = np.arange(database) if ids is None else ids.cpu().numpy()
    # Different ids get different numbers, because each step is invertible.
    return np.argsort(mix(names.astype(np.uint64) ^ salt))
