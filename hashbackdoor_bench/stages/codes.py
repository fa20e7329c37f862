"""The two networks whose codes are scored, and the stages of their codes."""

from collections.abc import Mapping

from hashbackdoor_bench.metrics import Codes
from hashbackdoor_bench.stages.cache import Artifact

CONTROL, VICTIM = "clean victim", "victim"  # the names of the stages that train them


def code_stages(victim: str) -> dict[str, str]:
    """The names of the stages of a victim's codes, by part.

    Args:
        victim: ``CONTROL`` or ``VICTIM``.

    Returns:
        ``plain`` (queries and database) and ``triggered`` (queries).
    """
    return {part: f"{victim}'s {part}" for part in ("plain", "triggered")}


def codes_of(artifacts: Mapping[str, Artifact]) -> Codes:
    """Codes from their two artifacts, ``plain`` and ``triggered``."""
    plain, triggered = artifacts["plain"].tensors, artifacts["triggered"].tensors
    return Codes(plain["query"], plain["database"], triggered["query"])
