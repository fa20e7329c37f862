"""What the runs of one mean must share, and the refusal of those that don't.

A table is of one protocol and one R. A column is of one victim, trained in one way. A mean is over
the targets and seeds of runs that are equal in everything else.
"""

from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any

import pandas as pd

from hashbackdoor_bench.data import PROTOCOLS
from hashbackdoor_bench.errors import UserError
from hashbackdoor_bench.records import Record
from hashbackdoor_bench.spec import OVERRIDES, RunSpec, canonical
from hashbackdoor_bench.text import shortened

CLEAN_VICTIM = "clean victim"  # the stage that trains it
SCALED = (*OVERRIDES, "head_lr")  # of a recipe: fields of the spec, and what keeps its ratio to lr

# What makes an attack of one label another attack.
SAME_ATTACK = (
    "attack", "attack_settings", "attack_inputs", "budget", "poison_count", "delivery", "surrogate",
    "surrogate_backbone", "surrogate_bits", "surrogate_recipe", "surrogate_pretrained",
    "surrogate_settings", "aware",
)  # fmt: skip
# What makes a defense of one name another defense.
SAME_DEFENSE = (
    "defense", "defense_settings", "operating_point", "clean_share", "defense_version",
)  # fmt: skip
# In what else the runs of a column or of a mean may differ, each with the reason.
FREE = {
    "target": "a mean is over targets",
    "seed": "a mean is over seeds",
    "victim": "it heads a column",
    "bits": "they head a column",
    "lists": "a path: what it holds is compared by `refuse_mixed_protocols`",
    "root": "a path: what it holds is compared by `refuse_mixed_protocols`",
    "tolerance": "which images were left out is compared there",
    "top_k": "the R of the record, which has a default too, is compared there",
    "precision": "it follows the device; on one device `refuse_mixed_victims` compares it",
}
# What makes a victim of one name another victim: every field of a run that has no other place here,
# so that runs which differ in a field of tomorrow are refused until somebody has placed it.
SAME_VICTIM = (
    *(
        field.name
        for field in fields(RunSpec)
        if field.name not in {*SAME_ATTACK, *SAME_DEFENSE, *FREE}
    ),
    "recipe_settings",
)


def size_of(spec: RunSpec) -> int | None:
    """Side of the network's input in px, that of the data where none was asked for."""
    own = PROTOCOLS[spec.dataset].size if spec.dataset in PROTOCOLS else None
    return spec.size or own


def _attack_inputs(record: Record) -> dict[str, Any]:
    """What an attack recorded beside its settings, such as the hash of a file that they name."""
    given = dict(record.spec.attack_settings)
    return {
        name: value
        for name, value in record.params.attack.items()
        if name not in given or given[name] != value
    }


def _surrogate_settings(record: Record) -> dict[str, Any] | None:
    return record.params.surrogate if record.threat.knowledge == "surrogate" else None


def _recipe_settings(record: Record) -> dict[str, Any]:
    """What the recipe of that name fixed when the run was made."""
    return {name: value for name, value in record.params.recipe.items() if name not in SCALED}


def _defense_version(record: Record) -> int | None:
    return record.defense.version if record.defense else None


# What a record says by another name than its spec does, or that its spec leaves open.
RECORDED: dict[str, Callable[[Record], object]] = {
    "attack_inputs": _attack_inputs,
    "surrogate_settings": _surrogate_settings,
    "recipe_settings": _recipe_settings,
    "defense_version": _defense_version,
    "weights_hash": lambda record: record.params.weights,
    "size": lambda record: size_of(record.spec),
}


def value_of(record: Record, name: str) -> object:
    """A name of ``RECORDED``, or else a field of the spec."""
    return RECORDED[name](record) if name in RECORDED else getattr(record.spec, name, None)


def values_of(frame: pd.DataFrame, name: str) -> list[object]:
    """A column; where there is none, see `value_of`."""
    # the budget of the column is what rounding to whole images left of the spec's
    if name in frame and name != "budget":
        return [value if value == value else None for value in frame[name].tolist()]  # no NaN
    if name in RECORDED:
        return list(map(RECORDED[name], frame["record"]))
    return [getattr(record.spec, name, None) for record in frame["record"]]


def texts_of(frame: pd.DataFrame, name: str) -> list[str]:
    """The same as ``--where`` takes them."""
    return list(map(text_of, values_of(frame, name)))


