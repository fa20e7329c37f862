"""The poison of a run in one zip, so that a maintainer trains the victim and not the submitter.

    record.json              what the submitter claims
    carriers/SLOT.png        the poisoned images before the trigger, 8 bits
    planted/SLOT.png         the poisoned images with the trigger, as under delivery ``files``
    poison.csv               slot, index and item in the training list, kind, labels
    trigger.safetensors      all other tensors of the backdoor
    attack.py                the attack's file, unless it is part of this project

Nothing in the zip is executed or unpickled. A maintainer can read ``attack.py`` and then pass it as
``--plugin``.
"""

import csv
import inspect
import io
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from hashbackdoor_bench import poisoning
from hashbackdoor_bench.api import Backdoor
from hashbackdoor_bench.errors import UserError
from hashbackdoor_bench.files import room, whole
from hashbackdoor_bench.records import Record, load_record
from hashbackdoor_bench.registry import ATTACKS
from hashbackdoor_bench.stages import Cache, Content, Damaged, Run, load_data, made_by

CPU = torch.device("cpu")
STATE = ("index", "carrier", "label", "kind")  # tensors that are not in trigger.safetensors
# Exceptions of reading a damaged zip.
BROKEN = (zipfile.BadZipFile, OSError, KeyError, ValueError, RuntimeError, SafetensorError)
COLUMNS = ("slot", "index", "item", "kind", "label")


@dataclass(frozen=True)
class Submission:
    """The contents of a zip.

    Attributes:
        record: the submitted record.
        tensors: the backdoor's state.
        planted: (P,3,S,S) uint8, the poisoned images with the trigger.
    """

    record: Record
    tensors: dict[str, Tensor]
    planted: Tensor


def pack(record: Record, cache: Cache, out: Path, **where: Any) -> int:
    """Write a record and its poison into a zip; returns the number of poisoned images.

    Args:
        record: the record.
        cache: cache with the record's backdoor.
        out: path of the zip; the file is written completely or not at all, with the same bytes
            every time.
        where: ``lists`` and ``root``, if they differ from the record's spec.

    Raises:
        UserError: the backdoor isn't in the cache, or the file can't be written.
    """
    tensors = _crafted(record, cache)
    spec = replace(record.spec, **{k: v for k, v in where.items() if v is not None})
    splits = load_data(spec, cache)
    backdoor = restored(record, tensors)
    planted = poisoning.planted(backdoor, CPU)
    parts: dict[str, bytes] = {"record.json": record.to_json().encode()}
    table = io.StringIO()
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(COLUMNS)
    for slot, index in enumerate(tensors["index"].tolist()):
        parts[f"carriers/{slot:06}.png"] = _png(tensors["carrier"][slot])
        parts[f"planted/{slot:06}.png"] = _png(planted[slot])
        label = " ".join(str(int(value)) for value in tensors["label"][slot])
        kind = int(tensors["kind"][slot])
        rows.writerow((slot, index, splits.train.ids[index], kind, label))
    parts["poison.csv"] = table.getvalue().encode()
    own = {k: v.contiguous() for k, v in tensors.items() if k not in STATE}
    parts["trigger.safetensors"] = save(own)
    method = ATTACKS[record.spec.attack]
    if method.identity["sha256"]:
        parts["attack.py"] = Path(inspect.getfile(method.cls)).read_bytes()
    with room(out.parent):
        out.parent.mkdir(parents=True, exist_ok=True)
        with whole(out) as fresh, zipfile.ZipFile(fresh, "w", zipfile.ZIP_DEFLATED) as file:
            for name, content in parts.items():
                file.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return len(planted)


