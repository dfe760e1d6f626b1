"""How this process asks the system for memory, and how often it looks for garbage in it."""

from __future__ import annotations

import ctypes
import gc
import os

_M_ARENA_MAX = -8
"""glibc's ``malloc.h``, mallopt(3)."""
_ARENAS = 2


def few_arenas() -> None:
    """Let all threads share two of glibc's arenas; call it before there are threads. Elsewhere nothing happens.

    By itself glibc makes up to eight arenas for every core, and keeps in each what was free once. Python's threads
    take turns anyway, so they don't wait for each other here. Whoever sets MALLOC_ARENA_MAX is obeyed.
    """
    if "MALLOC_ARENA_MAX" in os.environ:
        return
    try:
        known = os.confstr("CS_GNU_LIBC_VERSION")
    except (AttributeError, OSError, ValueError):  # no such system, or a C library that doesn't know the question
        return
    if known:
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, _ARENAS)


YOUNG = 20_000
"""Objects made before Python looks among the youngest for garbage; by itself after 700."""


def little_garbage() -> None:
    """Look for cyclic garbage less often, and not among what was there when this is called: the modules.

    A full look takes longer the more there is, and meanwhile nobody is answered; what a broker makes for a request has
    no cycles and goes by itself.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, 20, 20)
