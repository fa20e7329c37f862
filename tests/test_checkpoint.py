"""A checkpoint gives back the bits that were saved, or nothing."""

import pickle
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer

from hashbackdoor_bench.checkpoint import Checkpoint


def trained(seed: int, width: int = 8, kind: type[Optimizer] = Adam) -> tuple[nn.Module, Optimizer]:
    """A small network and its optimiser after two steps."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width))
    model.to(memory_format=torch.channels_last)
    settings: dict[str, Any] = {"momentum": 0.9} if kind is SGD else {}
    optimizer = kind(model.parameters(), lr=0.1, **settings)  # type: ignore[call-arg]
    for _ in range(2):
        optimizer.zero_grad()
        model(torch.rand(2, 3, 8, 8)).square().sum().backward()
        optimizer.step()
    return model, optimizer


def tensors(model: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    states = optimizer.state_dict()["state"]
    moments = {f"{n}.{k}": v for n, values in states.items() for k, v in values.items()}
    return {k: v.clone() for k, v in (model.state_dict() | moments).items()}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "c"
    model, optimizer = trained(0)
    Checkpoint(path, model=model, optimizer=optimizer).save(epoch=3, history=[0.1, 1e-30])
    return path


@pytest.mark.parametrize("kind", [Adam, SGD])
def test_what_was_saved_comes_back_bit_for_bit_and_with_its_strides(tmp_path: Path, kind):
    model, optimizer = trained(0, kind=kind)
    other, its = trained(1, kind=kind)
    Checkpoint(tmp_path / "c", model=model, optimizer=optimizer).save(epoch=3, history=[0.1])
    facts = Checkpoint(tmp_path / "c", model=other, optimizer=its).load()
    assert facts == {"epoch": 3, "history": [0.1]}
    expected, found = tensors(model, optimizer), tensors(other, its)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name
        assert found[name].stride() == tensor.stride(), name
    assert list(tmp_path.iterdir()) == [tmp_path / "c"]


def test_an_optimiser_that_made_no_step_is_saved_and_loaded(tmp_path: Path):
    model, _ = trained(0)
    fresh = SGD(model.parameters(), lr=0.1)
    Checkpoint(tmp_path / "c", optimizer=fresh).save(epoch=0)
    assert Checkpoint(tmp_path / "c", optimizer=fresh).load() == {"epoch": 0}


def unused(path: Path, **parts: nn.Module | Optimizer) -> bool:
    """Whether nothing is loaded from a file: no facts, and no part is changed."""
    before = {name: pickle.dumps(part.state_dict()) for name, part in parts.items()}
    return Checkpoint(path, **parts).load() is None and all(
        pickle.dumps(part.state_dict()) == before[name] for name, part in parts.items()
    )


def test_a_file_that_is_cut_off_or_damaged_anywhere_is_not_used(saved: Path):
    whole, (model, optimizer) = saved.read_bytes(), trained(1)
    for end in (0, 1, 31, 32, 33, len(whole) // 2, len(whole) - 1):
        saved.write_bytes(whole[:end])
        assert unused(saved, model=model, optimizer=optimizer), end
    for place in range(0, len(whole), len(whole) // 200):
        saved.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        assert unused(saved, model=model, optimizer=optimizer), place
    saved.write_bytes(whole)
    assert not unused(saved, model=model, optimizer=optimizer)


def test_parts_of_other_names_or_shapes_are_refused_before_any_is_loaded(saved: Path):
    model, adam = trained(1)
    wide, of_wide = trained(1, width=9)
    assert unused(saved, model=wide, optimizer=of_wide)
    assert unused(saved, model=model, optimizer=of_wide)
    assert unused(saved, model=model, optimizer=SGD(model.parameters(), lr=0.1))
    assert unused(saved, model=model, optimizer=Adam(list(model.parameters())[:2]))
    assert unused(saved, model=nn.Sequential(*model, nn.Linear(1, 1)), optimizer=adam)
    assert unused(saved, model=model)
    assert unused(saved, model=model, other=adam)
    assert unused(saved.with_name("none"), model=model)


class Boom:
    def __reduce__(self) -> Any:
        return (pytest.fail, ("code of the file was run",))


def test_a_file_with_code_in_it_runs_nothing(saved: Path):
    torch.save({"states": Boom(), "facts": {}}, saved)
    content = saved.read_bytes()
    saved.write_bytes(sha256(content).digest() + content)
    model, optimizer = trained(1)
    assert unused(saved, model=model, optimizer=optimizer)


def test_without_a_path_nothing_is_kept(tmp_path: Path):
    model, _ = trained(0)
    Checkpoint(None, model=model).save(epoch=1)
    assert Checkpoint(None, model=model).load() is None
