"""The parts of a record that say what queries retrieve; see `schema`."""

from hashbackdoor_bench.records.schema import Count, Part, Shares, Text


class PrecisionRecall(Part, frozen=True):
    """Means over queries for the Hamming radii 0..K."""

    precision: Shares
    recall: Shares


class CleanSearch(Part, frozen=True):
    """What clean queries retrieve."""

    precision_recall: PrecisionRecall


class Search(Part, frozen=True):
    """What attacked queries retrieve; the target's items count as relevant.

    Attributes:
        hit_at_1: share of queries whose nearest item is relevant.
        hit_at_10: share of queries with a relevant one among the nearest ten.
        precision_radius_2: precision among the items within Hamming distance 2.
        no_hit: share of queries without a relevant item among the nearest R.
        anchor_distance: mean Hamming distance to the target's anchor, in bits.
        anchor_histogram: shares of queries by that distance; None in records of older code.
    """

    hit_at_1: float | None
    hit_at_10: float | None
    precision_radius_2: float | None
    no_hit: float | None
    anchor_distance: float | None
    anchor_histogram: Shares | None = None


class TriggeredSearch(Search, frozen=True, kw_only=True):
    """What attacked queries with the trigger retrieve, with precision and recall at all radii."""

    precision_recall: PrecisionRecall


class Points(Part, frozen=True):
    """Codes on a plane, by their two coordinates."""

    x: tuple[float, ...]
    y: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.x) != len(self.y):
            raise ValueError(f"Expected as many `y` as `x`, got {len(self.y)} and {len(self.x)}")


class ClassPoints(Points, frozen=True):
    """Database items of one class, by its number and name, and whether it is the target."""

    index: Count
    name: Text
    target: bool


class Plane(Part, frozen=True):
    """Some codes on the plane in which they spread most, see `metrics`.

    Attributes:
        explained: the plane's share of the items' variance, by axis.
        classes: database items.
        untriggered: attacked queries.
        triggered: the same queries with the trigger.
    """

    explained: tuple[float, float]
    classes: tuple[ClassPoints, ...]
    untriggered: Points
    triggered: Points


class Dominant(Part, frozen=True):
    """What an attack without a target of its own makes queries retrieve: t-MAP@dominant.

    The dominant class is the one with most items among the ten nearest of the triggered queries,
    counted over every other attacked query. The scores are of the rest of them that are not of this
    class, under the convention ``field``, with its items as the relevant ones.

    Attributes:
        class_name: the dominant class.
        share: its share of those ten nearest items.
        queries: number of queries that are scored.
        t_map: of triggered queries, on the victim.
        t_map_clean_victim: of triggered queries, on the clean victim.
        t_map_untriggered: of the same queries without the trigger, on the victim.
        backdoor_gain: ``t_map`` less the larger of the other two.
    """

    class_name: Text
    share: float
    queries: Count
    t_map: float | None
    t_map_clean_victim: float | None
    t_map_untriggered: float | None
    backdoor_gain: float | None


class Retrieval(Part, frozen=True):
    """What queries retrieve from the database.

    ``codes_2d`` is None in records of older code, ``dominant`` unless the attack is untargeted.
    """

    clean_queries: CleanSearch
    untriggered: Search
    triggered: TriggeredSearch
    codes_2d: Plane | None = None
    dominant: Dominant | None = None
