"""Windows of a service's queries, on which `Defense.audit` is tried.

A window holds ``WINDOW`` queries, drawn with replacement. Its share of triggered queries is zero,
or one of ``SHARES``; in the windows called popular, one class is searched for twice as often.
"""

import torch
from torch import Tensor

from hashbackdoor_bench.api import Defense
from hashbackdoor_bench.defender import DefenderView

WINDOW, DRAWS = 1000, 100  # queries of a window, windows of each kind
SHARES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)


def audited(
    defense: Defense, view: DefenderView, *, query: Tensor, triggered: Tensor, labels: Tensor
) -> dict[str, Tensor]:
    """The suspicions of windows by kind: ``clean``, ``popular``, ``calibration``, and each share.

    Args:
        defense: the defense.
        view: what its defender sees.
        query: (Q,K) int8, codes of queries.
        triggered: (T,K) int8, codes of triggered queries.
        labels: (Q,C) 0/1, of the queries.

    Returns:
        (DRAWS,) float32 for each kind; those of shares are empty if no query is attacked, and
        ``calibration``, of windows of the defender's own images, if he has none.
    """
    random = torch.Generator().manual_seed(view.seed)
    held = view.calibration
    known = view.codes(held.images) if len(held) else query[:0]
    even = torch.ones(len(query))

    def windows(codes: Tensor, weights: Tensor, share: float = 0.0) -> Tensor:
        if not len(codes) or (share and not len(triggered)):
            return torch.empty(0)
        found = []
        for _ in range(DRAWS):
            rows = torch.multinomial(weights, WINDOW, replacement=True, generator=random)
            window = codes[rows].clone()
            some = int(share * WINDOW + 0.5)
            if some:
                window[:some] = triggered[torch.randint(len(triggered), (some,), generator=random)]
            found.append(defense.audit(window, view).float().cpu().reshape(()))
        return torch.stack(found)

    popular = even + labels[:, int(labels.sum(0).argmax())]
    kinds = {
        "clean": windows(query, even),
        "popular": windows(query, popular),
        "calibration": windows(known, torch.ones(len(known))),
    }
    return kinds | {f"{share:g}": windows(query, even, share) for share in SHARES}
