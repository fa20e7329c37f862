"""Random numbers: every draw comes from a seed and a purpose."""

import hashlib

import torch


def derive_seed(seed: int | str, *purpose: object) -> int:
    """A seed for one purpose: the first 63 bits of SHA-256 over ``seed`` and ``purpose``."""
    text = "/".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int | str, *purpose: object) -> torch.Generator:
    """A CPU generator for one purpose, so that no draw depends on how many came before it."""
    return torch.Generator().manual_seed(derive_seed(seed, *purpose))
