"""Students: cross-encoders that score (query, passage) pairs."""

from rdx.students.encoder import CrossEncoder, compile_encoder, is_compiled
from rdx.students.heads import Interaction, Linear, Mean
from rdx.students.settings import ATTENTION, HEADS, IMPLEMENTATIONS, LoRA, Student
from rdx.students.tokenising import Pairs

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
