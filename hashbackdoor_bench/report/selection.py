"""Which records a table or figure shows, and the names of attacks and victims in it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any

import pandas as pd

from hashbackdoor_bench.errors import UserError, unknown
from hashbackdoor_bench.records import Record
from hashbackdoor_bench.registry import VICTIMS
from hashbackdoor_bench.report.mixing import RECORDED, refuse_mixed_protocols, texts_of
from hashbackdoor_bench.spec import RunSpec
from hashbackdoor_bench.text import counted, listed, shortened, visible

DEFENDED = (
    "`bench table --layout defense` and the figures of defenses show them, --where defense=NAME "
    "takes those of one"
)
POOLING = {"none": "own pooling", "avg": "average", "max": "maximum", "flatten": "flattened"}
# In what victims of one name may differ side by side in a table, and how it is written there.
FORMS: dict[str, Callable[[str], str]] = {
    "backbone": str,
    "pool": POOLING.__getitem__,
    "hidden": lambda width: f"hidden layer of {width}" if width != "0" else "linear",
    "recipe": str,
    "epochs": lambda epochs: f"{epochs} epochs",
}


def regime_of(spec: RunSpec) -> str:
    """How a run's victim is trained: ``frozen``, ``fine-tuned`` or ``from scratch``."""
    if spec.recipe == "frozen":
        return "frozen"
    return "fine-tuned" if spec.pretrained or spec.weights else "from scratch"


def poisoned_share(record: Record) -> float:
    """Of the target class, what is poisoned, whether asked for by ``--budget`` or by count.

    A budget that was rounded to whole images is that budget.
    """
    images, poisoned, spec = record.threat.target_images, record.threat.poisoned, record.spec
    if spec.poison_count is None and int(spec.budget * images + 0.5) == poisoned:
        return float(spec.budget)
    return poisoned / images if images else 0.0


def undefended(frame: pd.DataFrame) -> pd.DataFrame:
    """The runs without a defense: those with one repeat their scores."""
    return frame[[record.spec.defense == RunSpec.defense for record in frame["record"]]]


def choose(
    frame: pd.DataFrame, conditions: Sequence[str], *, defended: bool = False
) -> pd.DataFrame:
    """The rows that fulfil ``column=value`` conditions; values of one column are alternatives.

    Args:
        frame: of a `Collection`.
        conditions: texts.
        defended: whether runs with a defense are kept even if no condition names ``defense``.

    Raises:
        UserError: no such column, or no row is left.
    """
    wanted = values_wanted(conditions)
    if "defense" not in wanted and not defended:
        if (plain := undefended(frame)).empty:
            raise UserError(f"{counted(len(frame), 'run')}, none without a defense: {DEFENDED}.")
        frame = plain
    names = {name for name in frame if "." not in name and name != "record"}
    for name, values in wanted.items():
        known = names | {field.name for field in fields(RunSpec)} | RECORDED.keys()
        if name not in known:
            raise unknown("column", name, known)
        present = texts_of(frame, name)
        for value in values:
            if value not in present:
                raise UserError(
                    f"--where {name}={shortened(value)}: no record is left; {name} is one of "
                    f"{listed(sorted(set(present)))}."
                )
        frame = frame[[value in values for value in present]]
    return frame


def without_surrogate(
    frame: pd.DataFrame, conditions: Sequence[str], *, defended: bool = False
) -> list[str]:
    """Sentences on the runs that a condition on the surrogate leaves out as they take none.

    Args:
        frame: of a `Collection`.
        conditions: see `choose`, which takes them.
        defended: see `choose`.
    """
    found = []
    for name, values in values_wanted(conditions).items():
        if not name.startswith("surrogate"):
            continue
        others = [one for one in conditions if one.partition("=")[0].strip() != name]
        rest = choose(frame, others, defended=defended)
        rest = rest[rest["surrogate"].isna()]
        texts = texts_of(rest, name)
        out = rest[[text not in values for text in texts]]
        if len(out):
            own = next(text for text in texts if text not in values)
            found.append(
                f"--where {name}={shortened(values[0])} leaves out {counted(len(out), 'run')} of "
                f"{listed(dict.fromkeys(out['label']))} without a surrogate: add "
                f"--where {name}={own} to keep them."
            )
    return found


