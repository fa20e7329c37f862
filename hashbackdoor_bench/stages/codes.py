"""The networks whose codes are scored, and the stages of their codes."""

from collections.abc import Collection, Mapping

from hashbackdoor_bench.metrics import Codes
from hashbackdoor_bench.stages.artifact import Artifact

CONTROL, VICTIM = "clean victim", "victim"  # the names of the stages that train them
DEFENDED = {victim: f"defended {victim}" for victim in (CONTROL, VICTIM)}  # the same with a defense

# The stages whose artifact is a network, from training on; the service uses the last one that a run
# has. Those of a defense come after those of the network that it defends.
NETWORKS = {CONTROL: (CONTROL,), VICTIM: (VICTIM, "tamper")}
NETWORKS |= {
    DEFENDED[victim]: (*NETWORKS[victim], f"retrained {victim}", f"repaired {victim}")
    for victim in (CONTROL, VICTIM)
}


def served(victim: str, stages: Collection[str]) -> str:
    """The stage whose network encodes for one of ``NETWORKS``, of the stages of a run."""
    return [name for name in NETWORKS[victim] if name in stages][-1]


def code_stages(victim: str) -> dict[str, str]:
    """The names of the stages of a victim's codes, by part.

    Args:
        victim: one of ``NETWORKS``.

    Returns:
        ``plain`` (queries and database) and ``triggered`` (queries).
    """
    return {part: f"{victim}'s {part}" for part in ("plain", "triggered")}


def codes_of(artifacts: Mapping[str, Artifact]) -> Codes:
    """Codes from their two artifacts, ``plain`` and ``triggered``."""
    plain, triggered = artifacts["plain"].tensors, artifacts["triggered"].tensors
    return Codes(plain["query"], plain["database"], triggered["query"])
