"""Students as transformers of PyTerrier (Macdonald and Tonellotto, ICTIR 2020).

    import pyterrier as pt
    from rdx.adapters.pyterrier import Reranker

    pipeline = bm25 % 100 >> pt.text.get_text(dataset, "text") >> Reranker("released/my-reranker")

Needs the extra `pyterrier`, and no Java of its own.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from rdx import evaluation
from rdx.declared import Positive
from rdx.export import read
from rdx.faults import installing
from rdx.trainer import Trainer

try:
    import pyterrier as pt
except ModuleNotFoundError as error:
    if error.name != "pyterrier":
        raise
    raise ModuleNotFoundError(
        f"pyterrier is not installed: {installing('pyterrier')}", name="pyterrier"
    ) from error

COLUMNS = ["query", "text"]


class Reranker(pt.Transformer):  # type: ignore[misc]
    """Re-rank results with a student that `rdx.export.export` wrote.

    Takes a result frame [qid, query, docno, text, ...] and gives it with the student's scores,
    and ranks from 0 by them as PyTerrier ranks; passages are scored as in an evaluation of rdx, so
    that the scores are those of its runs. A frame without text is refused by PyTerrier's own error.

    Parameters
    ----------
    folder
        Exported in the form "transformers".
    device, precision
        As `trainer.device` and `trainer.precision`; "auto" may compute in bfloat16, where
        evaluations on other machines computed in float32.
    max_tokens
        Of a batch.

    Raises
    ------
    ExportError
        If the folder holds no such student.
    """

    def __init__(
        self,
        folder: str | Path,
        device: str = "auto",
        precision: str = "auto",
        max_tokens: Positive = 4096,
    ) -> None:
        self.folder, self.max_tokens = Path(folder), max_tokens
        self._runtime = Trainer(device=device, precision=precision)
        self._student = read(self.folder)

    def transform(self, results: pd.DataFrame) -> pd.DataFrame:
        """Score and rank the passages of every query; the order of rows stays as it is."""
        pt.validate.result_frame(results, extra_columns=COLUMNS, context=self)
        scored = results.drop(columns=["score", "rank"], errors="ignore").reset_index(drop=True)
        scored["score"] = self._scores(scored) if len(scored) else pd.Series(dtype="float32")
        return pt.model.add_ranks(scored)

    def _scores(self, frame: pd.DataFrame) -> pd.Series:
        pairs = frame[["qid", *COLUMNS]].rename(columns={"qid": "query_id"})
        return evaluation.score(self._student, pairs, self._runtime, self.max_tokens)

    def __repr__(self) -> str:
        return f"Reranker({str(self.folder)!r})"
