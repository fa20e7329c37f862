"""Whether a record agrees with itself, as far as that shows without its codes.

The parts of a record say many things twice: a gain is a difference of scores that it holds too, two
conventions differ only in which queries they leave out, a histogram has a mean. A record whose
parts contradict one another was edited or damaged after the run. One that agrees with itself may
still be made up: only scoring its codes again, or running it again, shows that it is true.
"""

from collections.abc import Sequence
from math import isfinite, log10

from hashbackdoor_bench.data import PROTOCOLS
from hashbackdoor_bench.errors import UserError
from hashbackdoor_bench.records import (
    CONVENTIONS,
    ConventionScores,
    FieldScores,
    PrecisionRecall,
    Record,
    Search,
    Visibility,
    checksum_of,
    record_key,
)

ROUNDING = 1e-9  # of a score: sums are rounded in another order on another machine
COUNTING = 1e-6  # of a number of queries, computed as a share times all of them
# A mean under one order of ties lies between those under the worst and the best order, but for
# queries of which R cuts a tie: they have moved no mean by as much as a tenth of this.
BEYOND_BOUNDS = 0.05
SHARES = ("map", "t_map", "map_clean_victim", "t_map_clean_victim", "t_map_untriggered")


def check_record(record: Record) -> None:
    """Refuse a record whose parts contradict one another.

    Raises:
        UserError: what contradicts what, as a clause without the record's name.
    """
    if record_key(record.spec, record.artifacts) != record.key:
        raise UserError("its spec was changed after the run: its key doesn't follow from it.")
    if record.checksum is not None and record.checksum != checksum_of(record):
        raise UserError("it was changed after the run: its checksum doesn't follow from it.")
    _protocol(record)
    _threat(record)
    _settings(record)
    for convention in CONVENTIONS:
        _differences(convention, record.scores[convention])
    _field(record.scores.field)
    _conventions(record)
    _retrieval(record)
    _visibility(record)


def _agree(what: str, found: object, follows: object, source: str) -> None:
    if found != follows:
        raise UserError(f"{what} is {found}, but {source} gives {follows}.")


def _near(what: str, found: float | None, follows: float | None, source: str) -> None:
    if (found is None) != (follows is None) or (
        found is not None and follows is not None and abs(found - follows) > ROUNDING
    ):
        raise UserError(f"{what} was changed: it is {found}, but {follows} follows from {source}.")


def _within(what: str, value: float | None, low: float, high: float) -> None:
    if value is not None and not low - ROUNDING <= value <= high + ROUNDING:
        raise UserError(f"{what} is {value:g}, which is not between {low:g} and {high:g}.")


def _whole(number: float) -> bool:
    return abs(number - round(number)) <= COUNTING * max(1.0, abs(number))


# ---- the run ------------------------------------------------------------------------------------


def _protocol(record: Record) -> None:
    facts, spec = record.protocol, record.spec
    _agree("protocol.name", facts.name, spec.dataset, "spec.dataset")
    known = PROTOCOLS.get(spec.dataset)
    if known is not None and known.sha256:  # its lists are in this package
        for name in ("train", "query", "database", "classes", "top_k", "sha256", "pixels"):
            _agree(f"protocol.{name}", getattr(facts, name), getattr(known, name), facts.name)
    if not 1 <= facts.top_k <= facts.database:
        raise UserError(f"protocol.top_k is {facts.top_k} of {facts.database} database images.")
    if spec.top_k is not None and facts.top_k != min(spec.top_k, facts.database):
        raise UserError(f"protocol.top_k is {facts.top_k}, but spec.top_k is {spec.top_k}.")


def _threat(record: Record) -> None:
    threat, spec = record.threat, record.spec
    _agree("threat.delivery", threat.delivery, spec.delivery, "spec.delivery")
    for name, allowed in (("label", ("clean", "dirty")), ("knowledge", ("none", "surrogate"))):
        if getattr(threat, name) not in allowed:
            raise UserError(
                f"threat.{name} is {getattr(threat, name)!r}, not {' or '.join(allowed)}."
            )
    members = threat.target_images
    share = threat.poisoned / members if members else None
    _near("threat.budget", threat.budget, share, "threat.poisoned and threat.target_images")
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
            _agree(f"params.recipe.{name}", params.recipe.get(name), value, f"spec.{name}")
    if spec.epochs is not None:
        for name in ("victim", "clean_victim"):
            _agree(f"training.{name}", len(getattr(training, name)), spec.epochs, "spec.epochs")
    if any(value < 0 for value in record.seconds.values()):
        raise UserError("seconds has a time below 0.")


