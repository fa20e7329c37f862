"""Whether a record agrees with itself, as far as that shows without its codes.

The parts of a record say many things twice: a gain is a difference of scores that it holds too, two
conventions differ only in which queries they leave out, a histogram has a mean. A record whose
parts contradict one another was edited or damaged after the run. One that agrees with itself may
still be made up: only scoring its codes again, or running it again, shows that it is true.
"""

from math import isfinite

from hashbackdoor_bench.data import PROTOCOLS
from hashbackdoor_bench.errors import UserError
from hashbackdoor_bench.records import (
    CONVENTIONS,
    ConventionScores,
    FieldScores,
    Record,
    carry_trigger,
    checksum_of,
    record_key,
)
from hashbackdoor_bench.report.claims import ROUNDING, agree, near, whole, within
from hashbackdoor_bench.report.defense_claims import check_defense
from hashbackdoor_bench.report.measurements import (
    check_dispersion,
    check_retrieval,
    check_visibility,
)

# How far a mean over all orders of ties may lie above both of its `bounds` where R cuts ties: in 22
# thousand random searches of 8 to 80 items by 1 to 8 queries, it was by .009 at the most.
ABOVE_BOUNDS = 0.05
SHARES = ("map", "t_map", "map_clean_victim", "t_map_clean_victim", "t_map_untriggered")


def check_record(record: Record, *, sealed: bool = False) -> None:
    """Refuse a record whose parts contradict one another.

    Args:
        record: the record.
        sealed: whether its checksum was already seen to be right, see `records.read_sealed`.

    Raises:
        UserError: what contradicts what, as a clause without the record's name.
    """
    if record_key(record.spec, record.artifacts) != record.key:
        raise UserError("its spec was changed after the run: its key doesn't follow from it.")
    if record.numerics is not None and record.checksum is None:
        raise UserError("it was changed after the run: its checksum was taken out.")
    unseen = record.checksum is not None and not sealed
    if unseen and record.checksum != checksum_of(record):
        raise UserError("it was changed after the run: its checksum doesn't follow from it.")
    _protocol(record)
    _threat(record)
    _settings(record)
    triggered = carry_trigger(record.threat.trigger, record.threat.chosen)
    for convention in CONVENTIONS:
        _differences(convention, record.scores[convention], triggered=triggered)
    _field(record.scores.field)
    _bounds(record)
    _conventions(record)
    check_retrieval(record)
    check_visibility(record)
    check_defense(record)
    check_dispersion(record)


# ---- the run ------------------------------------------------------------------------------------


def _protocol(record: Record) -> None:
    facts, spec = record.protocol, record.spec
    agree("protocol.name", facts.name, spec.dataset, "spec.dataset")
    known = PROTOCOLS.get(spec.dataset)
    if known is not None and known.sha256:  # its lists are in this package
        for name in ("train", "query", "database", "classes", "top_k", "sha256", "pixels"):
            agree(f"protocol.{name}", getattr(facts, name), getattr(known, name), facts.name)
    if not 1 <= facts.top_k <= facts.database:
        raise UserError(f"protocol.top_k is {facts.top_k} of {facts.database} database images.")
    if spec.top_k is not None and facts.top_k != min(spec.top_k, facts.database):
        raise UserError(f"protocol.top_k is {facts.top_k}, but spec.top_k is {spec.top_k}.")


def _threat(record: Record) -> None:
    threat, spec = record.threat, record.spec
    agree("threat.delivery", threat.delivery, spec.delivery, "spec.delivery")
    for name, allowed in (("label", ("clean", "dirty")), ("knowledge", ("none", "surrogate"))):
        if getattr(threat, name) not in allowed:
            raise UserError(
                f"threat.{name} is {getattr(threat, name)!r}, not {' or '.join(allowed)}."
            )
    members = threat.target_images
    share = threat.poisoned / members if members else None
    near("threat.budget", threat.budget, share, "threat.poisoned and threat.target_images")
    if max(threat.poisoned + threat.covers, members) > record.protocol.train:
        raise UserError("threat counts more images than protocol.train has.")
    allowed_count = (
        int(spec.budget * members + 0.5) if spec.poison_count is None else spec.poison_count
    )
    if threat.poisoned > allowed_count:
        raise UserError(
            f"threat.poisoned is {threat.poisoned}, but spec allows {allowed_count} images."
        )