def without_repeats(frame: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Without the runs outside a suite that are in one too, and a sentence for each of them.

    Two suites may share a run, and each has its row of a table; a run in no suite would be a second
    record of the same draw.

    Args:
        frame: of a `Collection`, or a part of it.
    """
    outside = frame["suite"].isna()
    of_suites = dict(zip(frame["key"][~outside], frame["path"][~outside], strict=True))
    again = outside & frame["key"].isin(of_suites)
    return frame[~again], [
        visible(f"{path} is left out: it is the run of {of_suites[key]} again, outside a suite.")
        for path, key in zip(frame["path"][again], frame["key"][again], strict=True)
    ]


def values_wanted(conditions: Iterable[str]) -> dict[str, list[str]]:
    """The values that ``column=value`` conditions ask for, by column.

    Raises:
        UserError: a condition isn't of this form.
    """
    wanted: dict[str, list[str]] = {}
    for condition in conditions:
        name, sign, value = condition.partition("=")
        if not sign:
            raise UserError(
                f"--where {shortened(condition)}: it is no NAME=VALUE, as in victim=hashnet."
            )
        wanted.setdefault(name.strip(), []).append(value.strip())
    return wanted


def with_display_names(frame: pd.DataFrame) -> pd.DataFrame:
    """The records with the names that tables and figures show.

    Returns:
        The frame with ``name``, the label of the attack and, where a label has several deliveries,
        the delivery; and ``network``, how papers write the victim and, where it has several forms,
        what tells them apart: backbone, pooling, recipe. Its ``victim`` gets that in the same way.

    Raises:
        UserError: see `refuse_mixed_protocols`.
    """
    refuse_mixed_protocols(frame)
    published = published_victims(frame["victim"])
    forms = [f" ({', '.join(words)})" if words else "" for words in _forms(frame)]
    deliveries = frame.groupby("label")["delivery"].nunique() > 1
    names = [
        f"{label}, {delivery}" if deliveries[label] else label
        for label, delivery in zip(frame["label"], frame["delivery"], strict=True)
    ]
    victims = list(frame["victim"])
    return frame.assign(
        victim=[victim + form for victim, form in zip(victims, forms, strict=True)],
        network=[published[victim] + form for victim, form in zip(victims, forms, strict=True)],
        name=names,
    )


def _forms(frame: pd.DataFrame) -> list[list[str]]:
    """For each record, what tells the form of its victim from the others of the victim's name.

    Except for backbones, two forms stand side by side only if they were tried on the same draw of
    one attack; else they are left to `refuse_mixed`.
    """
    draw = ["label", "bits", "target", "seed", "budget", "delivery"]
    known = pd.DataFrame({name: texts_of(frame, name) for name in ("victim", *draw, *FORMS)})
    telling: list[str] = []  # not those that follow from the ones before, as epochs do from recipe
    found: list[list[str]] = [[] for _ in range(len(known))]
    for name, wording in FORMS.items():
        same = ["victim", *telling, *([] if name == "backbone" else draw)]
        several = known.groupby(same)[name].transform("nunique") > 1
        if several.any():
            among = known["victim"].isin(known["victim"][several])
            for row in among.to_numpy().nonzero()[0]:
                found[row].append(wording(str(known[name].iloc[row])))
            telling.append(name)
    return found


def published_victims(victims: Iterable[str]) -> dict[str, str]:
    """How papers write each victim, with its own name too where two are written alike."""
    names = {victim: VICTIMS.published(victim) for victim in victims}
    written = list(names.values())
    return {
        victim: f"{published} ({victim})" if written.count(published) > 1 else published
        for victim, published in names.items()
    }


def victim_heads(frame: pd.DataFrame, column: str = "network") -> list[str]:
    """The victims as heads of columns, with bits where there are several.

    Args:
        frame: from `with_display_names`.
        column: ``network`` for the names of papers, ``victim`` for those of the command line.
    """
    if frame["bits"].nunique() == 1:
        return list(frame[column])
    pairs = zip(frame[column], frame["bits"], strict=True)
    return [f"{victim}, {bits} bits" for victim, bits in pairs]


def surrogate_heads(frame: pd.DataFrame) -> list[str]:
    """The surrogates as heads of rows, with what tells those of one method apart."""
    specs = [record.spec for record in frame["record"]]
    frame = frame.assign(
        surrogate_recipe=[surrogates_recipe(spec) for spec in specs],
        surrogate_start=[surrogates_start(spec) for spec in specs],
    )
    same, varied = ["surrogate"], []
    for name in ("surrogate_backbone", "surrogate_recipe", "surrogate_start", "surrogate_bits"):
        if frame.groupby(same)[name].nunique().max() > 1:
            varied.append(name)
            if name != "surrogate_bits":
                same.append(name)  # what follows from it, as pretrained from frozen, isn't said
    return [
        ", ".join([VICTIMS.published(row["surrogate"]), *(str(row[name]) for name in varied)])
        for row in frame.to_dict("records")
    ]


def surrogates_recipe(spec: RunSpec) -> str:
    """How a run's surrogate is trained."""
    return str(spec.surrogate_recipe or spec.recipe)


def surrogates_start(spec: RunSpec) -> str:
    """From which weights a run's surrogate starts."""
    own = spec.surrogate_pretrained
    if own is None and spec.weights and spec.surrogate_backbone == spec.backbone:
        return "weights of a file"
    return "pretrained" if (spec.pretrained if own is None else own) else "random weights"


def surrogate_difference(row: Mapping[Any, Any]) -> list[str]:
    """In what the surrogate is not the victim's kind of network, as words; nothing: a white box.

    Args:
        row: of the frame, of an attack that takes a surrogate.
    """
    spec = row["record"].spec
    words = [
        (VICTIMS.published(row["surrogate"]), row["surrogate"] != spec.victim),
        (str(row["surrogate_backbone"]), row["surrogate_backbone"] != spec.backbone),
        (str(row["surrogate_bits"]), row["surrogate_bits"] != spec.bits),
        (str(spec.surrogate_recipe), spec.surrogate_recipe and row["surrogate"] == spec.victim),
        (surrogates_start(spec), spec.surrogate_pretrained is not None),
    ]
    return [word for word, differs in words if differs]
