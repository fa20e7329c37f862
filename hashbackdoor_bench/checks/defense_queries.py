"""What the hooks of a defense promise that look at queries: purify, suspect and audit."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from hashbackdoor_bench.checks.attack_trigger import CALLS
from hashbackdoor_bench.checks.defense_trial import DefenseTrial
from hashbackdoor_bench.checks.finding import returned, seeded

MANY = 16  # images of a batch that is larger than the trial's
NUMBERS = "draw from view.generator('…'), step.generator or the image's number alone."


def purifies(trial: DefenseTrial) -> Iterator[str]:
    """A purifier makes new images in [0,1], each from itself and its number alone."""
    if not trial.has("purify"):
        return
    (x, item), defense = trial.queries(), trial.defense()
    given, number = x.clone(), item.clone()
    with seeded(1):
        out = returned(defense.purify(given, number), Tensor, "purify")
    if (out.shape, out.dtype) != (x.shape, x.dtype):
        yield f"purify gives {form_of(out)}: it must be {form_of(x)}, as it was."
        return
    if not torch.equal(given, x):
        yield "purify changes x in place: work on x.clone()."
    if not torch.equal(number, item):
        yield "purify changes item in place: work on item.clone()."
    if out.data_ptr() == given.data_ptr():
        yield "purify returns x itself: return x.clone()."
    if not ((out >= 0) & (out <= 1)).all():  # not true of NaN either
        yield "purify leaves [0,1]: end it with .clamp(0, 1)."
    yield from _alone("purify", out, lambda rows: defense.purify(x[rows], item[rows]))
    if len(defense.purify(x[:0], item[:0])):
        yield "purify of no images gives some: return x.clone() for an empty batch."


def suspects(trial: DefenseTrial) -> Iterator[str]:
    """The suspicion of a query is finite, and depends on that query alone."""
    if not trial.has("suspect"):
        return
    (x, item), defense, view = trial.queries(), trial.defense(), trial.view()
    with torch.no_grad():
        with seeded(1):
            found = returned(defense.suspect(x.clone(), item, view), Tensor, "suspect")
        floats = found.is_floating_point()
        if found.shape != (len(x),) or not floats or not torch.isfinite(found).all():
            yield f"suspect gives {form_of(found)}: it must be ({len(x)},) of floats, all finite."
            return
        yield from _alone("suspect", found, lambda rows: defense.suspect(x[rows], item[rows], view))


def audits(trial: DefenseTrial) -> Iterator[str]:
    """An audit gives one finite number, the same for the same window in another order."""
    if not trial.has("audit"):
        return
    window, view = trial.window(), trial.view()
    with seeded(1):
        found = returned(trial.defense().audit(window, view), Tensor, "audit")
    if not torch.equal(window, trial.window()):
        yield "audit changes window in place: work on window.clone()."
        return
    if found.numel() != 1 or not torch.isfinite(found).all():
        yield f"audit gives {form_of(found)}: it must be one finite number."
        return
    with seeded(2):
        again = trial.defense().audit(window, view)
    if not torch.equal(again, found):
        yield f"two audits of the same window differ: {NUMBERS}"
    elif not torch.allclose(trial.defense().audit(window.flip(0), view), found, atol=1e-4):
        yield "audit depends on the order of the queries in a window: it must not."


def _alone(name: str, found: Tensor, call: Callable[[Tensor], Tensor]) -> Iterator[str]:
    """Problems of a result that must be the same for each item by itself and in another order."""
    rows = torch.arange(len(found))
    back, many = rows.flip(0), torch.arange(MANY) % len(rows)
    if not torch.allclose(call(back).flip(0), found, atol=1e-3):
        yield f"{name} depends on the order of the batch: use each image and its number alone."
    elif not torch.allclose(call(back[-1:]), found[:1], atol=1e-3) or not torch.allclose(
        call(many), found[many], atol=1e-3
    ):
        yield f"{name} depends on the other images of the batch: use each image alone."
    elif len({bytes(call(rows[:1]).numpy()) for _ in range(CALLS)}) > 1:
        yield f"{name} gives other values at every call: {NUMBERS}"


def form_of(tensor: Tensor) -> str:
    """Shape and type of a tensor, for messages."""
    return f"{tuple(tensor.shape)} {tensor.dtype}"