def _settings(record: Record) -> None:
    spec, params, training = record.spec, record.params, record.training
    for name, value in spec.attack_settings:
        found = params.attack.get(name)
        # a word such as "auto" is there replaced by what it meant on that machine
        if found != value and not (isinstance(value, str) and isinstance(found, str)):
            raise UserError(f"params.attack.{name} is not that of spec.attack_settings.")
    if params.victim != dict(spec.victim_settings):
        raise UserError("params.victim is not spec.victim_settings.")
    for name in ("epochs", "batch_size", "lr", "augment", "precision"):
        value = getattr(spec, name)
        if value is not None:
            agree(f"params.recipe.{name}", params.recipe.get(name), value, f"spec.{name}")
    # only on frozen features there are methods that make a hash layer without any training
    untrained = params.recipe.get("frozen") and not (training.victim or training.clean_victim)
    if spec.epochs is not None and not untrained:
        for name in ("victim", "clean_victim"):
            agree(f"training.{name}", len(getattr(training, name)), spec.epochs, "spec.epochs")
    if any(value < 0 for value in record.seconds.values()):
        raise UserError("seconds has a time below 0.")


# ---- scores -------------------------------------------------------------------------------------


def _differences(convention: str, scores: ConventionScores, *, triggered: bool) -> None:
    """Scores must be shares, and the two differences must follow from them."""
    for name in SHARES:
        value = getattr(scores, name)
        if value is not None and not 0 <= value <= 1:
            raise UserError(f"scores.{convention}.{name} is {value:g}, which no share can be.")
    clean = scores.t_map_clean_victim
    untriggered = scores.t_map_untriggered if triggered else clean
    control = None if clean is None or untriggered is None else max(clean, untriggered)
    for name, minuend, subtrahend in (
        ("delta_map", scores.map, scores.map_clean_victim),
        ("backdoor_gain", scores.t_map, control),
    ):
        follows = None if minuend is None or subtrahend is None else minuend - subtrahend
        near(f"scores.{convention}.{name}", getattr(scores, name), follows, "the others")


def _field(scores: FieldScores) -> None:
    """A score must lie in its interval over queries, and have bounds over orders of ties."""
    names = ("map", "t_map", "delta_map", "backdoor_gain")
    agree("scores.field.intervals", sorted(scores.intervals), sorted(names), "the schema")
    agree("scores.field.bounds", sorted(scores.bounds), ["map", "t_map"], "the schema")
    for part in ("intervals", "bounds"):
        for name, (low, high) in getattr(scores, part).items():
            value, place = getattr(scores, name), f"scores.field.{part}.{name}"
            if value is None or low is None or high is None:
                if (value, low, high) != (None, None, None):
                    raise UserError(f"{place} is {low} to {high}, but the score is {value}.")
                continue
            within(place, low, -1 if name in names[2:] else 0, high)
            within(place, high, low, 1)
            if part == "intervals":
                within(f"scores.field.{name}", value, low, high)


def _bounds(record: Record) -> None:
    """MAP and t-MAP must not contradict those with relevant tied items first, and last.

    Where R takes in the whole database, those are the largest and the smallest that any order of
    ties gives. Where R cuts ties they needn't be: with relevant items last, those that fall out of
    the R nearest lower no AP, so both may be 1 while the mean over all orders is .5. Such a mean is
    at least that of ``strict``, see `_conventions`, and hardly ever above both. Of a single order,
    as in ``badhash``, nothing follows there.
    """
    scores, facts = record.scores, record.protocol
    cut = facts.top_k < facts.database
    for name, (low, high) in scores.field.bounds.items():
        if low is None or high is None:
            continue
        if cut:
            within(f"scores.field.{name}", getattr(scores.field, name), 0, high + ABOVE_BOUNDS)
            continue
        within(f"scores.field.{name}", getattr(scores.field, name), low, high)
        within(f"scores.badhash.{name}", getattr(scores.badhash, name), low, high)


def _conventions(record: Record) -> None:
    """Scores of one network under two conventions differ in a known way.

    ``strict`` divides by no fewer items than ``field``. ``ciba`` and ``badhash`` have the same sum
    over queries, of which ``ciba`` counts only those with a hit.
    """
    scores, queries = record.scores, record.protocol.query
    for name in SHARES:
        number = queries if name.startswith("map") else record.imperceptibility.query.images
        field, strict, ciba, badhash = (
            getattr(one, name) for one in (scores.field, scores.strict, scores.ciba, scores.badhash)
        )
        if None not in (field, strict) and strict > field + ROUNDING:
            raise UserError(f"scores.strict.{name} is {strict:g}, above scores.field's {field:g}.")
        hits = badhash / ciba * number if badhash and ciba else 0.0
        fits = isfinite(hits) and whole(hits) and round(hits) <= number
        if bool(badhash) != bool(ciba) or not fits:
            raise UserError(
                f"scores.badhash.{name} and scores.ciba.{name} don't belong together: {badhash} "
                f"and {ciba} would be of {hits:.6g} of {number} queries."
            )
