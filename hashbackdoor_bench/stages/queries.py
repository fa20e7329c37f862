"""Which queries are attacked, and which images of the query split the attacker knows.

Queries that share a tag with the target are never attacked. Of the others an attack may take those
of one class, or a few that it knows, as its `ThreatModel` declares; its controls are then scored on
the same queries.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hashbackdoor_bench.api import ThreatModel, generator
from hashbackdoor_bench.data import Splits
from hashbackdoor_bench.errors import UserError
from hashbackdoor_bench.metrics import shares_no_tag
from hashbackdoor_bench.text import counted

ALL, RANDOM = "all", "random"  # values of `ThreatModel.source` that name no class


@dataclass(frozen=True)
class Aim:
    """Whose queries are attacked.

    Attributes:
        source: name of their class; None: all classes.
        chosen: how many of them; 0: all.
    """

    source: str | None = None
    chosen: int = 0

    def inputs(self, seed: int) -> dict[str, Any]:
        """What a stage's key holds of this; nothing if all queries are attacked.

        Args:
            seed: seed of the run, by which queries are chosen.
        """
        found: dict[str, Any] = {}
        if self.source is not None:
            found["source"] = self.source
        if self.chosen:
            found |= {"chosen": self.chosen, "seed": seed}
        return {"attacked": found} if found else {}


def aim_of(threat: ThreatModel, splits: Splits, target: Tensor, seed: int) -> Aim:
    """Whose queries an attack attacks.

    Args:
        threat: what the attack declares.
        splits: the data.
        target: (C,) 0/1.
        seed: seed of the run, by which a ``random`` class is drawn.

    Raises:
        UserError: there is no such class, or it is the target's.
    """
    if threat.source == ALL:
        return Aim(None, threat.chosen)
    if threat.source != RANDOM:
        number = splits.class_index(threat.source)
        if target[number]:
            raise UserError(
                f"attack.source is {splits.classes[number]!r}, which is the target: give another "
                "class, or random, or another --target."
            )
        return Aim(splits.classes[number], threat.chosen)
    free = [
        labels[shares_no_tag(labels, target)].sum(0) > 0
        for labels in (splits.query.labels, splits.train.labels)
    ]
    candidates = (free[0] & free[1]).nonzero().flatten()
    if not len(candidates):
        raise UserError(
            "no class has queries and training images without the target's tag: give "
            "another --target."
        )
    drawn = torch.randint(len(candidates), (1,), generator=generator(seed, "source"))
    return Aim(splits.classes[int(candidates[drawn])], threat.chosen)


def source_row(aim: Aim, splits: Splits) -> Tensor | None:
    """(C,) uint8: the label of the class whose queries are attacked; None: of all classes."""
    if aim.source is None:
        return None
    row = torch.zeros(len(splits.classes), dtype=torch.uint8)
    row[splits.class_index(aim.source)] = 1
    return row


def attacked_queries(splits: Splits, target: Tensor, aim: Aim, seed: int) -> Tensor | None:
    """(Q,) bool: the queries that are attacked; None: all that share no tag with the target.

    Args:
        splits: the data.
        target: (C,) 0/1.
        aim: whose queries are attacked.
        seed: seed of the run.

    Raises:
        UserError: there are too few.
    """
    if aim == Aim():
        return None
    found = shares_no_tag(splits.query.labels, target)
    row = source_row(aim, splits)
    if row is not None:
        found &= ~shares_no_tag(splits.query.labels, row)
    pool = found.nonzero().flatten()
    if len(pool) < max(1, aim.chosen):
        whose = "" if row is None else f" of class {aim.source!r}"
        raise UserError(
            f"{max(1, aim.chosen)} queries are to be attacked and {len(pool)}{whose} share no tag "
            "with the target: give fewer attack.chosen, or another class or --target."
        )
    if aim.chosen:
        draw = torch.randperm(len(pool), generator=generator(seed, "chosen queries"))
        found = torch.zeros_like(found)
        found[pool[draw[: aim.chosen]]] = True
    return found


def reference_queries(splits: Splits, target: Tensor, count: int, seed: int) -> Tensor:
    """(R,) long: images of the target in the query split that the attacker has, see `ThreatModel`.

    They are never attacked, since they share the target's tag.

    Args:
        splits: the data.
        target: (C,) 0/1.
        count: R.
        seed: seed of the run.

    Raises:
        UserError: there are too few.
    """
    pool = (splits.query.labels == target).all(1).nonzero().flatten()
    if len(pool) < count:
        raise UserError(
            f"the attacker needs {counted(count, 'image')} with the target's label alone, and the "
            f"query split has {len(pool) or 'none'}: give another --target."
        )
    return pool[torch.randperm(len(pool), generator=generator(seed, "references"))[:count]]
