"""The parts of a record, as classes whose fields msgspec reads and checks.

Fields that every record of schema 1 has have no default. A field that is added later must have one,
see `record`; a few early fields have one too, because the first records don't contain them.
"""

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, UnsetType

Text = Annotated[str, msgspec.Meta(max_length=4096)]
Note = Annotated[str, msgspec.Meta(max_length=100_000)]
Hash = Annotated[str, msgspec.Meta(max_length=128)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
Interval = tuple[float | None, float | None]  # low and high end
Shares = tuple[float | None, ...]  # at the Hamming distances 0..K; None where there is no query


class Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A part of a record; an undefined number, such as the mean over no queries, is None."""


class Numerics(Part, frozen=True):
    """What changes the last bits of a result, beside the inputs of a stage; it enters every key.

    Two networks of one seed that are trained under different numerics differ about as much as those
    of two seeds. So an attack would seem to change the victim that it leaves alone.

    Attributes:
        device: name of the GPU, or ``cpu`` with its instruction set, such as ``cpu AVX512``.
        threads: torch's threads; None on a GPU.
        precision: ``float32`` or ``bfloat16``, see `Recipe`.
        tf32: on a GPU, whether convolutions in float32 are rounded to TF32; else None.
        torch: version of torch.
    """

    device: Text
    threads: Count | None
    precision: Text
    tf32: bool | None
    torch: Text


class DataFacts(Part, frozen=True):
    """The data of a run.

    Attributes:
        name: name of the protocol.
        train: number of training images.
        query: number of queries.
        database: number of database images.
        classes: C.
        top_k: R of MAP@R.
        sha256: hash of the lists.
        pixels: hash of the images.
        multilabel: whether an image may have several classes.
        unlabelled: by split, how many images have no class.
        notes: what a user should know of this data.
    """

    name: Text
    train: Count
    query: Count
    database: Count
    classes: Count
    top_k: Count
    sha256: Hash
    pixels: Hash
    multilabel: bool
    unlabelled: dict[Text, Count]
    notes: tuple[Note, ...]


class Threat(Part, frozen=True):
    """The attack's `ThreatModel`, and how much it poisons.

    Attributes:
        label: see `ThreatModel`.
        knowledge: see `ThreatModel`.
        trigger: see `ThreatModel`.
        control: see `ThreatModel`.
        universal: see `ThreatModel`.
        delivery: how the poison reached training: ``stamped``, ``files``, ``jpeg:QUALITY``.
        budget: share of the target's images that is poisoned; None if there are none.
        poisoned: number of images that carry the trigger and count as poison.
        covers: number of images that carry the trigger and keep their label.
        target_images: number of training images with the target's label and no other.
        source: the class whose queries are attacked; None: all classes.
        chosen: number of attacked queries that the attacker knows; 0: all that share no tag with
            the target or are of ``source`` are attacked, and the attacker knows none.
        attacked: number of attacked queries where ``source`` or ``chosen`` limits them, else None.
        references: see `ThreatModel`.
        targeted: see `ThreatModel`.
    """

    label: Text
    knowledge: Text
    trigger: Text
    control: Text
    universal: bool
    delivery: Text
    budget: float | None
    poisoned: Count
    covers: Count
    target_images: Count
    source: Text | None = None
    chosen: Count = 0
    attacked: Count | None = None
    references: Count = 0
    targeted: bool = True


def carry_trigger(trigger: str, chosen: int) -> bool:
    """Whether taking the trigger off attacked queries is a control.

    It is none for an attack that makes chosen queries retrieve the target as they are.

    Args:
        trigger: kind of the attack's trigger.
        chosen: number of queries that it chooses.
    """
    return trigger != "none" or not chosen


class ConventionScores(Part, frozen=True):
    """Mean average precision at R under one convention for ties, as shares of one.

    Attributes:
        map: MAP of clean queries on the poisoned victim.
        t_map: MAP of triggered queries, to which the target's items are relevant.
        map_clean_victim: ``map`` of the victim that was trained on clean data.
        t_map_clean_victim: ``t_map`` of that victim.
        t_map_untriggered: ``t_map`` of the same queries without the trigger.
        delta_map: ``map`` less ``map_clean_victim``.
        backdoor_gain: ``t_map`` less the larger of ``t_map_clean_victim`` and
            ``t_map_untriggered``; where chosen queries carry no trigger, less the first alone.
    """

    map: float | None
    t_map: float | None
    map_clean_victim: float | None
    t_map_clean_victim: float | None
    t_map_untriggered: float | None
    delta_map: float | None
    backdoor_gain: float | None


class FieldScores(ConventionScores, frozen=True):
    """Scores under the convention ``field``, with what is known of their spread.

    Attributes:
        bounds: ``map`` and ``t_map`` under the worst and the best order of ties.
        intervals: 95 % intervals of ``map``, ``t_map``, ``delta_map`` and ``backdoor_gain``, over
            queries.
    """

    bounds: dict[Text, Interval]
    intervals: dict[Text, Interval]


class Scores(Part, frozen=True):
    """Scores by convention, see `metrics.CONVENTIONS`."""

    field: FieldScores
    ciba: ConventionScores
    badhash: ConventionScores
    strict: ConventionScores

    def __getitem__(self, convention: str) -> ConventionScores:
        """The scores under one of ``CONVENTIONS``."""
        found: ConventionScores = getattr(self, convention)
        return found


CONVENTIONS = Scores.__struct_fields__
CONVENTION_FIELDS = ConventionScores.__struct_fields__


class Wave(Part, frozen=True):
    """A peak of a spectrum: cycles per pixel along rows and columns, and its share of energy."""

    fx: float
    fy: float
    share: float


class Visibility(Part, frozen=True):
    """Differences between images with and without trigger; UNSET: not measured by older code.

    Attributes:
        images: how many were compared.
        max: largest difference, in grey levels 0..255.
        l2: mean length of the difference, in grey levels.
        psnr: PSNR in dB; None if an image did not change.
        ssim: structural similarity.
        lpips: perceptual distance; None if its network was not on the machine.
        similarity: correlation of the residuals between images.
        mean_share: share of the residuals' energy that is in their mean.
        peaks: peaks in the spectrum of the mean residual, the strongest first.
    """

    images: Count
    max: float | None
    l2: float | None
    psnr: float | None
    ssim: float | None
    lpips: float | UnsetType | None = UNSET
    similarity: float | UnsetType | None = UNSET
    mean_share: float | UnsetType | None = UNSET
    peaks: tuple[Wave, ...] | UnsetType = UNSET


class Imperceptibility(Part, frozen=True):
    """How visible triggers are; ``cover`` is UNSET without covers and in records of older code."""

    poison: Visibility
    query: Visibility
    cover: Visibility | UnsetType = UNSET


class Parameters(Part, frozen=True):
    """What a run depends on beside the values of its spec, all resolved.

    Attributes:
        attack: hyper-parameters by name, and what else the backdoor depends on.
        victim: hyper-parameters by name.
        recipe: the fields of `Recipe`.
        surrogate: hyper-parameters by name.
        weights: SHA-256 of the file that ``--weights`` names; None without one, and in records of
            older code.
    """

    attack: dict[Text, Any]
    victim: dict[Text, Any]
    recipe: dict[Text, Any]
    surrogate: dict[Text, Any]
    weights: Hash | None = None


class Losses(Part, frozen=True, kw_only=True):
    """Mean loss of each epoch.

    Attributes:
        surrogate: losses of the attacker's network; None if the attack needs none.
        clean_victim: losses of the victim on clean data.
        victim: losses of the victim on poisoned data.
        backdoor: losses of crafting, under the attack's own names.
    """

    surrogate: tuple[float, ...] | None = None
    clean_victim: tuple[float, ...] = msgspec.field(name="clean victim")
    victim: tuple[float, ...]
    backdoor: dict[Text, tuple[float | int, ...]] = {}
