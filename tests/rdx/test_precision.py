"""The precision that "auto" becomes: by what the hardware says, and part of the identity."""

import pytest

from rdx import config, precision, stages
from rdx.config.machine import resolve_precision
from rdx.samplers import ColBERT
from rdx.teachers import Local, QueryLikelihood
from rdx.trainer import Trainer
from tests.rdx.configured import check_refused

VARIABLES = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
OLD = "processor : 0\nflags : fpu sse2 avx2 avx512f\n\nprocessor : 1\nflags : fpu avx512_bf16\n"
NEW = "processor : 0\nflags : fpu avx2 avx512f avx512_bf16\n"
AMX = "flags\t\t: fpu avx512f amx_bf16 amx_tile\n"
ARM = "processor : 0\nFeatures : fp asimd sve bf16 i8mm\n"


@pytest.fixture
def cpu(monkeypatch, tmp_path):
    """A machine without a GPU whose CPU says what a test wants."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(precision, "DRIVERS", ())
    precision._gpu_has_bf16.cache_clear()

    def says(text: str) -> None:
        (tmp_path / "cpuinfo").write_text(text)
        monkeypatch.setattr(precision, "CPUINFO", tmp_path / "cpuinfo")
        precision._cpu_flags.cache_clear()

    yield says
    precision._cpu_flags.cache_clear()
    precision._gpu_has_bf16.cache_clear()


@pytest.mark.parametrize(
    ("text", "expected"),
    [(OLD, "fp32"), (NEW, "bf16"), (AMX, "bf16"), (ARM, "bf16"), ("", "fp32")],
)
def test_auto_is_what_the_first_processor_has_units_for(cpu, text, expected):
    cpu(text)
    assert precision.chosen("auto") == precision.chosen("auto", "cpu") == expected
    assert precision.chosen("auto", "cuda") == "fp32"  # there is none
    for explicit in ("bf16", "fp32", "fp16"):
        assert precision.chosen(explicit) == explicit


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("ATEN_CPU_CAPABILITY", "avx2", "fp32"),
        ("ATEN_CPU_CAPABILITY", "default", "fp32"),
        ("ATEN_CPU_CAPABILITY", "avx512", "bf16"),
        ("ONEDNN_MAX_CPU_ISA", "AVX2", "fp32"),
        ("ONEDNN_MAX_CPU_ISA", "avx512_core_vnni", "fp32"),
        ("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16", "bf16"),
        ("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_AMX", "bf16"),
        ("ONEDNN_MAX_CPU_ISA", "DEFAULT", "bf16"),
        ("DNNL_MAX_CPU_ISA", "SSE41", "fp32"),
    ],
)
def test_variables_that_hold_a_cpu_to_older_instructions(
    cpu, monkeypatch, variable, value, expected
):
    cpu(NEW)
    monkeypatch.setenv(variable, value)
    assert precision.chosen("auto") == expected


@pytest.mark.parametrize(
    ("capabilities", "expected"), [([8.0], "bf16"), ([9.0, 7.5], "fp32"), ([7.0], "fp32")]
)
def test_of_several_gpus_the_oldest_decides(cpu, monkeypatch, tmp_path, capabilities, expected):
    cpu(OLD if expected == "bf16" else NEW)
    monkeypatch.setattr(precision, "DRIVERS", (str(tmp_path),))
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr(precision, "_compute_capabilities", lambda visible: capabilities)
    assert precision.chosen("auto") == precision.chosen("auto", "cuda") == expected
    assert precision.chosen("auto", "cpu") == ("fp32" if expected == "bf16" else "bf16")


@pytest.mark.parametrize(("text", "expected"), [(OLD, "fp32"), (NEW, "bf16")])
def test_what_was_chosen_is_in_the_identity_and_goes_to_workers(cpu, text, expected):
    cpu(text)
    (cell,) = stages.cells(["sampler=colbert"])
    keys = ("sampler.precision", "teacher.precision", "trainer.precision")
    assert config.precisions(cell.cfg) == dict.fromkeys(keys, expected)
    assert set(cell.pinned) == {f"++{key}='{expected}'" for key in keys}
    # a worker on a machine of the other kind signs the same cell
    cpu(NEW if expected == "fp32" else OLD)
    (elsewhere,) = stages.cells(["sampler=colbert", *cell.pinned])
    assert elsewhere.keys == cell.keys and elsewhere.pinned == ()
    (own,) = stages.cells(["sampler=colbert"])
    # all but what is made of the texts and by BM25
    same = {step for step in own.keys if own.keys[step] == cell.keys[step]}
    assert {step.split()[0] for step in same} == {"collection", "index", "retrieve", "tokens"}
    assert "index training" not in same
    # and either finds what the other computed
    ((by_precision,), _) = stages.split(["sampler=colbert"], expected)
    assert by_precision.keys == cell.keys


def test_a_class_that_is_not_told_is_signed_as_if_it_were(cpu):
    cpu(NEW)
    explicit, silent = (
        {"trainer": {"_target_": "rdx.trainer.Trainer", **more}}
        for more in ({"precision": "bf16"}, {})
    )
    assert resolve_precision(silent) == ("++trainer.precision='bf16'",)
    assert silent == explicit and resolve_precision(explicit) == ()
    assert config.emulated(explicit) == []
    cpu(OLD)
    assert config.emulated(explicit) == ["trainer.precision"]


def test_objects_hold_what_was_chosen(cpu):
    cpu(NEW)
    model = "asset:all-MiniLM-L6-v2"
    for cls, arguments in (
        (Trainer, {}),
        (QueryLikelihood, {"model": model}),
        (Local, {"model": model}),
        (ColBERT, {"model": model}),
    ):
        assert cls(**arguments).precision == "bf16"
        assert cls(**arguments, precision="fp32").precision == "fp32"
        check_refused("trainer", cls, **arguments, precision="fp8")


def test_the_factor_of_emulation_is_that_of_two_products():
    factor = precision.emulation_factor(64)
    assert 0.01 < factor < 1000
