"""The part of a record that says how poison is dispersed in the space of codes."""

from hashbackdoor_bench.records.schema import Count, Part


class CodeDistances(Part, frozen=True):
    """Mean distances of the codes of poisoned images, see `metrics.distances`.

    Attributes:
        l_a: L_a, distance to the code of the same image without perturbation, in bits.
        l_c: L_c, distance to the codes of the other images, in bits; None of a single image.
        l_a_share: L_a as a share of K, the largest possible.
        l_c_share: L_c as a share of the largest possible for so many images.
    """

    l_a: float
    l_c: float | None
    l_a_share: float
    l_c_share: float | None


class Distances(Part, frozen=True):
    """Distances of ``relaxed`` codes, which attacks optimise, and of ``hard`` codes of ±1."""

    relaxed: CodeDistances
    hard: CodeDistances


class DispersedCodes(Part, frozen=True):
    """What one network makes of the poison.

    Attributes:
        plain: the original images.
        perturbed: the carriers, without trigger.
        stamped: the carriers with the trigger, as they would be stored in files.
    """

    plain: Distances
    perturbed: Distances
    stamped: Distances


class Dispersion(Part, frozen=True):
    """How far the codes of poison are from those of the original images and from one another.

    Attributes:
        images: M, all poisoned images; an attack may perturb them in smaller batches.
        surrogate: the attacker's network, on which they were crafted.
        victim: the victim, trained on them.
    """

    images: Count
    surrogate: DispersedCodes
    victim: DispersedCodes
