"""Whether what a record says of retrieval and of its images is possible, and agrees with itself."""

from collections.abc import Sequence
from math import inf, log10

import numpy as np
import numpy.typing as npt

from hashbackdoor_bench.errors import UserError
from hashbackdoor_bench.records import PrecisionRecall, Record, Search, Visibility
from hashbackdoor_bench.report.claims import COUNTING, ROUNDING, agree, near, within
from hashbackdoor_bench.spec import SEVERAL

Array = npt.NDArray[np.float64]

# ---- what is retrieved --------------------------------------------------------------------------


def check_retrieval(record: Record) -> None:
    """Refuse curves, histograms and hits that contradict one another or the scores.

    Raises:
        UserError: what contradicts what.
    """
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
    near(
        "retrieval.triggered.precision_radius_2",
        retrieval.triggered.precision_radius_2, curve.precision[min(2, bits)],
        "precision_recall",
    )  # fmt: skip
    _plane(record, attacked)


def _search(what: str, search: Search, score: float | None, top_k: int) -> None:
    for name in ("hit_at_1", "hit_at_10", "precision_radius_2", "no_hit"):
        within(f"{what}.{name}", getattr(search, name), 0, 1)
    hit = 1.0 if search.no_hit is None else 1 - search.no_hit
    ten = search.hit_at_10
    within(f"{what}.hit_at_1", search.hit_at_1, 0, 1 if ten is None else ten)
    if top_k >= 10:
        within(f"{what}.hit_at_10", ten, 0, hit)
    if score is not None and score > hit + ROUNDING:
        raise UserError(f"{what}: a score of {score:g} needs more hits than no_hit leaves.")


def _histogram(what: str, search: Search, bits: int, queries: int) -> None:
    """The shares of queries by distance must be of whole queries, with the recorded mean."""
    shares = search.anchor_histogram
    if shares is None:
        within(f"{what}.anchor_distance", search.anchor_distance, 0, bits)
        return
    known = _shares(f"{what}.anchor_histogram", shares, bits)
    counts = known * queries
    if (abs(counts - counts.round()) > COUNTING * counts.clip(1)).any():
        raise UserError(f"{what}.anchor_histogram is not of {queries} queries.")
    if known.size:
        mean = float(known @ np.arange(bits + 1))
        near(f"{what}.anchor_distance", search.anchor_distance, mean, "anchor_histogram")
        near(f"{what}.anchor_histogram", float(known.sum()), 1.0, "its being shares")


def _shares(what: str, shares: Sequence[float | None], bits: int) -> Array:
    """The shares at the distances 0..K, (K + 1,); none where there is no query, (0,)."""
    agree(what, len(shares), bits + 1, "spec.bits")
    missing = shares.count(None)
    if missing == len(shares):
        return np.empty(0)
    if missing:
        raise UserError(f"{what} lacks some of its values.")
    known: Array = np.array(shares)
    for share in (known.min(), known.max()):
        within(what, share, 0, 1)
    return known


def _curve(what: str, curve: PrecisionRecall, bits: int) -> None:
    _shares(f"{what}.precision", curve.precision, bits)
    recall = _shares(f"{what}.recall", curve.recall, bits)
    if (np.diff(recall) < -ROUNDING).any():
        raise UserError(f"{what}.recall falls as the radius grows.")
    if recall.size:
        near(
            f"{what}.recall",
            float(recall[-1]),
            1.0,
            "its radius, which takes in the whole database",
        )


def _plane(record: Record, attacked: int) -> None:
    plane = record.retrieval.codes_2d
    if plane is None:
        return
    what = "retrieval.codes_2d"
    for share in plane.explained:
        within(f"{what}.explained", share, 0, 1)
    agree(what, len(plane.triggered.x), len(plane.untriggered.x), "untriggered")
    if len(plane.triggered.x) > attacked:
        raise UserError(f"{what} has more queries than the {attacked} that were attacked.")
    numbers = [one.index for one in plane.classes]
    if numbers != sorted(set(numbers)) or any(n >= record.protocol.classes for n in numbers):
        raise UserError(f"{what}.classes names classes that the data doesn't have.")
    targets = [one.name for one in plane.classes if one.target]
    if targets:
        agree(f"{what}: the target", SEVERAL.join(targets), record.spec.target, "spec.target")


def check_dispersion(record: Record) -> None:
    """Refuse distances between codes that no codes have.

    Raises:
        UserError: what contradicts what.
    """
    found = record.dispersion
    if found is None:
        return
    agree("dispersion.images", found.images, record.threat.poisoned, "threat.poisoned")
    for network, bits in (("surrogate", record.spec.surrogate_bits), ("victim", record.spec.bits)):
        for images in ("plain", "perturbed", "stamped"):
            shown = getattr(getattr(found, network), images)
            for kind in ("relaxed", "hard"):
                what, one = f"dispersion.{network}.{images}.{kind}", getattr(shown, kind)
                within(f"{what}.l_a_share", one.l_a_share, 0, 1)
                within(f"{what}.l_c_share", one.l_c_share, 0, 1)
                if bits is not None:
                    near(f"{what}.l_a", one.l_a, one.l_a_share * bits, "l_a_share")


# ---- what is seen -------------------------------------------------------------------------------


def check_visibility(record: Record) -> None:
    """Refuse differences between images that no images can have.

    Raises:
        UserError: what contradicts what.
    """
    seen, threat = record.imperceptibility, record.threat
    agree("imperceptibility.poison.images", seen.poison.images, threat.poisoned, "threat.poisoned")
    if seen.query.images > record.protocol.query:
        raise UserError("imperceptibility.query.images is more than protocol.query.")
    if threat.attacked is not None:
        images = seen.query.images
        agree("imperceptibility.query.images", images, threat.attacked, "threat.attacked")
    if seen.cover:
        agree("imperceptibility.cover.images", seen.cover.images, threat.covers, "threat.covers")
    for name, one in (("poison", seen.poison), ("query", seen.query), ("cover", seen.cover)):
        if one:
            _differences_seen(f"imperceptibility.{name}", one)


def _differences_seen(what: str, seen: Visibility) -> None:
    if not seen.images and any(v is not None for v in (seen.max, seen.l2, seen.psnr, seen.ssim)):
        raise UserError(f"{what} measures the difference of no images.")
    within(f"{what}.max", seen.max, 0, 255)
    within(f"{what}.ssim", seen.ssim, -1, 1)
    for name, low in (("similarity", -1), ("mean_share", 0)):
        value = getattr(seen, name)
        within(f"{what}.{name}", value if isinstance(value, float) else None, low, 1)
    # no pixel differs by more than `max`, so no image has a lower PSNR than if all did
    least = 20 * log10(255 / seen.max) - COUNTING if seen.max else inf
    if seen.max is not None and seen.psnr is not None and seen.psnr < least:
        raise UserError(f"{what}.psnr is {seen.psnr:g} dB, too low for a `max` of {seen.max:g}.")
