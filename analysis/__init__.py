"""From stored per-query values to significance-tested tables and figures.

``python -m analysis NAME`` reads one file, ``experiments/NAME.yaml``, and goes one way::

    spec.py          the YAML -> rows, tests, family, comparisons, checked
    trials.py        spec -> cells -> MLflow -> one tidy per-query frame
    stored.py        the files of one trial, checked
    comparability.py what must be equal before two trials may stand in one table
    significance/    arrays in, arrays out: tests, intervals, corrections, letters
    trust.py         do the tests keep their promises? synthetic scores, error rates
    factors, seeds, power, replication           likewise, beyond single comparisons
    scores.py        tidy frame -> per-query scores of each row
    contrasts.py     scores -> every test of the spec, corrected in its family
    summary.py       all numbers of the table
    claims.py, footer.py   the sentences below it
    sections         further tables: replication, factors, seeds, power
    tables.py        numbers -> the main table and that of declared comparisons
    report.py        the files of ``results/NAME/``, the page, the terminal
    render/          tables of typed entries -> Markdown, LaTeX, text, HTML; table.csv; figures
    figures          which figures there are, and the arithmetic that they need

Nothing here needs a GPU stack: of ``rdx`` only ``config``, ``store`` and ``rankings`` may be
imported, and only ``trials.py`` imports MLflow.
"""
