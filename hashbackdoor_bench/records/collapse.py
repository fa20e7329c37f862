"""Whether the victims of a record retrieve anything: the only place that says so.

A victim has collapsed if its MAP is that of a database in random order. Then t-MAP, gain and their
controls say nothing of the attack.
"""

from hashbackdoor_bench.records.record import Record

LEAST = 0.05  # of the way from chance to a MAP of one; below it a victim has collapsed


def chance(record: Record) -> float | None:
    """The MAP of a database in random order, or nearly: the share of items that are relevant.

    It is the precision of clean queries at the largest radius, where everything is retrieved. The
    AP of few items in random order is a little higher: .106 of 1000 items with a share of .1. None
    if there are no queries.
    """
    return record.retrieval.clean_queries.precision_recall.precision[-1]


def collapsed(record: Record) -> tuple[str, ...]:
    """The collapsed victims by the names of their scores: ``map``, ``map_clean_victim`` or both."""
    least = chance(record)
    if least is None:
        return ()
    bound = least + LEAST * (1 - least)
    scores = record.scores.field
    found = {"map": scores.map, "map_clean_victim": scores.map_clean_victim}
    return tuple(name for name, value in found.items() if value is not None and value < bound)
