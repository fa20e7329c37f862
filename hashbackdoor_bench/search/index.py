"""What every kind of index promises, and the two searches by which its findings are fetched."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from hashbackdoor_bench.errors import UserError

Packed = NDArray[np.uint8]  # (N, B), codes as `padded` makes them
Found = tuple[int, NDArray[np.int64], NDArray[np.int64]]  # query, items (n,), distances (n,)

PAIRS = 2**24  # of queries and items whose distances are returned at once, at most 200 MB


def faiss_library() -> Any:
    """The module of FAISS.

    Raises:
        UserError: it isn't installed.
    """
    try:
        import faiss
    except ImportError as error:
        raise UserError(
            "bench search needs FAISS, which is not installed: "
            'pip install "hashbackdoor-bench[search]".'
        ) from error
    return faiss


def padded(codes: Tensor) -> Packed:
    """Packed codes (N, ceil(K/8)) with zeros behind them, so that they have 4 bytes, or 8, 16, ….

    FAISS compares codes of 8 bytes two to three times as fast as codes of 6, and zeros change no
    distance.
    """
    have = codes.shape[1]
    width = 4 if have <= 4 else -(-have // 8) * 8
    return np.pad(codes.numpy(), ((0, 0), (0, width - have)))


@dataclass(frozen=True)
class Index(ABC):
    """A kind of index and its settings, of which None are chosen by `settled`."""

    kind: ClassVar[str]
    at_search: ClassVar[tuple[str, ...]] = ()  # settings of a search, not of what is built

    @abstractmethod
    def settled(self, items: int, width: int, k: int) -> Self:
        """The index with all of its settings.

        Args:
            items: D, number of codes.
            width: K rounded up to whole bytes, in bits; the padding behind them is in no table.
            k: number of items that a query asks for, from 1 to D.

        Raises:
            UserError: a setting is outside its range.
        """

    @abstractmethod
    def build(self, faiss: Any, codes: Packed) -> Any:
        """FAISS's index of the codes (D, B)."""

    def tune(self, built: Any) -> None:
        """Give a built index the settings of a search, if it has any."""
        assert not self.at_search

    def candidates(self, built: Any, queries: Packed, k: int) -> Iterator[Found]:
        """What an index finds for queries (Q, B): all up to the distance of item number k.

        `search` returns k items, and of those at the largest distance an arbitrary part, so these
        are fetched by a second search within that distance. An index that finds fewer than k items
        returns all that it finds.
        """
        distances, items = built.search(queries, k)
        reach = np.where(items[:, -1] < 0, built.d, distances[:, -1])  # -1: nothing was found
        step = max(1, PAIRS // built.ntotal)
        for radius in np.unique(reach):
            rows = np.flatnonzero(reach == radius)
            for start in range(0, len(rows), step):
                some = rows[start : start + step]
                ends, near, found = built.range_search(queries[some], int(radius) + 1)
                for number, row in enumerate(some):
                    part = slice(int(ends[number]), int(ends[number + 1]))
                    yield int(row), found[part], near[part].astype(np.int64)

    @property
    def settings(self) -> dict[str, int]:
        """The settings by name."""
        return {one.name: getattr(self, one.name) for one in fields(self)}

    @property
    def foundation(self) -> tuple[str, tuple[int, ...]]:
        """What two indexes share if one built index serves both."""
        built = (value for name, value in self.settings.items() if name not in self.at_search)
        return self.kind, tuple(built)
