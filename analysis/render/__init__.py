"""Tables of typed entries as Markdown, LaTeX, plain text, HTML and CSV; nothing is computed here.

Whoever builds a `Table` decides what each entry says and which flags it has; a renderer gives that
its markup and parses nothing.
"""
