"""Memory: threads share a few arenas, where there is a glibc that makes them."""

import os
import subprocess
import sys

import pytest

COUNT = """
import ctypes, re, sys, tempfile, threading
from broker.kit import memory
if sys.argv[1] == "few":
    memory.few_arenas()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
held, go = threading.Barrier(9), threading.Barrier(9)
def hold():
    libc.malloc(4096)
    held.wait()
    go.wait()
threads = [threading.Thread(target=hold) for _ in range(8)]
for thread in threads:
    thread.start()
held.wait()
with tempfile.NamedTemporaryFile() as file:
    libc.fopen.restype = ctypes.c_void_p
    stream = ctypes.c_void_p(libc.fopen(file.name.encode(), b"w"))
    libc.malloc_info(0, stream)
    libc.fclose(stream)
    print(len(re.findall(b"<heap nr=", file.read())))
go.wait()
"""


def arenas(how: str) -> int:
    environment = {name: value for name, value in os.environ.items() if name != "MALLOC_ARENA_MAX"}
    done = subprocess.run(
        [sys.executable, "-c", COUNT, how], capture_output=True, text=True, check=True, timeout=60, env=environment
    )
    return int(done.stdout)


@pytest.mark.skipif("CS_GNU_LIBC_VERSION" not in getattr(os, "confstr_names", {}), reason="no glibc here")
def test_many_threads_share_two_arenas() -> None:
    assert arenas("few") <= 2 < arenas("many")


def test_what_was_there_before_is_not_looked_at_for_garbage() -> None:
    script = (
        "import gc, json, email\nfrom broker.kit import memory\nbefore = len(gc.get_objects())\n"
        "memory.little_garbage()\nprint(before, gc.get_freeze_count(), len(gc.get_objects()))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    before, frozen, left = map(int, done.stdout.split())
    assert frozen > before / 2 > left
