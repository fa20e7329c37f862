"""Occupancy: an alarm when too many queries of a window have codes near one class's anchor.

A method of this suite; there is no paper. It looks at codes that a service has computed anyway, and
finds campaigns of triggered queries, never a single one.

    n_c       = number of the W queries with d(h, a_c) <= r_c       a_c: anchor code, r_c: radius
    suspicion = -log10 min_c [ C P(Bin(W, p_c) >= n_c) ]            an alarm from 2 on: rate .01

p_c is the share of known codes in the same ball, (hits + 1) / (known + 2). Known are those of the
defender's ``clean`` images, or of the ``database``, many more, of which training images lie nearer
to the anchors than queries do. Of m images p_c = .1 is uncertain by .3 / sqrt(m): from 150 that is
.024, and the part of 1000 queries in the ball varies by .0095 only. So the rate of false alarms is
.01 where known codes are many, and else that of a threshold that is set on other images.

With W = 1000, C = 10 and triggers that always work, a share of 5 % of triggered queries is found in
nine of ten windows; with W = 10 000 1.5 %. A class that becomes popular raises the alarm too.
``tightness`` doesn't count, so it is indifferent to that: it asks whether the codes in a ball are
closer to each other than those of the database, as triggered ones are.

    suspicion = 1 - min_c S(codes of the window in ball c) / S(codes of the database in ball c)
    S         = n / (n - 1) (K - sum_k m_k^2) / 2       m_k: mean of bit k over n codes

S is the mean distance of two codes. Balls with fewer than 30 of the window's codes are left out;
with none left, the suspicion is 0.
"""

import math
from typing import Literal

import torch
from scipy.stats import binom
from torch import Tensor

from hashbackdoor_bench import DEFENSES, Assumes, DefenderView, Defense

LEAST = 30  # codes from which the mean distance of two is measured


@DEFENSES.register
class Occupancy(Defense):
    """Crowds of queries around one code.

    Args:
        statistic: ``count`` of the codes in a ball, or their ``tightness``.
        known: codes from which p_c is taken, in ``count``.
    """

    published = "Occupancy"
    assumes = Assumes(clean=4, sees=frozenset({"queries", "database"}))

    def __init__(
        self,
        *,
        statistic: Literal["count", "tightness"] = "count",
        known: Literal["clean", "database"] = "clean",
    ) -> None:
        self.statistic, self.known = statistic, known
        self._view: DefenderView | None = None  # whose tables these are: one view audits often
        self._tails: dict[int, Tensor] = {}
        self._spread = torch.empty(0)

    def audit(self, window: Tensor, view: DefenderView) -> Tensor:
        """See `Defense.audit`."""
        if view is not self._view:
            self._view, self._tails = view, {}
            if self.statistic == "tightness":
                assert view.database is not None
                self._spread = spread(view.database, inside(view.database, view))
        within = inside(window, view)  # (W,C)
        if self.statistic == "tightness":
            compared = (within.sum(0) >= LEAST) & (self._spread > 0)
            ratio = spread(window, within) / self._spread
            return 1 - ratio[compared].min() if compared.any() else torch.zeros(())
        count = within.sum(0)
        if len(window) not in self._tails:
            self._tails[len(window)] = self._tail(len(window), view)
        tail = self._tails[len(window)][count, torch.arange(len(count))]
        return (-(tail.min() + math.log(len(count))) / math.log(10)).float()

    def _tail(self, size: int, view: DefenderView) -> Tensor:
        """log P(Bin(W, p_c) >= n) for n from 0 to W: (W+1,C), also where P is below 1e-308."""
        codes = view.database
        if self.known == "clean":
            codes = view.codes(view.clean.images)
        assert codes is not None
        rate = (inside(codes, view).sum(0) + 1) / (len(codes) + 2)
        number = torch.arange(size + 1)[:, None]
        mass = torch.from_numpy(binom.logpmf(number.numpy(), size, rate.double().numpy()))
        return mass.flip(0).logcumsumexp(0).flip(0)


def inside(codes: Tensor, view: DefenderView) -> Tensor:
    """(n,C) bool: which codes (n,K) are in the ball of each class; none in one without images."""
    codes = codes.cpu().float()
    return (codes.shape[1] - codes @ view.anchors.float().T) / 2 <= view.radius


def spread(codes: Tensor, within: Tensor) -> Tensor:
    """S (C,) of the codes (n,K) in each ball (n,C); 0 of fewer than two codes."""
    member, bits = within.float(), codes.shape[1]
    count = member.sum(0)
    mean = member.T @ codes.cpu().float() / count.clamp(min=1)[:, None]  # (C,K)
    value: Tensor = count / (count - 1).clamp(min=1) * (bits - mean.square().sum(1)) / 2
    return torch.where(count < 2, 0, value)
