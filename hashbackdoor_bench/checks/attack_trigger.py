"""What a trigger promises, on queries (`Backdoor.forward`) and training images (`plant`)."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from hashbackdoor_bench import poisoning
from hashbackdoor_bench.api import to_bytes, to_unit
from hashbackdoor_bench.checks.attack_trial import Trial
from hashbackdoor_bench.checks.finding import advanced, global_states, returned, seeded

CALLS = 12  # of `steady`
MANY = 70  # images; 64 are planted at once, and 250 hashed
CLOSE = 1e-3  # a quarter of a grey level: convolutions round differently in other batches


@dataclass(frozen=True)
class _Call:
    """A call of the trigger: on rows of some images, each with its slot.

    Attributes:
        name: for messages.
        trigger: x (N,3,S,S), slot (N,) -> (N,3,S,S).
        x: (N,3,S,S) in [0,1].
        slot: (N,) long.
    """

    name: str
    trigger: Callable[[Tensor, Tensor], Tensor]
    x: Tensor
    slot: Tensor

    def of(self, rows: Tensor) -> Tensor:
        """The images of these rows (n,) with the trigger."""
        return returned(self.trigger(self.x[rows], self.slot[rows]), Tensor, self.name)


def _calls(trial: Trial) -> list[_Call]:
    """The trigger of queries on all images of the trial, and that of training on all slots."""
    slot = torch.arange(len(trial.backdoor.index))
    planted = _Call("plant(x, slot)", trial.backdoor.plant, trial.x[slot % len(trial.x)], slot)
    rows = torch.arange(len(trial.x))
    return [_Call("forward(x)", lambda x, _: trial.backdoor(x), trial.x, rows), planted]


def images(trial: Trial) -> Iterator[str]:
    """A trigger makes new float32 images in [0,1], of the same shape."""
    for call in _calls(trial):
        for count in sorted({0, min(1, len(call.x)), len(call.x)}):
            yield from _image(call, torch.arange(count))


def _image(call: _Call, rows: Tensor) -> Iterator[str]:
    """The problems of one call."""
    x, slot = call.x[rows], call.slot[rows]
    made = f"{call.name} of {len(x)} images"
    given, given_slot = x.clone(), slot.clone()
    out = returned(call.trigger(given, given_slot), Tensor, call.name)
    if (out.shape, out.dtype) != (x.shape, x.dtype):
        yield f"{made} is {tuple(out.shape)} {out.dtype}, not {tuple(x.shape)} {x.dtype}."
        return
    if not torch.equal(given, x):
        yield f"{made} changes x in place: work on x.clone()."
    elif len(x) and out.data_ptr() == given.data_ptr():
        yield f"{made} returns x itself: return x.clone()."
    if not torch.equal(given_slot, slot):
        yield f"{made} changes slot in place: work on slot.clone()."
    if not torch.isfinite(out).all():
        yield f"{made} holds NaN or infinity."
    elif not ((out >= 0) & (out <= 1)).all():
        low, high = float(out.min()), float(out.max())
        yield f"{made} ranges from {low:.3g} to {high:.3g}: end it with .clamp(0, 1)."


def alone(trial: Trial) -> Iterator[str]:
    """An image with the trigger depends on that image and its slot, not on its batch."""
    for call in _calls(trial):
        count = len(call.x)
        if not count:
            continue
        rows = torch.arange(count)
        every = call.of(rows)
        batches = {
            "in reverse order": rows.flip(0),
            **{f"of image {number} alone": rows[number : number + 1] for number in rows.tolist()},
            f"of {MANY} images": torch.arange(MANY) % count,
        }
        for batch, some in batches.items():
            if not torch.allclose(call.of(some), every[some], atol=CLOSE):
                yield (
                    f"{call.name} depends on the batch: {batch} it gives other images than of "
                    f"{count} in order. Use each image, and its slot in plant, alone."
                )
                break


def steady(trial: Trial) -> Iterator[str]:
    """A trigger gives the same images at every call, and changes no state."""
    for call in _calls(trial):
        rows = torch.arange(min(3, len(call.x)))
        before = {name: value.clone() for name, value in trial.backdoor.state_dict().items()}
        made, drawn = [], list[str]()
        for seed in range(CALLS):
            with seeded(seed):
                states = global_states()
                made.append(call.of(rows))
                drawn += advanced(states)
        if any(not torch.equal(out, made[0]) for out in made):
            yield (
                f"{call.name} gives other images at every call: draw in craft and keep what is "
                "drawn in a buffer."
            )
        for library in dict.fromkeys(drawn):
            yield (
                f"{call.name} draws from {library}'s global random numbers, or seeds them: draw in "
                "craft, from view.generator('…')."
            )
        for name, value in trial.backdoor.state_dict().items():
            if not torch.equal(value, before[name]):
                yield f"{call.name} changes the backdoor's {name!r}: compute it in craft."


def layouts(trial: Trial) -> Iterator[str]:
    """A trigger works on images as the framework holds them while it hashes and trains."""
    query, planted = _calls(trial)
    with torch.inference_mode():
        try:
            out = query.trigger(query.x.clone(), query.slot)
        except RuntimeError as error:
            yield (
                f"forward(x) fails in torch.inference_mode, where queries are hashed ({error}): "
                "compute gradients in craft."
            )
            return
    if not torch.allclose(out, query.of(query.slot), atol=CLOSE):
        yield (
            "forward(x) gives other images in torch.inference_mode, where queries are hashed: "
            "compute gradients in craft."
        )
    x = planted.x.contiguous(memory_format=torch.channels_last)
    try:
        out = planted.trigger(x, planted.slot)
    except RuntimeError as error:
        yield (
            "plant(x, slot) fails on images in channels_last, as training holds them "
            f"({str(error).splitlines()[0].rstrip('.')}): write reshape or flatten, not view."
        )
        return
    if not torch.allclose(out, planted.of(planted.slot), atol=CLOSE):
        yield (
            "plant(x, slot) gives other images in channels_last, as training holds them: let it "
            "not depend on strides."
        )


def survives_storage(trial: Trial) -> Iterator[str]:
    """The trigger is of its kind, and survives storage in 8 bits."""
    seen, backdoor, kind = trial.view(), trial.backdoor, trial.attack().threat.trigger
    given = seen.images if len(seen.images) else to_bytes(trial.x)
    x = to_unit(given)
    raw, stored = backdoor(x), poisoning.triggered(backdoor, x)
    if not torch.equal(to_bytes(stored), to_bytes(raw)):
        yield "the trigger changes when it is stored a second time: keep it at 8-bit levels."
    if kind == "none":
        return
    if torch.equal(raw, x):
        yield "threat.trigger is not 'none', but forward(x) changes no pixel: put the trigger on x."
    elif torch.equal(to_bytes(raw), given):
        most = 255 * float((raw - x).abs().max())
        yield f"a largest change of {most:.2g} grey levels is lost in rounding: make it 1."
    elif kind == "patch" and (to_bytes(raw) != given).any(1).any(0).all():
        yield (
            "threat.trigger is 'patch', but forward(x) changes every pixel: declare another kind, "
            "such as 'additive'."
        )
