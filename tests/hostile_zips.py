"""Submissions that nobody should send: one zip per kind of harm, and zips with random damage."""

import io
import json
import random
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hashbackdoor_bench.records.record import _NUMBERS
from hashbackdoor_bench.spec import digest

Parts = dict[str, bytes]


def parts_of(path: Path) -> Parts:
    with zipfile.ZipFile(path) as file:
        return {name: file.read(name) for name in file.namelist()}


def zipped(parts: Parts, method: int = zipfile.ZIP_DEFLATED, **attributes: Any) -> bytes:
    """A zip; attributes are set on the entry of the last part."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        for number, (name, content) in enumerate(parts.items()):
            info = zipfile.ZipInfo(name)
            if number == len(parts) - 1:
                for key, value in attributes.items():
                    setattr(info, key, value)
            file.writestr(info, content, method)
    return out.getvalue()


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(
        ">I", zlib.crc32(name + content)
    )  # fmt: skip


def png(width: int, height: int, *, depth: int = 8, colour: int = 2, interlace: int = 0,
        more: bytes = b"", data: bytes | None = None) -> bytes:  # fmt: skip
    """A black PNG of any size, in few bytes."""
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace)
    if data is None:
        pack, row, out = zlib.compressobj(9), bytes(1 + 3 * width * depth // 8), []
        out = [pack.compress(row) for _ in range(height)]
        data = b"".join(out) + pack.flush()
    body = chunk(b"IHDR", head) + more + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def image(mode: str, size: int = 32, **save: Any) -> bytes:
    out = io.BytesIO()
    Image.new(mode, (size, size)).save(out, "png", **save)
    return out.getvalue()


def safetensors(heads: Any, data: bytes = b"", length: int | None = None) -> bytes:
    text = heads if isinstance(heads, bytes) else json.dumps(heads).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def tensor(dtype: str, shape: list[int], start: int, end: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def record(parts: Parts, change: Callable[[dict[str, Any]], None], *, forge: bool = True) -> bytes:
    """The record after a change, by default with key and checksum computed again."""
    values = json.loads(parts["record.json"])
    change(values)
    if forge:
        values.pop("checksum", None)
        spec = {k: v for k, v in values["spec"].items() if k not in ("lists", "root", "weights")}
        try:
            values["key"] = digest({"schema": 1, "spec": spec, "artifacts": values["artifacts"]})
            values["checksum"] = digest(values)
        except RecursionError:
            pass
    text = json.dumps(values, indent=1, sort_keys=True) + "\n"
    return _NUMBERS.sub(lambda found: "".join(found[0].split()), text).encode()


def setting(**fields: Any) -> Callable[[dict[str, Any]], None]:
    return lambda values: values["spec"].update(fields)


def hostile_parts(good: Parts) -> Iterator[tuple[str, Parts]]:
    """Zips whose layout is right and of which one part is not."""
    first, rows = "planted/000000.png", good["poison.csv"].decode().split("\n")
    for what, content in {
        "9000 px": png(9000, 9000), "2**31 px": png(2**31 - 1, 2**31 - 1, data=b"x"),
        "31 px": png(31, 32), "0 px": png(0, 0), "16 bits": png(32, 32, depth=16),
        "grey": image("L"), "palette": image("P"), "alpha": image("RGBA"),
        "gamma": png(32, 32, more=chunk(b"gAMA", b"\0\0\0\1")),
        "transparent": png(32, 32, more=chunk(b"tRNS", bytes(6))),
        "animated": png(32, 32, more=chunk(b"acTL", struct.pack(">II", 2, 0))),
        "interlaced": png(32, 32, interlace=1), "no pixels": png(32, 32, data=b""),
        "too few pixels": png(32, 32, data=zlib.compress(bytes(97))),
        "bomb": png(32, 32, data=zlib.compress(bytes(50_000_000))),
        "not deflate": png(32, 32, data=b"hello"), "html": b"<script>",
        "empty": b"", "jpeg": image("RGB").replace(b"\x89PNG", b"\xff\xd8\xff\xe0"),
        "trailing": image("RGB") + b"PK", "cut": image("RGB")[:-20],
        "text": png(32, 32, more=chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(50_000_000)))),
    }.items():  # fmt: skip
        yield f"png: {what}", good | {first: content}
    for what, content in {
        "index": safetensors({"index": tensor("I64", [1], 0, 8)}, bytes(8)),
        "carrier": safetensors({"carrier": tensor("U8", [1], 0, 1)}, bytes(1)),
        "label": safetensors({"label": tensor("U8", [1], 0, 1)}, bytes(1)),
        "kind": safetensors({"kind": tensor("U8", [12], 0, 12)}, bytes(12)),
        "no head": b"", "short": b"\x01", "long head": safetensors({}, length=2**62),
        "deep": safetensors(b"[" * 100_000), "list": safetensors([]), "null": safetensors(b"null"),
        "overflow": safetensors({"patch": tensor("F32", [2**40, 2**40], 0, 4)}, bytes(4)),
        "negative": safetensors({"patch": tensor("F32", [-1], 0, 4)}, bytes(4)),
        "overlap": safetensors({"patch": tensor("U8", [4], 0, 4), "x": tensor("U8", [4], 0, 4)},
                               bytes(4)),
        "beyond": safetensors({"patch": tensor("U8", [4], 0, 400)}, bytes(4)),
        "dtype": safetensors({"patch": tensor("Q7", [4], 0, 4)}, bytes(4)),
        "other name": safetensors({"self": tensor("U8", [4], 0, 4)}, bytes(4)),
        "other shape": safetensors({"patch": tensor("U8", [3, 0, 0], 0, 0)}),
        "large patch": safetensors({"patch": tensor("U8", [3, 900, 900], 0, 2430000)},
                                   bytes(2430000)),
        "nan": safetensors({"patch": tensor("F32", [3, 4, 4], 0, 192)},
                           np.full(48, np.nan, np.float32).tobytes()),
        "bomb": safetensors({"patch": tensor("U8", [300_000_000], 0, 300_000_000)},
                            bytes(300_000_000)),
    }.items():  # fmt: skip
        yield f"safetensors: {what}", good | {"trigger.safetensors": content}
    row = rows[1].split(",")
    for what, text in {
        "a million rows": "\n".join([rows[0], *rows[1:2] * 1_000_000]),
        "a long cell": "\n".join([rows[0], f'0,0,"{"x" * 1_000_000}",0,1 0 0', *rows[2:]]),
        "a null": "\n".join([rows[0], "0,\0,x,0,1 0 0", *rows[2:]]),
        "no rows": rows[0], "nothing": "", "other columns": "a,b\n1,2\n",
        "an index of 400 digits": "\n".join([rows[0], f"0,{'9' * 400},x,0,1 0 0", *rows[2:]]),
        "a negative index": "\n".join([rows[0], ",".join(["0", "-1", *row[2:]]), *rows[2:]]),
        "arabic digits": "\n".join([rows[0], ",".join(["0", "\u0661", *row[2:]]), *rows[2:]]),
        "an item twice": "\n".join([rows[0], *[",".join([str(n), *row[1:]]) for n in range(12)],
                                    ""]),
        "kind 255": "\n".join([rows[0], ",".join([*row[:3], "255", row[4]]), *rows[2:]]),
        "all covers": "\n".join([rows[0], *[r.replace(",0,", ",1,") for r in rows[1:]]]),
        "label 2": "\n".join([rows[0], ",".join([*row[:4], "2 0 0"]), *rows[2:]]),
        "a long label": "\n".join([rows[0], ",".join([*row[:4], "0 " * 9999]), *rows[2:]]),
        "an open quote": rows[0] + '\n"' + "\n".join(rows[1:]),
        "another item": "\n".join([rows[0], ",".join([*row[:2], "x", *row[3:]]), *rows[2:]]),
    }.items():  # fmt: skip
        yield f"csv: {what}", good | {"poison.csv": text.encode()}
    yield "csv: bytes", good | {"poison.csv": b"\xff\xfe" * 100}
    changes: dict[str, Callable[[dict[str, Any]], None]] = {
        "epochs": setting(epochs=10**12), "batch": setting(batch_size=10**12),
        "bits": setting(bits=10**12), "size": setting(size=10**6), "R": setting(top_k=10**400),
        "count": setting(poison_count=10**18), "seed": setting(seed=-1),
        "no attack": setting(attack="no_such_attack"), "path": setting(attack="../../x"),
        "victim": setting(victim="\x1b[2J"), "target": setting(target="x" * 4000),
        "root": setting(root="/dev/zero"), "lists": setting(lists="/dev"),
        "settings": setting(attack_settings=[["patch", [1]]]),
        "same setting": setting(attack_settings=[["patch", 1], ["patch", 2]]),
        "deep setting": setting(attack_settings=[["patch", [[[[[[[[[[1]]]]]]]]]]]]),
        "poisoned": lambda v: v["threat"].update(poisoned=2**40),
        "train": lambda v: v["protocol"].update(train=2**50, query=2**50, database=2**50),
        "scores": lambda v: v["scores"]["field"].update(t_map=0.99),
    }  # fmt: skip
    for what, change in changes.items():
        yield f"record: {what}", good | {"record.json": record(good, change)}
    text = good["record.json"]
    for what, content in {
        "deep": text.replace(b'"seed": 0', b'"seed": ' + b"[" * 5000 + b"]" * 5000),
        "long number": text.replace(b'"seed": 0', b'"seed": ' + b"9" * 5000),
        "nan": text.replace(b'"seed": 0', b'"seed": NaN'), "twice": b'{"schema": 1,' + text[1:],
        "63 MB": text + b" " * 63_000_000, "empty": b"", "other bytes": text + b" ",
    }.items():  # fmt: skip
        yield f"record: {what}", good | {"record.json": content}
    for name in list(good)[:2]:
        yield f"without {name}", {k: v for k, v in good.items() if k != name}
    for name in (
        "../../x.png", "/etc/passwd", "carriers/", "CARRIERS/000000.png", "carriers/000000.png\0",
        "carriers\\000000.png", "carriers/000099.png", "attack.py", "index.html", "x" * 60_000,
        "carriers/./000000.png", "record.json ", "räcord.json",
    ):  # fmt: skip
        yield f"name {name[:30]!r}", good | {name: b"x"}


def hostile_layouts(good: Parts) -> Iterator[tuple[str, bytes]]:
    """Zips of which the parts are right and the layout is not."""
    plain = zipped(good)
    yield "encrypted", patched(plain, flag=0x0001)
    yield "descriptor", patched(plain, flag=0x0008)
    yield "strong encryption", patched(plain, flag=0x0040)
    yield "unknown method", patched(plain, method=99)
    yield "bzip2", zipped(good, zipfile.ZIP_BZIP2)
    yield "lzma", zipped(good, zipfile.ZIP_LZMA)
    yield "declared larger", patched(plain, size=2**31)
    yield "declared smaller", patched(plain, size=3)
    yield "wrong checksum", patched(plain, checksum=7)
    yield "a link", zipped(good, external_attr=0o120777 << 16)
    yield "a device", zipped(good, external_attr=0o060666 << 16)
    yield "extra field", zipped(good, extra=struct.pack("<HH", 0x7075, 4) + b"abcd")
    yield "comment of a part", zipped(good, comment=b"x")
    yield "something before", b"#!/bin/sh\n" + plain
    yield "something after", plain + bytes(100)
    yield "two tables of contents", plain + plain[plain.rindex(b"PK\x05\x06") :]
    yield "cut", plain[: len(plain) // 2]
    yield "no zip", b"hello"
    yield "empty", b""
    yield "nothing in it", zipped({})
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        for name, content in good.items():
            file.writestr(zipfile.ZipInfo(name), content)
        file.writestr(zipfile.ZipInfo("record.json"), b"{}")
    yield "a part twice", out.getvalue()
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        for number in range(60_000):
            file.writestr(zipfile.ZipInfo(f"carriers/{number:06}.png"), b"")
    yield "60 000 parts", out.getvalue()
    yield "overlap", overlapping(plain)


def patched(data: bytes, *, flag: int = 0, method: int | None = None, size: int | None = None,
            checksum: int | None = None) -> bytes:  # fmt: skip
    """A zip with other values in both headers of its first part."""
    out = bytearray(data)
    for mark, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = out.index(mark) + at
        struct.pack_into("<H", out, place, flag)
        if method is not None:
            struct.pack_into("<H", out, place + 2, method)
        if checksum is not None:
            struct.pack_into("<I", out, place + 8, checksum)
        if size is not None:
            struct.pack_into("<I", out, place + 16, size)
    return bytes(out)


def overlapping(data: bytes) -> bytes:
    """A zip whose second part stands where its first one does."""
    out = bytearray(data)
    second = out.index(b"PK\x01\x02", out.index(b"PK\x01\x02") + 4)
    struct.pack_into("<I", out, second + 42, 0)
    return bytes(out)


def damaged(good: Parts, draw: random.Random) -> bytes:
    """A zip with bytes changed at random, inside a part or anywhere."""
    if draw.random() < 0.5:
        name = draw.choice(list(good))
        return zipped(good | {name: scrambled(good[name], draw)})
    return scrambled(zipped(good), draw)


def scrambled(data: bytes, draw: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 10))):
        at = draw.randrange(len(out) or 1)
        out[at : at + draw.choice((1, 1, 4, 100))] = draw.choice(
            (b"", bytes([draw.randrange(256)]), b"\xff\xff\xff\xff", b"\0\0\0\0", b"PK\x01\x02")
        )
    return bytes(out)
