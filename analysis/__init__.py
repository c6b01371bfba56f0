"""From stored per-query values to significance-tested tables and figures.

``python -m analysis NAME`` reads one file, ``experiments/NAME.yaml``, and goes one way::

    spec.py          the YAML -> rows, baseline, family, comparisons, checked
    trials.py        spec -> cells -> MLflow -> one tidy per-query frame
    comparability.py what must be equal before two trials may stand in one table
    significance.py  arrays in, arrays out: tests, intervals, corrections
    summary.py       tidy frame + spec -> the numbers of the table
    notes.py         the sentences below it
    report.py        numbers -> cells, marks, points; the files of ``results/NAME/``
    tables.py        a table of finished cells -> Markdown, LaTeX, plain text
    figures.py       finished numbers -> a figure

Nothing here needs a GPU stack: of ``rdx`` only ``config``, ``store`` and ``rankings`` may be
imported, and only ``trials.py`` imports MLflow.
"""
