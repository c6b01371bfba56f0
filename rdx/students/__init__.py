"""Students: cross-encoders that score (query, passage) pairs."""

from typing import TYPE_CHECKING

from rdx import late
from rdx.students.settings import ATTENTION, HEADS, IMPLEMENTATIONS, LoRA, Student

if TYPE_CHECKING:
    from rdx.students.encoder import CrossEncoder, compile_encoder, is_compiled
    from rdx.students.heads import Interaction, Linear, Mean
    from rdx.students.tokenising import Pairs
else:
    __getattr__ = late.exports(
        __name__,
        {
            "encoder": ("CrossEncoder", "compile_encoder", "is_compiled"),
            "heads": ("Interaction", "Linear", "Mean"),
            "tokenising": ("Pairs",),
        },
    )

__all__ = [
    "ATTENTION",
    "HEADS",
    "IMPLEMENTATIONS",
    "CrossEncoder",
    "Interaction",
    "LoRA",
    "Linear",
    "Mean",
    "Pairs",
    "Student",
    "compile_encoder",
    "is_compiled",
]
