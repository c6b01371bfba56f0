"""From stored per-query values to significance-tested tables and figures.

``python -m analysis NAME`` reads one file, ``experiments/NAME.yaml``, or the record of a grid that
was launched, and goes one way::

    sources.py       a spec, or a launched grid -> its cells and the table that they are for
    nodes.py, rows.py, spec.py   the YAML -> rows as sets of levels, tests, family, checked
    assumed.py       the spec of a grid that has none
    trials.py        cells -> finished trials -> one tidy per-query frame
    stored.py        the files of trials in folders and stores, checked
    comparability.py what must be equal before two trials may stand in one table
    significance/    arrays in, arrays out: tests, intervals, corrections, letters
    scores.py        tidy frame -> per-query scores of each row
    contrasts.py     scores -> every test of the spec, corrected in its family
    summary.py       all numbers of the table
    answer/          the tests of a summary -> what they say, by rules; three sentences at most
    claims.py, footer.py   the sentences below the main table
    tables.py        numbers -> the main table and that of declared comparisons
    factors/, seeds/, replication/, power.py, costs.py   each its statistics and its tables
    report.py        the files of ``results/NAME/``, the page, the terminal
    render/          tables of typed entries -> Markdown, LaTeX, text, HTML; table.csv; figures
    figures          which figures there are, and the arithmetic that they need

No model is loaded here: of ``rdx`` only ``config``, ``facts``, ``power``, ``rankings``, ``stages``
(to sign cells, whose classes load torch) and ``store`` may be imported, and ``tracking`` by
``trials.py``, for what only MLflow has.
"""
