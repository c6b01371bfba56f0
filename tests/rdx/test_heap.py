import platform

import psutil
import pytest

from rdx import heap


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="its allocator keeps freed memory")
def test_holes_below_a_block_in_use_go_back_to_the_system():
    size, number = 64 * 1024, 4_000  # small enough not to be mapped on their own
    resident = psutil.Process().memory_info
    blocks = [bytearray(b"x" * size) for _ in range(number)]
    last = blocks[-1]
    del blocks
    held = resident().rss
    heap.give_back()
    assert held - resident().rss > size * number / 2
    assert last[0] == ord("x")
