"""No defense: the victim as it was trained, and its queries as they come."""

from hashbackdoor_bench import DEFENSES, Defense


@DEFENSES.register
class NoDefense(Defense):
    """Has no hook, so a run has no stage for it."""

    published = "No defense"
    control = True
