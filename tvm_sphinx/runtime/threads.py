"""Call a function on the usable cores at once, under TVM's pass options of the caller. [TVM]"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from .._tvm import tvm
from ..platform.machine import usable_cores

Item = TypeVar("Item")
Result = TypeVar("Result")

# Beyond these the interpreter, which is needed between two calls into TVM, is what they wait for.
_MOST_THREADS = 16


def map_in_threads(function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """Return what a function, whose time goes into calls into TVM, gives for each of some items.

    One after the other if instruments watch the passes: these are not made for threads. The first item
    that fails decides what is raised; those that have not begun by then are left out.
    """
    given = list(items)
    context = tvm.transform.PassContext.current()
    count = min(len(given), len(usable_cores()), _MOST_THREADS)
    if count < 2 or context.instruments:
        return [function(item) for item in given]

    def call(item: Item) -> Result:
        with context:  # each thread has a stack of contexts of its own
            return function(item)

    pool = ThreadPoolExecutor(count)
    try:
        return list(pool.map(call, given))
    finally:
        pool.shutdown(cancel_futures=True)
