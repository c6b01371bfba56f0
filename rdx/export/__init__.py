"""Export a finished cell for other libraries: a folder of weights and a model card."""

from __future__ import annotations

from pathlib import Path

from rdx.artifacts import DESCRIPTION
from rdx.export.card import card, describe_cell
from rdx.export.cells import ExportError, Finished, check_licence, find
from rdx.export.folder import whole
from rdx.export.labels import export_labels
from rdx.export.weights import FORMS, read, write

__all__ = ["FORMS", "ExportError", "Finished", "export", "export_labels", "find", "read"]


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
    check_licence(licence)
    with whole(out, like=DESCRIPTION) as folder:
        cell = find(store, signature)
        write(cell.student.load(cell.checkpoint).eval(), cell.student, form, folder)
        (folder / DESCRIPTION).write_text(describe_cell(cell), encoding="utf-8")
        card(cell, name or out.name, licence, form).save(folder / "README.md")
    return out.absolute()
