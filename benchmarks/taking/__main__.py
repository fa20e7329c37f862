"""``python -m benchmarks.taking``: train the victims of records again, and look into them."""

import json
import tempfile
from pathlib import Path
from typing import Any

import click
import torch

from hashbackdoor_bench import Patch
from hashbackdoor_bench.cli.options import default_cache
from hashbackdoor_bench.errors import UserError
from hashbackdoor_bench.files import whole
from hashbackdoor_bench.network.augmentation import centre_crop
from hashbackdoor_bench.records import Record
from hashbackdoor_bench.report import collect
from hashbackdoor_bench.stages import CONTROL, VICTIM, Cache, Run, threads_set
from hashbackdoor_bench.stages.building import poison_items

from .drawing import draw
from .predictors import table
from .probe import Probe, apart

QUERIES = 200  # that are looked at after every epoch


@click.command()
@click.argument("place", type=click.Path(path_type=Path, exists=True))
@click.option("--cache-dir", type=click.Path(path_type=Path, file_okay=False),
              default=default_cache, help="Folder of the stages' artifacts.")  # fmt: skip
@click.option("--output", type=click.Path(path_type=Path, file_okay=False),
              default=Path("results/taking"), show_default=True,
              help="Folder of the table, the figure and what was measured.")  # fmt: skip
def main(place: Path, cache_dir: Path, output: Path) -> None:
    """Train the victims of the records in PLACE again; what was done before is not done again."""
    try:
        _main(place, cache_dir, output)
    except UserError as error:
        raise click.ClickException(str(error)) from error


def _main(place: Path, cache_dir: Path, output: Path) -> None:
    records = list(collect([place]).frame["record"])
    output.mkdir(parents=True, exist_ok=True)
    path = output / f"{place.name}.json"
    runs: dict[str, Any] = json.loads(path.read_bytes()) if path.exists() else {}
    for number, record in enumerate(records):
        if record.key not in runs:
            spec = record.spec
            click.echo(f"{number + 1} of {len(records)}: {spec.attack}, seed {spec.seed}")
            runs[record.key] = looked_into(record, Cache(cache_dir))
            with whole(path) as fresh:
                fresh.write_text(json.dumps(runs, indent=1) + "\n", encoding="utf-8")
    known = [runs[record.key] for record in records]
    text = table(known)
    click.echo(text)
    path.with_suffix(".md").write_text(text + "\n", encoding="utf-8")
    draw(known).savefig(path.with_suffix(".png"), dpi=300)


def looked_into(record: Record, cache: Cache) -> dict[str, Any]:
    """The numbers of a run: of its patch, of the attacker's network, and of each epoch.

    Raises:
        UserError: the attack has no patch, the victim no loss of single items, or the run isn't one
            of this machine, so that its victim can't be trained again with the same weights.
    """
    spec = record.spec
    device = torch.device("cpu")
    with threads_set(record.numerics.threads if record.numerics else None):
        run = Run(spec, cache=cache, device=device)
        plan, size = run.plan, run.plan.splits.size
        backdoor = run.backdoor.to(device)
        if not isinstance(backdoor, Patch):
            raise UserError(f"{spec.attack} has no patch: give records of tri, ciba or badnets.")
        images, labels = centre_crop(plan.splits.train.images, size), plan.splits.train.labels
        poison = backdoor.index
        mine = labels.bool()[:, plan.target.bool()].any(1)
        mine[poison] = False
        queries = centre_crop(plan.splits.query.images[plan.truth.attacked][:QUERIES], size)
        items = poison_items(run)
        groups = {
            "perturbed": backdoor.carrier,
            "poison": images[poison] if items.overlay is None else items.overlay,
            "queries": queries,
            "triggered queries": run.trigger(queries),
        }
        probe = Probe(
            items=len(items.shown()),
            batch=plan.victim.recipe.batch_size,
            groups=groups,
            clean=images[mine],
            poison=poison,
            target=mine.nonzero().flatten(),
        )
        with tempfile.TemporaryDirectory() as work:
            tensors, _ = plan.victim.train(
                items,
                device,
                checkpoint=Path(work) / "checkpoint",
                progress=run.progress,
                stage=spec.attack,
                backward=probe,
            )
        stored = run.make(VICTIM).tensors
        if any(not torch.equal(stored[name].cpu(), tensors[name].cpu()) for name in stored):
            raise UserError(
                f"{spec.attack}, seed {spec.seed}: the victim of the cache has other weights; "
                "run the suite on this machine, with this version of torch, and give its folder."
            )
        probe.close(run.network(VICTIM))
        numbers = {"contrast of the patch": float(backdoor.patch.float().std() / 255)}
        shown = {name: groups[name] for name in ("perturbed", "triggered queries")}
        surrogate = run.make("surrogate")
        networks = {
            "surrogate": plan.surrogate.load(surrogate.tensors, surrogate.facts, device),
            "clean victim": run.network(CONTROL),
        }
        for name, model in networks.items():
            found = apart(model, images[mine], shown)
            numbers |= {f"{group}, {name}": value for group, value in found.items()}
    scores = record.scores.field
    return {
        "attack": spec.attack,
        "seed": spec.seed,
        "gain": scores.backdoor_gain,
        "t_map": scores.t_map,
        "numbers": numbers,
        "epochs": probe.epochs,
    }


if __name__ == "__main__":
    main()
