"""What every method promises, as functions that anyone runs on their own class."""

from hashbackdoor_bench.checks.attack import check_attack
from hashbackdoor_bench.checks.finding import Finding
from hashbackdoor_bench.checks.victim import check_victim

__all__ = ["Finding", "check_attack", "check_victim"]
