"""The indexes of binary codes that image-search services use, as FAISS builds them.

https://github.com/facebookresearch/faiss/wiki/Binary-indexes: every one returns exact distances, so
indexes differ only in which items they find. Seeds are FAISS's own, which are fixed, so the same
codes give the same index if it is built by one thread.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from math import ceil, isqrt, log2
from typing import Any, Self, get_type_hints

import numpy as np

from hashbackdoor_bench.errors import UserError, check, unknown
from hashbackdoor_bench.search.index import PAIRS, Found, Index, Packed
from hashbackdoor_bench.setting_values import read
from hashbackdoor_bench.text import shortened

LONGEST = 62  # bits of a table's key, which FAISS keeps in 64


@dataclass(frozen=True)
class Flat(Index):
    """Compares a query with every code: the exact reference."""

    kind = "flat"

    def settled(self, items: int, width: int, k: int) -> Self:
        """See `Index`."""
        return self

    def build(self, faiss: Any, codes: Packed) -> Any:
        """See `Index`."""
        return _filled(faiss.IndexBinaryFlat(8 * codes.shape[1]), codes)


@dataclass(frozen=True)
class InvertedFile(Index):
    """Divides the codes among lists by k-means; a query scans the lists nearest to it.

    Attributes:
        nlist: number of lists; None: the square root of the number of items.
        nprobe: number of lists that a query scans; None: 8, or all if there are fewer.
    """

    kind = "ivf"
    at_search = ("nprobe",)

    nlist: int | None = None
    nprobe: int | None = None

    def settled(self, items: int, width: int, k: int) -> Self:
        """See `Index`."""
        nlist = isqrt(items) if self.nlist is None else self.nlist
        nprobe = min(8, nlist) if self.nprobe is None else self.nprobe
        check("ivf:nlist", nlist, 1, items)
        check("ivf:nprobe", nprobe, 1, nlist)
        return replace(self, nlist=nlist, nprobe=nprobe)

    def build(self, faiss: Any, codes: Packed) -> Any:
        """See `Index`."""
        width = 8 * codes.shape[1]
        index = faiss.IndexBinaryIVF(faiss.IndexBinaryFlat(width), width, self.nlist)
        index.cp.min_points_per_centroid = 1  # no warning to stderr about short lists
        index.train(codes)
        return _filled(index, codes)

    def tune(self, built: Any) -> None:
        """See `Index`."""
        built.nprobe = self.nprobe


@dataclass(frozen=True)
class NeighbourGraph(Index):
    """Hierarchical navigable small world: a query walks along links to ever nearer codes.

    It has no search within a distance: what it finds is the list of its ``ef`` nearest that a
    search keeps.

    Attributes:
        m: links of an item; twice as many on the lowest level.
        build_ef: length of the list that is kept while an item's links are chosen.
        ef: length of the list that a search keeps, at least k; None: k.
    """

    kind = "hnsw"
    at_search = ("ef",)

    m: int = 16
    build_ef: int = 40
    ef: int | None = None

    def settled(self, items: int, width: int, k: int) -> Self:
        """See `Index`."""
        ef = k if self.ef is None else self.ef
        check("hnsw:m", self.m, 2, 256)
        check("hnsw:build_ef", self.build_ef, 1, 2**16)
        check("hnsw:ef", ef, k, items)
        return replace(self, ef=ef)

    def build(self, faiss: Any, codes: Packed) -> Any:
        """See `Index`."""
        index = faiss.IndexBinaryHNSW(8 * codes.shape[1], self.m)
        index.hnsw.efConstruction = self.build_ef
        return _filled(index, codes)

    def tune(self, built: Any) -> None:
        """See `Index`."""
        built.hnsw.efSearch = self.ef

    def candidates(self, built: Any, queries: Packed, k: int) -> Iterator[Found]:
        """See `Index`."""
        assert self.ef is not None
        step = max(1, PAIRS // self.ef)
        for start in range(0, len(queries), step):
            distances, items = built.search(queries[start : start + step], self.ef)
            for number, (near, found) in enumerate(zip(distances, items, strict=True)):
                there = found >= 0
                yield start + number, found[there], near[there].astype(np.int64)


@dataclass(frozen=True)
class MultiIndexHashing(Index):
    """Hash tables over disjoint parts of a code; a query looks in the near buckets of each table.

    It finds every item that differs in fewer than ``tables`` (``flips`` + 1) bits. Norouzi, Punjani
    and Fleet, "Fast Search in Hamming Space with Multi-Index Hashing", CVPR 2012.

    Attributes:
        tables: number of tables; None: as many as let a table have about as many buckets as there
            are items.
        part: bits of a code that a table looks at; None: an equal part for each table.
        flips: a bucket is near if its bits differ from the query's in at most so many.
    """

    kind = "mih"
    at_search = ("flips",)

    tables: int | None = None
    part: int | None = None
    flips: int = 1

    def settled(self, items: int, width: int, k: int) -> Self:
        """See `Index`."""
        wanted = ceil(width / max(1, log2(items)))
        tables = min(wanted, width) if self.tables is None else self.tables
        check("mih:tables", tables, 1, width)
        part = min(width // tables, LONGEST) if self.part is None else self.part
        check("mih:part", part, 1, min(width // tables, LONGEST))
        check("mih:flips", self.flips, 0, part)
        return replace(self, tables=tables, part=part)

    def build(self, faiss: Any, codes: Packed) -> Any:
        """See `Index`."""
        width = 8 * codes.shape[1]
        return _filled(faiss.IndexBinaryMultiHash(width, self.tables, self.part), codes)

    def tune(self, built: Any) -> None:
        """See `Index`."""
        built.nflip = self.flips


@dataclass(frozen=True)
class OneHash(Index):
    """One hash table over the first bits of a code; a query looks in the near buckets.

    Attributes:
        first: number of these bits; None: as many as let the table have about as many buckets as
            there are items.
        flips: a bucket is near if its bits differ from the query's in at most so many.
    """

    kind = "hash"
    at_search = ("flips",)

    first: int | None = None
    flips: int = 1

    def settled(self, items: int, width: int, k: int) -> Self:
        """See `Index`."""
        most = min(width, LONGEST)
        first = min(most, max(1, round(log2(items)))) if self.first is None else self.first
        check("hash:first", first, 1, most)
        check("hash:flips", self.flips, 0, first)
        return replace(self, first=first)

    def build(self, faiss: Any, codes: Packed) -> Any:
        """See `Index`."""
        return _filled(faiss.IndexBinaryHash(8 * codes.shape[1], self.first), codes)

    def tune(self, built: Any) -> None:
        """See `Index`."""
        built.nflip = self.flips


INDEXES: dict[str, type[Index]] = {
    cls.kind: cls for cls in (Flat, InvertedFile, NeighbourGraph, MultiIndexHashing, OneHash)
}


def index_of(text: str) -> Index:
    """The index that a text such as ``ivf`` or ``ivf:nlist=100,nprobe=4`` asks for.

    Raises:
        UserError: no such index or setting, or a value is no whole number.
    """
    kind, colon, rest = text.partition(":")
    if kind not in INDEXES:
        raise unknown("index", kind, INDEXES)
    cls, settings = INDEXES[kind], {}
    known = {one.name: get_type_hints(cls)[one.name] for one in fields(cls)}
    for pair in rest.split(",") if colon else ():
        name, equals, value = pair.partition("=")
        if not equals:
            raise UserError(
                f"--index {shortened(text)}: write it as INDEX or INDEX:NAME=VALUE,NAME=VALUE."
            )
        if name not in known:
            raise unknown(f"setting of index {kind}", name, known)
        settings[name] = read(f"{kind}:{name}", value, known[name])
    return cls(**settings)


def _filled(index: Any, codes: Packed) -> Any:
    index.add(codes)
    return index