# ---- scores -------------------------------------------------------------------------------------


def _differences(convention: str, scores: ConventionScores) -> None:
    """Scores must be shares, and the two differences must follow from them."""
    for name in SHARES:
        value = getattr(scores, name)
        if value is not None and not 0 <= value <= 1:
            raise UserError(f"scores.{convention}.{name} is {value:g}, which no share can be.")
    clean, untriggered = scores.t_map_clean_victim, scores.t_map_untriggered
    control = None if clean is None or untriggered is None else max(clean, untriggered)
    for name, minuend, subtrahend in (
        ("delta_map", scores.map, scores.map_clean_victim),
        ("backdoor_gain", scores.t_map, control),
    ):
        follows = None if minuend is None or subtrahend is None else minuend - subtrahend
        _near(f"scores.{convention}.{name}", getattr(scores, name), follows, "the others")


def _field(scores: FieldScores) -> None:
    """A score must lie in its interval over queries, and near its bounds over orders of ties."""
    names = ("map", "t_map", "delta_map", "backdoor_gain")
    _agree("scores.field.intervals", sorted(scores.intervals), sorted(names), "the schema")
    _agree("scores.field.bounds", sorted(scores.bounds), ["map", "t_map"], "the schema")
    for part, beyond in (("intervals", 0.0), ("bounds", BEYOND_BOUNDS)):
        for name, (low, high) in getattr(scores, part).items():
            value, place = getattr(scores, name), f"scores.field.{part}.{name}"
            if value is None or low is None or high is None:
                if (value, low, high) != (None, None, None):
                    raise UserError(f"{place} is {low} to {high}, but the score is {value}.")
                continue
            _within(place, low, -1 if name in names[2:] else 0, high)
            _within(place, high, low, 1)
            _within(f"scores.field.{name}", value, low - beyond, high + beyond)


def _conventions(record: Record) -> None:
    """Scores of one network under two conventions differ in a known way.

    ``strict`` divides by no fewer items than ``field``. ``ciba`` and ``badhash`` have the same sum
    over queries, of which ``ciba`` counts only those with a hit.
    """
    scores, queries = record.scores, record.protocol.query
    for name in SHARES:
        number = queries if name.startswith("map") else record.imperceptibility.query.images
        field, strict, ciba, badhash = (
            getattr(scores[one], name) for one in ("field", "strict", "ciba", "badhash")
        )
        if None not in (field, strict) and strict > field + ROUNDING:
            raise UserError(f"scores.strict.{name} is {strict:g}, above scores.field's {field:g}.")
        hits = badhash / ciba * number if badhash and ciba else 0.0
        fits = isfinite(hits) and _whole(hits) and round(hits) <= number
        if bool(badhash) != bool(ciba) or not fits:
            raise UserError(
                f"scores.badhash.{name} and scores.ciba.{name} don't belong together: {badhash} "
                f"and {ciba} would be of {hits:.6g} of {number} queries."
            )
    for name in ("map", "t_map"):  # the convention `field` with one order of ties
        low, high = scores.field.bounds[name]
        if low is not None and high is not None:
            value = getattr(scores.badhash, name)
            _within(f"scores.badhash.{name}", value, low - BEYOND_BOUNDS, high + BEYOND_BOUNDS)


# ---- what is retrieved --------------------------------------------------------------------------


def _retrieval(record: Record) -> None:
    retrieval, bits = record.retrieval, record.spec.bits
    attacked = record.imperceptibility.query.images
    scores = record.scores.field
    searches = (
        ("untriggered", retrieval.untriggered, scores.t_map_untriggered),
        ("triggered", retrieval.triggered, scores.t_map),
    )
    for name, search, score in searches:
        _search(f"retrieval.{name}", search, score, record.protocol.top_k)
        _histogram(f"retrieval.{name}", search, bits, attacked)
    curves = (
        ("clean_queries", retrieval.clean_queries.precision_recall),
        ("triggered", retrieval.triggered.precision_recall),
    )
    for name, curve in curves:
        _curve(f"retrieval.{name}.precision_recall", curve, bits)
    curve = retrieval.triggered.precision_recall
    _near(
        "retrieval.triggered.precision_radius_2",
        retrieval.triggered.precision_radius_2, curve.precision[min(2, bits)],
        "precision_recall",
    )  # fmt: skip
    _plane(record, attacked)


