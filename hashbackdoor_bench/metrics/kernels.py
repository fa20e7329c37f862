"""The compiled loops behind `metrics`: counts per Hamming distance, and sums over them.

Codes and label rows come packed in 64-bit words: of queries (Q, words), of the database (words, D).
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from math import log1p
from typing import Any, TypeVar, cast

import numpy as np
import torch
from numba import njit

from hashbackdoor_bench.metrics.code_words import Floats, Ints, Sides, Words

Kernel = TypeVar("Kernel", bound=Callable[..., Any])

BLOCK = 1024  # items per block: their distances take 4 KB and stay in the first-level cache


def in_threads(kernel: Callable[..., None], *arrays: Any) -> None:
    """Runs ``kernel(first, last, *arrays)`` over ranges of queries, the rows of the last array.

    These are Python threads, since the kernels release the GIL, and not numba's threads: those
    break when two Python threads use them (workqueue) or the process forks afterwards (GNU OpenMP).
    """
    queries, threads = len(arrays[-1]), torch.get_num_threads()
    step = max(1, queries // (8 * threads))
    with ThreadPoolExecutor(threads) as pool:
        starts = range(0, queries, step)
        list(pool.map(lambda first: kernel(first, min(first + step, queries), *arrays), starts))


def compiled(kernel: Kernel) -> Kernel:
    """Decorator: compile a function at its first call; cached on disk if a folder is writable."""
    try:
        fast = njit(nogil=True, cache=True)(kernel)
    except RuntimeError:  # no folder for the cache can be written: compile anew in each process
        fast = njit(nogil=True)(kernel)
    return cast(Kernel, fast)


@compiled
def distances(code: Words, words: Words, begin: int, end: int, out: Ints) -> None:
    """Hamming distances from one code (W,) to the items begin..end of words (W, D)."""
    for w in range(words.shape[0]):
        row = words[w, begin:end]  # a slice, since LLVM vectorises loops from index 0
        for j in range(len(row)):
            # The population count in the form that LLVM knows; numba has no name for it.
            x = code[w] ^ row[j]
            x -= (x >> np.uint64(1)) & np.uint64(0x5555555555555555)
            pair = (x >> np.uint64(2)) & np.uint64(0x3333333333333333)
            x = (x & np.uint64(0x3333333333333333)) + pair
            x = (x + (x >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
            x = (x * np.uint64(0x0101010101010101)) >> np.uint64(56)
            out[j] = x if w == 0 else out[j] + x


@compiled
def shared_tags(label: Words, tags: Words, begin: int, end: int, out: Words) -> None:
    """Nonzero where one label (T,) shares a tag with an item begin..end of tags (T, D)."""
    for w in range(tags.shape[0]):
        row = tags[w, begin:end]
        for j in range(len(row)):
            x = label[w] & row[j]
            out[j] = x if w == 0 else out[j] | x


# Where possible, the outer loop of a kernel goes over blocks of items, so that each block is read
# from memory once for all queries of a thread.


@compiled
def count_by_tag(first: int, last: int, sides: Sides, items: Ints, relevant: Ints) -> None:
    """Adds the counts per distance of all items, and of relevant ones, to the last two arguments.

    Both ``items`` and ``relevant`` are (Q, K+1); an item is relevant if it shares a tag.
    """
    codes, words, labels, tags = sides
    distance, shared = np.zeros(BLOCK, np.uint32), np.zeros(BLOCK, np.uint64)
    both = np.zeros((last - first, items.shape[1]), np.int64)  # items + 2^32 relevant
    for begin in range(0, words.shape[1], BLOCK):
        end = min(begin + BLOCK, words.shape[1])
        for q in range(first, last):
            distances(codes[q], words, begin, end, distance)
            shared_tags(labels[q], tags, begin, end, shared)
            for j in range(end - begin):
                both[q - first, distance[j]] += 1 + (np.int64(shared[j] != 0) << 32)
    for q in range(first, last):
        for d in range(items.shape[1]):
            items[q, d] += both[q - first, d] & 0xFFFFFFFF
            relevant[q, d] += both[q - first, d] >> 32


@compiled
def count_by_class(
    first: int,
    last: int,
    codes: Words,
    words: Words,
    start: Ints,
    stop: Ints,
    items: Ints,
    relevant: Ints,
) -> None:
    """Does what `count_by_tag` does where the relevant items are those at start[q]..stop[q]."""
    distance = np.zeros(BLOCK, np.uint32)
    for begin in range(0, words.shape[1], BLOCK):
        end = min(begin + BLOCK, words.shape[1])
        for q in range(first, last):
            distances(codes[q], words, begin, end, distance)
            for d in distance[: end - begin]:
                items[q, d] += 1
            for j in range(max(start[q], begin), min(stop[q], end)):
                relevant[q, distance[j - begin]] += 1


@compiled
def sum_in_order(
    first: int, last: int, sides: Sides, items: Ints, top_k: int, sums: Floats
) -> None:
    """`ranking._sums` with ties in the order of the items in ``sides``."""
    codes, words, labels, tags = sides
    distance, shared = np.zeros(BLOCK, np.uint32), np.zeros(BLOCK, np.uint64)
    place = np.empty(items.shape[1], np.int64)  # of the next item at each distance
    for q in range(first, last):
        hit = np.zeros(top_k, np.bool_)
        seen, reach = 0, 0
        for d in range(items.shape[1]):
            place[d] = seen
            reach += seen < top_k  # only items at distances below `reach` can be in the top R
            seen += items[q, d]
        for begin in range(0, words.shape[1], BLOCK):
            end = min(begin + BLOCK, words.shape[1])
            distances(codes[q], words, begin, end, distance)
            shared_tags(labels[q], tags, begin, end, shared)
            for j in range(end - begin):
                d = distance[j]
                if d < reach:
                    if place[d] < top_k:
                        hit[place[d]] = shared[j] != 0
                    place[d] += 1
        hits = 0
        for i in range(top_k):
            if hit[i]:
                hits += 1
                sums[q, 1] += hits / (i + 1)
        sums[q, 0] = sums[q, 1] / max(hits, 1)
        sums[q, 2] = hits > 0


@compiled
def harmonic(a: int, n: int) -> float:
    """1/(a+1) + ... + 1/(a+n), to machine precision relative to this sum.

    A difference of two harmonic numbers has only the absolute precision of those, which is too
    little for `sum_from_counts`, since it multiplies the error by a.
    """
    total = 0.0
    while n > 0 and a < 64:
        a, n = a + 1, n - 1
        total += 1 / a
    if n > 0:  # H(n) = gamma + ln s + 1/(24 s^2) - 7/(960 s^4) + 31/(8064 s^6), s = n + 1/2
        low, high = 1 / (a + 0.5) ** 2, 1 / (a + n + 0.5) ** 2
        total += log1p(n / (a + 0.5)) + (high - low) / 24 - 7 * (high**2 - low**2) / 960
        total += 31 * (high**3 - low**3) / 8064
    return total


@compiled
def sum_from_counts(
    first: int, last: int, items: Ints, relevant: Ints, top_k: int, end: int, sums: Floats
) -> None:
    """`ranking._sums` from counts; in ties, hits are first (end 1), last (-1) or mixed (0)."""
    for q in range(first, last):
        seen, hits = 0, 0  # N_0, H_0
        gain, retrieved, hit = 0.0, 0.0, 0.0
        cut = False
        for d in range(items.shape[1]):
            t, k = int(items[q, d]), int(relevant[q, d])
            m = min(t, top_k - seen)
            if m == 0:
                continue
            base, seen = seen, seen + m
            if end != 0:  # relevant items are together: treat them as a bucket of their own
                if end < 0:
                    base, m = base + t - k, m - (t - k)
                t = k = m = max(0, min(k, m))
            h = harmonic(base, m)
            ahead, rise = (hits + 1) * h, m - (base + 1) * h
            cut = m < t
            if cut:
                # Weights relative to that of the mode, from the mode outwards, don't overflow.
                lowest, highest = max(0, m + k - t), min(k, m)
                mode = min(max((m + 1) * (k + 1) // (t + 2), lowest), highest)
                total = 0.0
                for step in (1, -1):
                    x, weight = mode, 1.0
                    while lowest <= x <= highest and weight > 1e-30:
                        if step > 0 or x < mode:
                            total += weight
                            if hits + x > 0:
                                inner = x / m * (ahead + (x - 1) / max(m - 1, 1) * rise)
                                retrieved += weight * (gain + inner) / (hits + x)
                                hit += weight
                        rest = t - k - m + x  # items neither relevant nor inside
                        if step > 0:
                            weight *= (k - x) * (m - x) / ((x + 1) * (rest + 1))
                        else:
                            weight *= x * rest / ((k - x + 1) * (m - x + 1))
                        x += step
                retrieved, hit = retrieved / total, hit / total
            if k > 0:
                gain += k / t * (ahead + (k - 1) / max(t - 1, 1) * rise)
            hits += k
        if not cut:
            retrieved = gain / max(hits, 1)
            hit = 1.0 if hits > 0 else 0.0
        sums[q, 0], sums[q, 1], sums[q, 2] = retrieved, gain, hit
