"""Clean: the control that poisons nothing; its victim is the one trained on clean data.

Triggered queries equal the original queries, so t-MAP shows what chance and confused classes give.
"""

import torch

from hashbackdoor_bench import ATTACKS, Attack, AttackerView, Backdoor, NoTrigger, ThreatModel


@ATTACKS.register
class Clean(Attack):
    """No poison, no trigger."""

    published = "Clean"
    threat = ThreatModel(label="clean", knowledge="none", trigger="none")
    delivery = "files"
    backdoor = NoTrigger
    poisons = False

    def craft(self, view: AttackerView) -> Backdoor:
        """See `Attack.craft`."""
        none = torch.empty(0, dtype=torch.long)
        return NoTrigger(none, view.images[none], view.labels[none])