def _search(what: str, search: Search, score: float | None, top_k: int) -> None:
    for name in ("hit_at_1", "hit_at_10", "precision_radius_2", "no_hit"):
        _within(f"{what}.{name}", getattr(search, name), 0, 1)
    hit = 1.0 if search.no_hit is None else 1 - search.no_hit
    ten = search.hit_at_10
    _within(f"{what}.hit_at_1", search.hit_at_1, 0, 1 if ten is None else ten)
    if top_k >= 10:
        _within(f"{what}.hit_at_10", ten, 0, hit)
    if score is not None and score > hit + ROUNDING:
        raise UserError(f"{what}: a score of {score:g} needs more hits than no_hit leaves.")


def _histogram(what: str, search: Search, bits: int, queries: int) -> None:
    """The shares of queries by distance must be of whole queries, with the recorded mean."""
    shares = search.anchor_histogram
    if shares is None:
        _within(f"{what}.anchor_distance", search.anchor_distance, 0, bits)
        return
    known = _shares(f"{what}.anchor_histogram", shares, bits)
    if not all(_whole(share * queries) for share in known):
        raise UserError(f"{what}.anchor_histogram is not of {queries} queries.")
    if known:
        mean = sum(distance * share for distance, share in enumerate(known))
        _near(f"{what}.anchor_distance", search.anchor_distance, mean, "anchor_histogram")
        _near(f"{what}.anchor_histogram", sum(known), 1.0, "its being shares")


def _shares(what: str, shares: Sequence[float | None], bits: int) -> list[float]:
    """The shares at the distances 0..K; none where there is no query."""
    _agree(what, len(shares), bits + 1, "spec.bits")
    known = [share for share in shares if share is not None]
    if known and len(known) < len(shares):
        raise UserError(f"{what} lacks some of its values.")
    for share in known:
        _within(what, share, 0, 1)
    return known


def _curve(what: str, curve: PrecisionRecall, bits: int) -> None:
    _shares(f"{what}.precision", curve.precision, bits)
    recall = _shares(f"{what}.recall", curve.recall, bits)
    if any(after < before - ROUNDING for before, after in zip(recall, recall[1:], strict=False)):
        raise UserError(f"{what}.recall falls as the radius grows.")
    if recall:
        _near(f"{what}.recall", recall[-1], 1.0, "its radius, which takes in the whole database")


def _plane(record: Record, attacked: int) -> None:
    plane = record.retrieval.codes_2d
    if plane is None:
        return
    what = "retrieval.codes_2d"
    for share in plane.explained:
        _within(f"{what}.explained", share, 0, 1)
    _agree(what, len(plane.triggered.x), len(plane.untriggered.x), "untriggered")
    if len(plane.triggered.x) > attacked:
        raise UserError(f"{what} has more queries than the {attacked} that were attacked.")
    numbers = [one.index for one in plane.classes]
    if numbers != sorted(set(numbers)) or any(n >= record.protocol.classes for n in numbers):
        raise UserError(f"{what}.classes names classes that the data doesn't have.")
    targets = [one.name for one in plane.classes if one.target]
    if targets:
        _agree(f"{what}: the target", targets, [record.spec.target], "spec.target")


# ---- what is seen -------------------------------------------------------------------------------


def _visibility(record: Record) -> None:
    seen, threat = record.imperceptibility, record.threat
    _agree("imperceptibility.poison.images", seen.poison.images, threat.poisoned, "threat.poisoned")
    if seen.query.images > record.protocol.query:
        raise UserError("imperceptibility.query.images is more than protocol.query.")
    for name, one in (("poison", seen.poison), ("query", seen.query)):
        _differences_seen(f"imperceptibility.{name}", one)


def _differences_seen(what: str, seen: Visibility) -> None:
    if not seen.images and any(v is not None for v in (seen.max, seen.l2, seen.psnr, seen.ssim)):
        raise UserError(f"{what} measures the difference of no images.")
    _within(f"{what}.max", seen.max, 0, 255)
    _within(f"{what}.ssim", seen.ssim, -1, 1)
    for name, low in (("similarity", -1), ("mean_share", 0)):
        value = getattr(seen, name)
        _within(f"{what}.{name}", value if isinstance(value, float) else None, low, 1)
    if seen.max is not None and seen.psnr is not None:
        # no pixel differs by more than `max`, so no image has a lower PSNR than if all did
        if not seen.max or seen.psnr < 20 * log10(255 / seen.max) - COUNTING:
            raise UserError(f"{what}.psnr is {seen.psnr:g} dB, too low for a `max` of {seen.max:g}.")