def unpack(path: Path) -> Submission:
    """Read a zip of `pack`; nothing of it is written to disk.

    Raises:
        UserError: the file is not such a zip, or a part of it is missing or damaged.
    """
    if not path.is_file():
        raise UserError(f"{path}: there is no such file; give a zip of bench submit.")
    try:
        with zipfile.ZipFile(path) as file:
            with file.open("record.json") as part:
                record = load_record(part, f"{path}: its record.json")
            table = csv.DictReader(io.StringIO(file.read("poison.csv").decode()))
            rows = list(table)
            if tuple(table.fieldnames or ()) != COLUMNS or any(None in r.values() for r in rows):
                raise ValueError(f"poison.csv must have the columns {', '.join(COLUMNS)}")
            own = load(file.read("trigger.safetensors"))
            images = {
                name: _stack([file.read(f"{name}/{slot:06}.png") for slot in range(len(rows))])
                for name in ("carriers", "planted")
            }
        labels = [[int(value) for value in row["label"].split()] for row in rows]
        state = {
            "index": torch.tensor([int(row["index"]) for row in rows], dtype=torch.long),
            "carrier": images["carriers"],
            "label": torch.tensor(labels, dtype=torch.uint8).view(-1, record.protocol.classes),
            "kind": torch.tensor([int(row["kind"]) for row in rows], dtype=torch.uint8),
        }
    except BROKEN as error:
        raise UserError(
            f"{path} is not a complete submission ({error}): make it again with bench submit."
        ) from error
    return Submission(record, {**state, **own}, images["planted"])


def restored(record: Record, tensors: dict[str, Tensor]) -> Backdoor:
    """The backdoor of a record from its state, frozen.

    Raises:
        UserError: the attack is unknown here, or the tensors are not its state.
    """
    method = ATTACKS[record.spec.attack]
    settings = method.resolve(dict(record.spec.attack_settings))
    attack = method.cls(**settings)
    try:
        backdoor: Backdoor = attack.restore(tensors)
    except (TypeError, KeyError, RuntimeError) as error:
        raise UserError(
            f"these tensors are not the state of attack {method.name!r} ({error}): give the "
            "attack's file of this run with --plugin."
        ) from error
    return backdoor.eval().requires_grad_(False)


def hand_in(submission: Submission, run: Run) -> None:
    """Put a submission's backdoor into the cache of a run, after inspecting it.

    Args:
        submission: see `unpack`.
        run: a run of the submission's record, with a cache of its own.

    Raises:
        UserError: the poison breaks a rule, or isn't what the trigger plants.
    """
    backdoor, plan = restored(submission.record, submission.tensors), run.plan
    labels = plan.splits.train.labels
    try:
        poisoning.inspect(backdoor, labels, plan.target, plan.index, plan.attack.threat)
    except (ValueError, IndexError, RuntimeError) as error:
        raise UserError(f"the submitted poison is refused: {error}.") from error
    if not torch.equal(poisoning.planted(backdoor, CPU), submission.planted):
        raise UserError(
            "the submitted poison is refused: the planted images are not what the trigger makes "
            "of the carriers."
        )

    def content(work: Path) -> Content:
        history = submission.record.training.backdoor
        facts = {"shared": {}, "history": history, "submitted": True}
        return submission.tensors, {**facts, "made by": made_by(run.device)}

    stage = plan.stages["backdoor"]
    run.cache.make(stage.kind, stage.inputs, content)


def _crafted(record: Record, cache: Cache) -> dict[str, Tensor]:
    key = record.artifacts.get("backdoor", "")
    try:
        found = cache.find("backdoor", key) if key else None
    except Damaged as error:
        raise UserError(f"the backdoor {key[:12]} is damaged ({error}): run it again.") from error
    if found is None:
        raise UserError(
            f"the backdoor {key[:12]} is not in {cache.root}: run the record's command again, or "
            "give the --cache-dir that has it."
        )
    return found.tensors


def _png(image: Tensor) -> bytes:
    """(3,S,S) uint8 -> a file."""
    out = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(out, "png")
    return out.getvalue()


def _stack(files: list[bytes]) -> Tensor:
    """Files -> (n,3,S,S) uint8."""
    arrays = [np.asarray(Image.open(io.BytesIO(one), formats=["png"])) for one in files]
    if not arrays:
        return torch.empty(0, 3, 0, 0, dtype=torch.uint8)
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).contiguous()
