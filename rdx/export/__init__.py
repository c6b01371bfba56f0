"""Export a finished cell for other libraries: a folder of weights and a model card."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from rdx.artifacts import DESCRIPTION
from rdx.export.card import card, describe_cell
from rdx.export.cells import ExportError, Finished, find
from rdx.export.weights import FORMS, write
from rdx.store import share

__all__ = ["FORMS", "ExportError", "Finished", "export", "find"]


def export(
    store: Path,
    signature: str,
    out: Path,
    licence: str | None = None,
    name: str | None = None,
    form: str = "transformers",
) -> Path:
    """Write weights, tokeniser, model card and configuration of a finished cell to a new folder.

    The folder appears when it is complete; in the form "transformers", when the model read back
    from it gives the student's scores.

    Parameters
    ----------
    store
        The store that the cell ran with.
    signature
        Of the finished cell, or a beginning of it that no other finished cell has.
    out
        Folder to write; it must not exist, or be empty.
    licence
        Identifier of the weights' licence as the Hub knows it, e.g. "apache-2.0"; None = the card
        says that it is still to be given.
    name
        Name of the model on its card; None = the folder's.
    form
        "transformers": for Transformers and sentence-transformers. "lightning_ir": for Lightning
        IR.

    Raises
    ------
    ExportError
        If there is no such finished cell or more than one, if it is damaged or lacks its
        configuration, if the folder is not empty, if a value is not valid, or if the student cannot
        be expressed in that form.
    """
    if form not in FORMS:
        raise ExportError(f"form={form!r}: must be one of {list(FORMS)}")
    if licence is not None and not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", licence):
        raise ExportError(
            f"licence={licence!r}: must be an identifier as the Hub has them, in small letters, "
            "e.g. apache-2.0, mit, cc-by-nc-4.0, other"
        )
    out = out.absolute()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ExportError(f"{out} is there already, and not an empty folder: name another one")
    cell = find(store, signature)
    partial = out.with_name(f"{out.name}.partial{os.getpid()}")
    partial.mkdir(parents=True)
    try:
        write(cell.student.load(cell.checkpoint).eval(), cell.student, form, partial)
        (partial / DESCRIPTION).write_text(describe_cell(cell), encoding="utf-8")
        card(cell, name or out.name, licence, form).save(partial / "README.md")
        share(partial, partial / DESCRIPTION)
        os.replace(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return out
