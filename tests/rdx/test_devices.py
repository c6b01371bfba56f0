"""Devices by the names that people know."""

import pytest
import torch

from rdx.devices import device, gpu_name, short
from rdx.facts import Device


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("AMD EPYC 9645 96-Core Processor", "AMD EPYC 9645"),
        ("Intel(R) Xeon(R) Platinum 8480+", "Intel Xeon Platinum 8480+"),
        ("Intel(R) Core(TM) i7-8700 CPU @ 3.20GHz", "Intel Core i7-8700"),
        ("11th Gen Intel(R) Core(TM) i5-1135G7 @ 2.40GHz", "11th Gen Intel Core i5-1135G7"),
        ("AMD Ryzen 7 5800X 8-Core Processor", "AMD Ryzen 7 5800X"),
        ("Apple M2", "Apple M2"),
    ],
)
def test_what_nobody_says_of_a_processor(name, known):
    assert short(name) == known == short(known)


def test_the_cpu_has_the_cores_that_all_processes_use():
    cpu = device("cpu", 3)
    assert not cpu.gpu and cpu.count == 3 * torch.get_num_threads()
    assert str(Device("A CPU", False, 2)) == "A CPU, 2 cores"


def test_a_gpu_is_taken_where_there_is_one():
    known = gpu_name()
    assert device("auto") == (device("cpu") if known is None else Device(known, True))
    assert device("cuda", 2) == Device(known or "cuda", True, 2)
    assert [str(Device("A GPU", True, n)) for n in (1, 2)] == ["A GPU", "2 x A GPU"]
