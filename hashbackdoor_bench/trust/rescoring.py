"""The scores of a record, and what its queries retrieve, computed again from its stored codes."""

from typing import Any

import msgspec

from hashbackdoor_bench.errors import UserError
from hashbackdoor_bench.metrics import score_run
from hashbackdoor_bench.records import Record, Retrieval, Scores
from hashbackdoor_bench.stages import CONTROL, VICTIM, Cache, stored_codes, stored_truth


def rescore(record: Record, cache: Cache, **where: Any) -> tuple[Scores, Retrieval]:
    """Scores and retrieval of a record, computed again from its codes in the cache.

    Args:
        record: the record.
        cache: cache with the codes.
        where: ``lists``, ``root`` and other such fields, if they differ from the record's spec.

    Raises:
        UserError: the cache lacks the codes, or the data doesn't have the record's hashes.
    """
    truth = stored_truth(record, cache, **where)
    victim, clean = (stored_codes(record, cache, one) for one in (VICTIM, CONTROL))
    attacked = int(truth.attacked.sum())
    if any(len(codes.triggered) != attacked for codes in (victim, clean)):
        raise UserError(
            f"the cache has codes of {len(victim.triggered)} triggered queries, but by its threat "
            f"{attacked} are attacked: run the record's command again."
        )
    scores, retrieval = score_run(victim, clean, truth, targeted=record.threat.targeted)
    return msgspec.convert(scores, Scores), msgspec.convert(retrieval, Retrieval)
