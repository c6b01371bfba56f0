"""The blocks of a page that scripts write: what stands between their marks."""

from __future__ import annotations

import re
from collections.abc import Mapping

END = "<!-- end -->"


def names(page: str, script: str) -> list[str]:
    """The blocks of a script that a page has."""
    return re.findall(rf"<!-- (\S+): python scripts/{script}\.py -->", page)


def filled(page: str, script: str, blocks: Mapping[str, str]) -> str:
    """The page with blocks of a script written anew, by their names; it must have them."""
    for name, block in blocks.items():
        mark = f"<!-- {name}: python scripts/{script}.py -->"
        pattern = re.compile(f"{re.escape(mark)}\n.*?{END}", re.DOTALL)
        assert pattern.search(page), mark
        new = f"{mark}\n{block}\n{END}"
        page = pattern.sub(lambda _, new=new: new, page)
    return page
