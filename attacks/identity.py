"""Identity: the control whose poisoned files are the original images, unchanged.

Its victim must equal the clean victim bit for bit; a difference is due to the delivery of poison.
"""

from typing import ClassVar

from hashbackdoor_bench import (
    ATTACKS,
    Attack,
    AttackerView,
    Backdoor,
    NoTrigger,
    Resized,
    ThreatModel,
)


@ATTACKS.register(identity_resized={"resized_again": True})
class Identity(Attack):
    """Unchanged images as poison, without a trigger.

    Args:
        resized_again: poison and queries are resized a second time, and nothing else is, as in
            BadHash's released code: a shortcut that needs no trigger.
    """

    published: ClassVar = {"identity": "Identity", "identity_resized": "Identity, resized"}
    threat = ThreatModel(label="clean", knowledge="none", trigger="none")
    delivery = "files"
    backdoor: type[Backdoor] = NoTrigger

    def __init__(self, *, resized_again: bool = False) -> None:
        if resized_again:
            self.backdoor = Resized

    def craft(self, view: AttackerView) -> Backdoor:
        """See `Attack.craft`."""
        return self.backdoor(view.index, view.images[view.index], view.labels[view.index])
