"""Names of methods and recipes that a run asks for, looked up before torch is imported."""

from hashbackdoor_bench.errors import unknown
from hashbackdoor_bench.registry import DEFENSES, METHODS
from hashbackdoor_bench.spec import RunSpec


def refuse_unknown_names(spec: RunSpec) -> None:
    """Refuse names of methods and recipes that don't exist.

    Raises:
        UserError: the first such name, and those that it may have been meant for.
    """
    for field, registry in {**METHODS, "aware": DEFENSES}.items():
        if getattr(spec, field) not in registry:
            raise unknown(registry.kind, getattr(spec, field), registry)
    spec.training("scratch32")
