"""The scores of a record, and what its queries retrieve, computed again from its stored codes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from hashbackdoor_bench.errors import UserError
from hashbackdoor_bench.metrics import Codes, score_run
from hashbackdoor_bench.records import Record, Retrieval, Scores
from hashbackdoor_bench.spec import RunSpec
from hashbackdoor_bench.stages import (
    CONTROL,
    VICTIM,
    Cache,
    Damaged,
    code_stages,
    codes_of,
    load_data,
    target_row,
    truth_of,
)


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


def rescore(record: Record, cache: Cache, **where: Any) -> tuple[Scores, Retrieval]:
    """Scores and retrieval of a record, computed again from its codes in the cache.

    Args:
        record: the record.
        cache: cache with the codes.
        where: ``lists``, ``root`` and other such fields, if they differ from the record's spec.

    Raises:
        UserError: the cache lacks the codes, or the data doesn't have the record's hashes.
    """
    spec = moved(record.spec, **where)
    splits = load_data(spec, cache)
    if splits.sha256 != record.protocol.sha256:
        raise UserError(
            f"{splits.name} is not the data of this record (SHA-256 {splits.sha256[:12]} against "
            f"{record.protocol.sha256[:12]}): give its --lists and --root."
        )
    truth = truth_of(splits, target_row(splits, str(spec.target)), spec.bits)
    scores, retrieval = score_run(
        _stored_codes(record, cache, VICTIM), _stored_codes(record, cache, CONTROL), truth
    )
    return msgspec.convert(scores, Scores), msgspec.convert(retrieval, Retrieval)


def _stored_codes(record: Record, cache: Cache, victim: str) -> Codes:
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
