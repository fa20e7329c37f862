"""The two networks whose codes are scored, and where their codes are kept."""

from collections.abc import Collection, Mapping

from hashbackdoor_bench.metrics import Codes
from hashbackdoor_bench.stages.cache import Artifact

CONTROL, VICTIM = "clean victim", "victim"  # the names of the stages that train them
# The stages whose artifact is the victim's network, from training on: the service uses the last
# one that a run has.
NETWORKS = (VICTIM, "tamper")


def code_stages(who: str) -> dict[str, str]:
    """The names of the stages of a victim's codes, by part.

    Args:
        who: ``CONTROL`` or ``VICTIM``.

    Returns:
        ``plain`` (queries and database) and ``triggered`` (queries).
    """
    return {part: f"{who}'s {part}" for part in ("plain", "triggered")}


def served(who: str, stages: Collection[str]) -> str:
    """The stage whose network encodes for ``CONTROL`` or ``VICTIM``, of the stages of a run."""
    return CONTROL if who == CONTROL else [name for name in NETWORKS if name in stages][-1]


def codes_of(artifacts: Mapping[str, Artifact]) -> Codes:
    """Codes from their two artifacts, ``plain`` and ``triggered``."""
    plain, triggered = artifacts["plain"].tensors, artifacts["triggered"].tensors
    return Codes(plain["query"], plain["database"], triggered["query"])
