"""What a finished run left in the cache: its codes, and the labels by which they are scored."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from hashbackdoor_bench.errors import UserError
from hashbackdoor_bench.metrics import Codes, Truth
from hashbackdoor_bench.records import Record, carry_trigger
from hashbackdoor_bench.spec import RunSpec
from hashbackdoor_bench.stages.artifact import Damaged
from hashbackdoor_bench.stages.cache import Cache
from hashbackdoor_bench.stages.codes import code_stages, codes_of
from hashbackdoor_bench.stages.loading import load_data, target_row, truth_of
from hashbackdoor_bench.stages.queries import Aim, attacked_queries


def moved(spec: RunSpec, **where: Any) -> RunSpec:
    """A record's spec on this machine.

    Args:
        spec: the spec.
        where: ``lists``, ``root`` and other such fields; None: as in the spec.
    """
    given: dict[str, Any] = {
        name: str(value.absolute()) if isinstance(value, Path) else value
        for name, value in where.items()
        if value is not None
    }
    return replace(spec, **given)


def stored_truth(record: Record, cache: Cache, **where: Any) -> Truth:
    """The labels by which the codes of a record are scored.

    Args:
        record: the record.
        cache: where its data is prepared.
        where: ``lists``, ``root`` and other such fields, if they differ from the record's spec.

    Raises:
        UserError: the data doesn't have the record's hash.
    """
    spec = moved(record.spec, **where)
    splits = load_data(spec, cache)
    if splits.sha256 != record.protocol.sha256:
        raise UserError(
            f"{splits.name} is not the data of this record (SHA-256 {splits.sha256[:12]} against "
            f"{record.protocol.sha256[:12]}): give its --lists and --root."
        )
    target, aim = (
        target_row(splits, str(spec.target)),
        Aim(record.threat.source, record.threat.chosen),
    )
    among = attacked_queries(splits, target, aim, spec.seed)
    triggered = carry_trigger(record.threat.trigger, record.threat.chosen)
    return truth_of(splits, target, spec.bits, among, triggered=triggered)


def stored_codes(record: Record, cache: Cache, victim: str) -> Codes:
    """The codes of a record's victim or clean victim.

    Args:
        record: the record.
        cache: cache with the codes.
        victim: ``CONTROL`` or ``VICTIM``.

    Raises:
        UserError: the cache lacks the codes, or they are damaged.
    """
    parts = {}
    for part, name in code_stages(victim).items():
        key = record.artifacts.get(name, "")
        try:
            artifact = cache.find("codes", key) if key else None
        except Damaged as error:
            raise UserError(
                f"the {victim}'s codes {key[:12]} are damaged ({error}): run the record's command "
                "again."
            ) from error
        if artifact is None:
            raise UserError(
                f"the {victim}'s codes {key[:12]} are not in {cache.root}: run the record's "
                "command again, or give the --cache-dir that has them."
            )
        parts[part] = artifact
    return codes_of(parts)
