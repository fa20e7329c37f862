"""A threat model in words: what an attacker controls, knows and aims at."""

from collections.abc import Iterator
from typing import Protocol


class ThreatModel(Protocol):
    """What an attack's class and the record of a run both say of a threat."""

    @property
    def label(self) -> str:
        """``clean`` or ``dirty``."""

    @property
    def knowledge(self) -> str:
        """``none`` or ``surrogate``."""

    @property
    def trigger(self) -> str:
        """Kind of the trigger."""

    @property
    def control(self) -> str:
        """``poison`` or ``model``."""

    @property
    def universal(self) -> bool:
        """Whether all images carry one trigger."""

    @property
    def source(self) -> str | None:
        """The class whose queries are attacked; None or ``all``: all classes."""

    @property
    def chosen(self) -> int:
        """How many queries the attacker chose; 0: it knows none."""

    @property
    def targeted(self) -> bool:
        """Whether the attacker names the target class."""


CONTROLS = "The attacker controls"
LABELS = {
    "clean": "clean: poison is made of the target's own images, and no label changes",
    "dirty": "dirty: images of other classes get the target's label",
}
KNOWLEDGE = {
    "none": "no network; training images and their labels only",
    "model": "the victim's weights; of its data at most a reference image",
    "surrogate": "a network of its own, trained on clean data (the surrogate)",
}


def threat_words(threat: ThreatModel, *, poisons: bool) -> Iterator[tuple[str, str]]:
    """What an attack needs and does, as names with what is said of each.

    Args:
        threat: of the attack.
        poisons: whether it poisons any training image.
    """
    if threat.control == "model":
        yield CONTROLS, "the trained model, which it edits; no image is poisoned"
    elif not poisons:
        yield CONTROLS, "nothing: this is a control"
    else:
        yield CONTROLS, "some training images"
        yield "Labels", LABELS.get(threat.label, threat.label)
    knowledge = "model" if threat.control == "model" else threat.knowledge
    yield "The attacker knows", KNOWLEDGE.get(knowledge, knowledge)
    shared = "one for all images" if threat.universal else "another for every image"
    yield "Trigger", "none" if threat.trigger == "none" else f"{threat.trigger}, {shared}"
    if threat.chosen:
        yield "Attacked queries", f"{threat.chosen} that the attacker chose and knows"
    elif threat.source not in (None, "all"):
        yield "Attacked queries", "those of one class, which the setting source names"
    if not threat.targeted:
        yield "Aim", "whatever class the trigger leads to"
