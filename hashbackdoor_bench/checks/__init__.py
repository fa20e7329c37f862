"""The contract of attacks and victims, as functions that anyone can run on their own class."""

from hashbackdoor_bench.checks.attack import RULES as ATTACK_RULES
from hashbackdoor_bench.checks.attack import check_attack
from hashbackdoor_bench.checks.finding import Finding
from hashbackdoor_bench.checks.victim import check_victim, victim_rules

__all__ = ["ATTACK_RULES", "Finding", "check_attack", "check_victim", "victim_rules"]
