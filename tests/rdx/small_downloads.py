"""Small files in place of the downloads of ir_datasets: what its collections in small share.

    python small_NAME.py FOLDER --url ADDRESS ARGUMENT...

writes the downloads into FOLDER (if it is not there), tells ir_datasets' own descriptions of them
their sums, sizes and numbers of records, and to find them at ADDRESS/NAME, and then runs
`python -m rdx ARGUMENT...`. IR_DATASETS_HOME must be set.
"""

import hashlib
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

Counts = Mapping[str, Mapping[str, int]]  # collection -> part ("docs", ...) -> records


def tell(
    folder: Path, address: str, counts: Counts, name_of: Callable[[str, str, str], str]
) -> None:
    """Give ir_datasets the facts of the small files instead of those of the real ones.

    `name_of` gives the small file for a collection, a part of it, and its real address.
    """
    from rdx.data import catalogue, sources  # before ir_datasets, as rdx does it
    from ir_datasets.util import metadata  # isort: skip

    known = metadata.default_metadata_provider.get_metadata
    metadata.default_metadata_provider.get_metadata = lambda one, part: (
        {"count": counts[one].get(getattr(part, "value", part))}
        if one in counts
        else known(one, part)
    )
    for dataset_id in counts:
        dataset = catalogue.load(dataset_id)
        for part in sources.PARTS:
            for thing in sources.components(dataset, part):
                if type(thing).__name__ == "Download":
                    mirrors = [mirror for mirror in thing.mirrors if hasattr(mirror, "url")]
                    name = name_of(dataset_id, part, mirrors[0].url)
                    data = (folder / name).read_bytes()
                    thing.expected_md5 = hashlib.md5(data).hexdigest()
                    thing._size_hint = len(data)
                    for mirror in mirrors:
                        mirror.url = f"{address}/{name}"


def main(
    write: Callable[[Path], None], counts: Counts, name_of: Callable[[str, str, str], str]
) -> None:
    """Write the files, tell ir_datasets, run rdx."""
    folder, address = Path(sys.argv[1]), sys.argv[3]
    if not folder.exists():
        folder.mkdir()
        write(folder)
    tell(folder, address, counts, name_of)
    sys.argv[1:] = sys.argv[4:]
    from rdx.__main__ import program

    program()
