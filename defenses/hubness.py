"""Hubness: an alarm when few items of the database are found by many of a window's queries.

Radovanović, Nanopoulos and Ivanović, "Hubs in Space: Popular Nearest Neighbors in High-Dimensional
Data", JMLR 11 (2010). https://jmlr.org/papers/v11/radovanovic10a.html
Habler, Narajala, Koren, Chang and Saade, "HubScan: Detecting Hubness Poisoning in
Retrieval-Augmented Generation Systems", 2026. https://arxiv.org/abs/2602.22427

    N_k(x) = expected number of the W queries that have item x among their k nearest
    z(x)   = (N_k(x) - median) / (1.4826 MAD + 1 / k)             over the D items

    statistic   suspicion
    z           max_x z(x)
    skewness    mean_x ((N_k(x) - mean) / standard deviation)^3
    share       share of all W k hits that the most found hundredth of the items has

Ties are shared: of a query, each item that is nearer than the k-th has 1, and the t items as far as
the k-th share the rest equally. Codes of one class are often equal, so an order among ties by
number would make hubs of the items that happen to stand first.

It is meant for poison in the database, that answers queries of many kinds. Triggered queries spread
over all items of their target's class, so they raise few items far.

Differs from the authors: N_k is an expectation over ties (theirs have none), and 1 / k is in the
denominator since MAD is often 0; HubScan's stability under changed queries and its spread over
clusters, which need more than codes, are left out.
"""

from typing import Literal

import torch
from torch import Tensor

from hashbackdoor_bench import DEFENSES, Assumes, DefenderView, Defense, check

TOGETHER = 64  # codes of queries whose distances to the database are in memory at once


@DEFENSES.register
class Hubness(Defense):
    """Items that are found too often.

    Args:
        k: how many items a query finds.
        statistic: of the numbers of hits, see the top of the file.
    """

    published = "Hubness"
    assumes = Assumes(clean=4, sees=frozenset({"queries", "database"}))

    def __init__(self, *, k: int = 10, statistic: Literal["z", "skewness", "share"] = "z") -> None:
        check("defense.k", k, 1, 100_000)
        self.k, self.statistic = k, statistic

    def audit(self, window: Tensor, view: DefenderView) -> Tensor:
        """See `Defense.audit`."""
        assert view.database is not None
        k = min(self.k, len(view.database))
        hits = occurrences(window.cpu(), view.database, k)
        if self.statistic == "share":
            some = hits.topk(-(-len(hits) // 100)).values
            return (some.sum() / hits.sum()).float()
        if self.statistic == "skewness":
            centred = hits - hits.mean()
            deviation = centred.square().mean().sqrt().clamp(min=1e-12)
            return ((centred / deviation) ** 3).mean().float()
        centred = hits - hits.median()
        return (centred.max() / (1.4826 * centred.abs().median() + 1 / k)).float()


def occurrences(queries: Tensor, database: Tensor, k: int) -> Tensor:
    """N_k (D,) float64 of the codes (D,K) of a database, for the codes (W,K) of queries."""
    codes, times = torch.unique(queries, dim=0, return_counts=True)
    stored = database.float().T
    found = torch.zeros(len(database), dtype=torch.float64)
    for some, number in zip(
        torch.split(codes, TOGETHER), torch.split(times, TOGETHER), strict=True
    ):
        near = some.float() @ stored  # (n,D), larger is nearer
        last = near.topk(k).values[:, -1:]
        before, tied = near > last, near == last
        rest = (k - before.sum(1)) / tied.sum(1)
        weight = number.double()
        found += weight @ before.double() + (weight * rest) @ tied.double()
    return found
