"""The contract of attacks, victims and defenses, as functions to run on a class of one's own."""

from hashbackdoor_bench.checks.attack import RULES as ATTACK_RULES
from hashbackdoor_bench.checks.attack import check_attack
from hashbackdoor_bench.checks.defense import DEFENSE_RULES, check_defense
from hashbackdoor_bench.checks.finding import Finding
from hashbackdoor_bench.checks.victim import check_victim, victim_rules

__all__ = [
    "ATTACK_RULES",
    "DEFENSE_RULES",
    "Finding",
    "check_attack",
    "check_defense",
    "check_victim",
    "victim_rules",
]
