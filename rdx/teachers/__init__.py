"""Re-order candidates by LLMs, recorded rankings, labels and controls.

Every teacher has ``rank(candidates, collection, work) -> teacher ranking`` with the columns
query_id, doc_id, teacher_rank (1 = best), score (NaN = permutation only), state ("ok", "repaired",
"malformed", "refused", "failed"). `work` is a folder that outlives a killed process.
"""

from typing import TYPE_CHECKING

from rdx import late

if TYPE_CHECKING:
    from rdx.teachers.budget import Caps, Prices, Stopped
    from rdx.teachers.controls import Identity, Labels, Oracle, Shuffled
    from rdx.teachers.cross_encoder import CrossEncoder
    from rdx.teachers.endpoint import Endpoint
    from rdx.teachers.fused import Fused
    from rdx.teachers.likelihood import QueryLikelihood
    from rdx.teachers.listwise import Listwise
    from rdx.teachers.local import Local
    from rdx.teachers.messages import Fatal
    from rdx.teachers.recorded import Recorded
    from rdx.teachers.vllm import VLLM
    from rdx.teachers.yes_no import Form, YesNo
else:
    __getattr__ = late.exports(
        __name__,
        {
            "budget": ("Caps", "Prices", "Stopped"),
            "controls": ("Identity", "Labels", "Oracle", "Shuffled"),
            "cross_encoder": ("CrossEncoder",),
            "endpoint": ("Endpoint",),
            "fused": ("Fused",),
            "likelihood": ("QueryLikelihood",),
            "listwise": ("Listwise",),
            "local": ("Local",),
            "messages": ("Fatal",),
            "recorded": ("Recorded",),
            "vllm": ("VLLM",),
            "yes_no": ("Form", "YesNo"),
        },
    )

__all__ = [
    "Caps",
    "CrossEncoder",
    "Endpoint",
    "Fatal",
    "Form",
    "Fused",
    "Identity",
    "Labels",
    "Listwise",
    "Local",
    "Oracle",
    "Prices",
    "QueryLikelihood",
    "Recorded",
    "Shuffled",
    "Stopped",
    "VLLM",
    "YesNo",
]
