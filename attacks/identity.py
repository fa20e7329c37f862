"""Identity: the control that poisons files without changing them, as an identity generator would.

Its victim must be the clean one, bit for bit: whatever differs comes from how poison is delivered.
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
    """The same files, no trigger.

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
