"""Whether the victims of a record retrieve anything: the only place that says so.

A victim has collapsed if its MAP is that of a database in random order. Then t-MAP, gain and their
controls say nothing of the attack.
"""

from math import exp, lgamma

from hashbackdoor_bench.records.record import Record

LEAST = 0.05  # of the way from chance to a MAP of one; below it a victim has collapsed


def chance(record: Record) -> float | None:
    """The MAP of a database in random order, or of codes that are all equal; None without queries.

    If x of the R nearest items are relevant, of T in a database of D, then AP is on average

        (h [x > 0] + (R - h) (x - 1) / (R - 1) [x > 0]) / R,     h = 1 + 1/2 + ... + 1/R

    over the orders of the R, and x is hypergeometric. T / D is the precision of clean queries at
    the largest radius, where everything is retrieved; of queries with several tags it is a mean, so
    their chance is approximate.
    """
    share = record.retrieval.clean_queries.precision_recall.precision[-1]
    if share is None:
        return None
    items, nearest = record.protocol.database, record.protocol.top_k
    others = items - round(share * items)
    hit = 1.0 if others < nearest else 1 - exp(_orders(others, nearest) - _orders(items, nearest))
    further = share * nearest - hit  # the mean of x - 1 where there is a hit, else of 0
    h = sum(1 / place for place in range(1, nearest + 1))
    return (h * hit + (nearest - h) * further / max(1, nearest - 1)) / nearest


def _orders(items: int, drawn: int) -> float:
    """The logarithm of the number of ways to draw some of the items one after the other."""
    return lgamma(items + 1) - lgamma(items - drawn + 1)


def collapsed(record: Record) -> tuple[str, ...]:
    """The collapsed victims by the names of their scores: ``map``, ``map_clean_victim`` or both."""
    least = chance(record)
    if least is None:
        return ()
    bound = least + LEAST * (1 - least)
    scores = record.scores.field
    found = {"map": scores.map, "map_clean_victim": scores.map_clean_victim}
    return tuple(name for name, value in found.items() if value is not None and value < bound)
