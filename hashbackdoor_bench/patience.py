"""Waiting for an answer from elsewhere, but not for ever."""

from collections.abc import Callable
from multiprocessing.pool import ThreadPool
from queue import Empty, SimpleQueue
from typing import TypeVar

Answer = TypeVar("Answer")


def within(seconds: float, ask: Callable[[], Answer]) -> Answer | BaseException:
    """What a function returns, or the exception that it raises.

    The function runs in a thread of its own, which is left behind if it takes too long: time limits
    of HTTP clients don't hold for the look-up of a host's name, and hold for each of its addresses,
    and for each byte of a header, anew.

    Args:
        seconds: how long it may take.
        ask: the function.

    Raises:
        TimeoutError: it takes longer.
    """
    answers: SimpleQueue[Answer | BaseException] = SimpleQueue()
    pool = ThreadPool(1)  # its threads don't keep Python from exiting
    pool.apply_async(ask, callback=answers.put, error_callback=answers.put)
    pool.close()
    try:
        return answers.get(timeout=seconds)
    except Empty:
        raise TimeoutError(f"no answer within {seconds:g} s") from None
