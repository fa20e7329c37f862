"""The result of a run as one JSON file: its schema, how it is written, and how it is read back.

``SCHEMA`` describes every field; a reader refuses another version, a missing field or a wrong type
by name, so that a damaged or foreign file is never averaged into a table.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from hashbackdoor_bench.errors import UserError
from hashbackdoor_bench.files import whole
from hashbackdoor_bench.spec import RunSpec, digest

VERSION = 1
INDEX = "index.csv"  # beside the records of a suite: which cell each of them is

SCHEMA: dict[str, tuple[type, str]] = {
    "schema": (int, "version of this schema"),
    "key": (str, "SHA-256 over the resolved spec (without folders) and the keys of all artifacts"),
    "spec": (dict, "the run's fields as resolved; `RunSpec.from_dict` reads them"),
    "protocol": (dict, "name, sizes of train/query/database, classes, top_k, sha256 of the lists"),
    "threat": (dict, "label, knowledge, trigger, control, universal, delivery, budget, poisoned"),
    "scores": (
        dict,
        "by convention (field, ciba, badhash, strict): map, t_map, map_clean_victim, "
        "t_map_clean_victim, t_map_untriggered, delta_map, backdoor_gain; field also "
        "bounds and intervals, each [low, high]",
    ),
    "retrieval": (
        dict,
        "hit_at_1, hit_at_10, precision_radius_2, no_hit, anchor_distance, anchor_histogram "
        "(shares of the queries at distance 0..K), of triggered and untriggered queries; "
        "precision-recall over the radius; codes_2d: some codes on a plane, see `projection`; "
        "records of older code lack anchor_histogram and codes_2d",
    ),
    "imperceptibility": (
        dict,
        "poison and query: max, l2, psnr, ssim, lpips in pixel units 0..255; of the residuals: "
        "similarity between images, mean_share, peaks of the mean residual's spectrum",
    ),
    "params": (dict, "attack and victim hyper-parameters, recipe and surrogate, all resolved"),
    "training": (
        dict,
        "mean loss of each epoch: surrogate, clean victim, victim; backdoor: its losses by name",
    ),
    "seconds": (dict, "what each stage took when it was made, without the stages before it"),
    "artifacts": (dict, "keys of the cached artifacts that the scores follow from"),
    "device": (str, "where the victim was trained"),
    "versions": (dict, "python and the libraries that decide numbers"),
    "commit": ((str, type(None)), "of the code that trained the victim, None outside a checkout"),  # type: ignore[dict-item]
    "dirty": ((bool, type(None)), "whether that checkout had changed code"),  # type: ignore[dict-item]
}

# a list of numbers, which would take a line each; in a JSON string there is no line end
_NUMBERS = re.compile(r"\[\n[-+.,\deE\s]*\]")

CONVENTIONS = ("field", "ciba", "badhash", "strict")  # those of metrics, which needs torch
CONVENTION_FIELDS = (
    "map",
    "t_map",
    "map_clean_victim",
    "t_map_clean_victim",
    "t_map_untriggered",
    "delta_map",
    "backdoor_gain",
)


@dataclass(frozen=True)
class Record:
    """One scored run; the fields are those of ``SCHEMA``."""

    key: str
    spec: dict[str, Any]
    protocol: dict[str, Any]
    threat: dict[str, Any]
    scores: dict[str, dict[str, Any]]
    retrieval: dict[str, Any]
    imperceptibility: dict[str, Any]
    params: dict[str, Any]
    training: dict[str, Any]
    seconds: dict[str, float]
    artifacts: dict[str, str]
    device: str
    versions: dict[str, str]
    commit: str | None
    dirty: bool | None
    schema: int = VERSION

    @property
    def run_spec(self) -> RunSpec:
        """The spec that makes this record again.

        Raises:
            UserError: it isn't one.
        """
        try:
            return RunSpec.from_dict(self.spec)
        except (TypeError, ValueError) as error:
            raise UserError(f"this record's spec can't be run: {error}.") from error

    def write(self, path: Path) -> None:
        """Write the JSON; it appears whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(asdict(self), indent=1, sort_keys=True, allow_nan=False)
        text = _NUMBERS.sub(lambda found: "".join(found[0].split()), text)
        with whole(path) as fresh:
            fresh.write_text(text + "\n", encoding="utf-8")


def record_path(results: Path, spec: RunSpec, key: str) -> Path:
    """Where a run's record stands: readable, and different for every spec."""
    group = results / spec.dataset / f"{spec.victim}-{spec.bits}"
    return group / f"{spec.attack}-s{spec.seed}-{key[:10]}.json"


def read_record(path: Path) -> Record:
    """A record from its file.

    Raises:
        UserError: not there, not JSON, of another schema, or with a missing or mistyped field.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; give the path of a record.") from error
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}); run its command again.") from error
    problem = mistakes(values)
    if problem:
        raise UserError(f"{path} is not a record of schema {VERSION}: {problem}.")
    return Record(**values)


def mistakes(values: object) -> str | None:
    """What keeps a JSON value from being a record of this schema; None if nothing does."""
    if not isinstance(values, Mapping):
        return "it is not a JSON object"
    if values.get("schema") != VERSION:
        return f"its schema is {values.get('schema')!r}"
    for name, (kind, _) in SCHEMA.items():
        if name not in values:
            return f"it lacks {name!r}"
        if not isinstance(values[name], kind):
            return f"{name!r} is of the wrong type"
    extra = set(values) - {entry.name for entry in fields(Record)}
    if extra:
        return f"it has an unknown field {min(extra)!r}"
    if not isinstance(values["protocol"].get("sha256"), str):
        return "it lacks protocol.sha256"
    if not all(isinstance(key, str) for key in values["artifacts"].values()):
        return "'artifacts' holds something that is no key"
    if missing := set(CONVENTIONS) - set(values["scores"]):
        return f"it lacks scores.{min(missing)}"
    for convention, scores in values["scores"].items():
        for name in CONVENTION_FIELDS:
            value = scores.get(name, "") if isinstance(scores, Mapping) else ""
            if isinstance(value, bool) or not isinstance(value, int | float | None):
                return f"scores.{convention}.{name} is not a number"
    return None


def record_key(spec: RunSpec, artifacts: Mapping[str, str]) -> str:
    """SHA-256 over the resolved spec and the artifacts that the scores follow from.

    Where data and weights lie on this machine is left out: the artifacts' keys hold their hashes.
    """
    fields = {k: v for k, v in asdict(spec).items() if k not in ("lists", "root", "weights")}
    return digest({"schema": VERSION, "spec": fields, "artifacts": dict(artifacts)})