def text_of(value: object) -> str:
    """A value of a column or field, as ``--where`` takes it."""
    if value is None:
        return "none"
    if isinstance(value, list | tuple | dict):
        return canonical(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def refuse_mixed_protocols(frame: pd.DataFrame, what: str = "these records") -> None:
    """Refuse records that are not of one protocol and one R, or of other images of one name.

    Args:
        frame: the records.
        what: they are together, for the message.

    Raises:
        UserError: they are of two.
    """
    pixels: dict[str, str] = {}
    for dataset, record in zip(frame["dataset"], frame["record"], strict=True):
        found_pixels = record.protocol.pixels
        if found_pixels and pixels.setdefault(dataset, found_pixels) != found_pixels:
            raise UserError(
                f"{what} are of other images of data {dataset} (pixels {pixels[dataset][:10]} and "
                f"{found_pixels[:10]}), or of another --size, which are never mixed: give the "
                "records of one of them."
            )
    for name, title in (("protocol", "protocol"), ("top_k", "R")):
        found = frame.drop_duplicates(name)
        if len(found) > 1:
            one, other = (
                f"{str(value)[:10]} (data {dataset})"
                for value, dataset in zip(found[name][:2], found["dataset"][:2], strict=True)
            )
            apart = "dataset" if found["dataset"].nunique() == len(found) else name
            raise UserError(
                f"{what} have {title} {one} and {other}, which are never mixed: give the records "
                "of one of them; bench table and bench figure choose with "
                f"--where {apart}={found[apart].iloc[0]}."
            )


def refuse_mixed(frame: pd.DataFrame, what: str, names: Sequence[str]) -> None:
    """Refuse records that differ in what they must share.

    Args:
        frame: the records.
        what: they are together, for the message.
        names: see `values_of`: `SAME_ATTACK`, `SAME_DEFENSE`; for victims `refuse_mixed_victims`.

    Raises:
        UserError: they differ in one of these.
    """
    for name in names:
        values = values_of(frame, name)
        if all(value == values[0] for value in values):  # writing them all out takes longer
            continue
        found = list(dict.fromkeys(map(text_of, values)))
        if len(found) > 1:
            raise UserError(
                f"{what}: there are runs with {name}={shortened(found[0])} and with "
                f"{name}={shortened(found[1])}, which are never averaged or compared: give the "
                "records of one of them; bench table and bench figure choose with "
                f"--where '{name}={found[0]}'."
            )


def clean_victim_of(record: Record) -> tuple[tuple[object, ...], str] | None:
    """All that the clean victim depends on beside its settings, and its key; None: not known.

    A record of older code has the name of a file of weights, but not its hash; the key has. Two
    records that agree in the settings of the victim and in the first part must agree in the key.
    """
    spec, key = record.spec, record.artifacts.get(CLEAN_VICTIM)
    if record.numerics is None or key is None:
        return None
    return (spec.victim, spec.bits, spec.seed, record.numerics), key


def refuse_mixed_victims(frame: pd.DataFrame, what: str) -> None:
    """Refuse victims of one name that were trained in two ways, or start from two files of weights.

    Args:
        frame: the records of a column.
        what: they are together, for the message.

    Raises:
        UserError: in what they differ.
    """
    refuse_mixed(frame, what, SAME_VICTIM)
    hashed = [record.params.weights is not None for record in frame["record"]]
    refuse_mixed(frame[hashed], what, ["weights_hash"])  # records of older code hold none
    devices = [record.numerics and record.numerics.device for record in frame["record"]]
    for device in dict.fromkeys(filter(None, devices)):
        refuse_mixed(frame[[one == device for one in devices]], f"{what}, {device}", ["precision"])
    known: dict[tuple[object, ...], tuple[str, str]] = {}
    for path, victim in zip(frame["path"], map(clean_victim_of, frame["record"]), strict=True):
        if victim is None:
            continue
        network, key = victim
        other, first = known.setdefault(network, (key, path))
        if other != key:
            raise UserError(
                f"{what}: {first} and {path} name the same settings and seed, but their clean "
                f"victims are two networks (keys {other[:10]} and {key[:10]}), as from two files "
                "of --weights or two versions of the victim's code, which are never averaged or "
                "compared: give the records of one of them."
            )
