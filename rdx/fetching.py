"""Fetch, verify or list the downloads that cells need: `python -m rdx data ...`.

Data come before the grid: a cell downloads nothing, and a command line whose data are absent ends
with the command that fetches them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from rdx import config, stages
from rdx.arguments import Parser
from rdx.config import Config
from rdx.data import catalogue
from rdx.data.catalogue import DataSet
from rdx.data.download import DownloadError
from rdx.data.rank_distillm import File
from rdx.data.sources import PARTS, TOPICS
from rdx.declared import CATALOGUED, RELEASED
from rdx.faults import line
from rdx.rankings import FormatError
from rdx.text import aligned

Need = DataSet | File
ACTIONS = ("fetch", "verify", "status")


def data(arguments: Sequence[str]) -> None:
    """Fetch, verify or list the data that cells need."""
    parser = Parser(
        prog="python -m rdx data",
        description="Data sets of ir_datasets and released rankings that the cells of a command "
        "line need. fetch: download what is lacking (stop it whenever you like, the same command "
        "goes on), check and prepare it; verify: check what is there; status: list it.",
    )
    parser.add_argument("action", choices=ACTIONS)
    parser.add_argument("overrides", nargs="*", help="as of python -m rdx; a grid, too")
    parser.add_argument(
        "--accept-licence",
        action="store_true",
        help="accept the terms that fetch shows, without being asked",
    )
    parser.add_argument(
        "--without-passages",
        action="store_true",
        help="of ir_datasets, queries and judgements only: enough to measure runs of others",
    )
    options = parser.parse_intermixed_args(arguments)
    parts = TOPICS if options.without_passages else PARTS
    try:
        cells = map(stages.begun, config.cells(options.overrides))
        needed = needs((cell.cfg for cell in cells), parts)
        if not needed:
            print("nothing that these cells need comes from ir_datasets or a ranking file")
            return
        if options.action == "fetch":
            _fetch(needed, options.accept_licence)
        elif options.action == "verify":
            _verify(needed)
        else:
            print(table(needed))
    except (ValueError, OSError) as error:
        sys.exit(f"rdx: {line(error)}")


def needs(configurations: Iterable[Config], parts: tuple[str, ...] = PARTS) -> list[Need]:
    """What the configurations name that `data fetch` could fetch, or would like to see."""
    wanted: list[Need] = []
    for cfg in configurations:
        ids = [node[name] for _, node, name in config.with_mark(cfg, CATALOGUED)]
        files = [node[name] for _, node, name in config.with_mark(cfg, RELEASED)]
        wanted += [DataSet(dataset_id, parts) for dataset_id in ids if _listed(dataset_id)]
        wanted += [File(Path(file)) for file in files]
    return list(dict.fromkeys(wanted))


def require(configurations: Iterable[Config], overrides: Sequence[str]) -> None:
    """Raise ConfigError, naming the command that fetches it, if data that could be are absent."""
    needed = needs(configurations)
    absent = [need.name for need in needed if need.known() and not need.present()]
    if absent:
        raise config.ConfigError(
            f"not fetched yet, and no cell downloads anything: {', '.join(absent)}\n"
            f"  run first: python -m rdx data fetch {' '.join(overrides)}".rstrip()
        )


def table(needed: Sequence[Need]) -> str:
    """List what is needed, whether it is there, its size, and whether it was verified."""
    lines = [("needed", "there", "size", "to fetch", "verified")]
    for need in needed:
        size = sum(size for _, size in need.lacking())
        lines.append((
            need.name,
            "yes" if need.present() else "no",
            _shown(need.size()),
            _shown(size) if need.known() else "by hand",
            "yes" if need.verified() else "no",
        ))  # fmt: skip
    return aligned(lines, left=5)


def _listed(dataset_id: str) -> bool:
    """Whether ir_datasets has it; what it lacks is refused where all values are checked."""
    try:
        catalogue.load(dataset_id)
    except KeyError:
        return False
    return True


def _fetch(needed: Sequence[Need], accepted: bool) -> None:
    missing = [need for need in needed if not need.present() or need.unchecked()]
    if not missing:
        print(table(needed))
        return
    size_of = dict(download for need in missing for download in need.lacking())
    for address, size in size_of.items():
        print(f"{_shown(size):>8}  {address}")
    print(f"{_shown(sum(size_of.values())):>8}  in all")
    _agree([text for need in missing for text in need.licences()], accepted)
    failed = []
    for need in missing:
        print(f"== {need.name}", flush=True)
        try:
            need.fetch()
        except (DownloadError, FormatError) as error:
            failed.append(str(error))
            print(f"rdx: {error}", file=sys.stderr, flush=True)
    print(table(needed))
    if failed:
        sys.exit(
            f"rdx: {len(failed)} of {len(missing)} could not be fetched:\n" + "\n".join(failed)
        )


def _agree(licences: Sequence[str], accepted: bool) -> None:
    """Show the terms; go on only if they are accepted."""
    texts = list(dict.fromkeys(licences))
    if not texts:
        return
    print("\nTerms of use:")
    for text in texts:
        print(f"  {text}")
    if accepted:
        return
    if not sys.stdin.isatty():
        raise config.ConfigError("nobody is there to accept these terms: give --accept-licence")
    if input("Do you accept them? [y/N] ").strip().lower() not in ("y", "yes"):
        sys.exit("rdx: nothing was fetched")


def _verify(needed: Sequence[Need]) -> None:
    wrong = 0
    for need in needed:
        problems = need.verify()
        wrong += bool(problems)
        print(f"{need.name}: {'ok' if not problems else 'WRONG'}", flush=True)
        for problem in problems:
            print(f"   {problem}")
    if wrong:
        sys.exit(f"rdx: {wrong} of {len(needed)} are not as they must be")


def _shown(size: int) -> str:
    """A number of bytes in three digits; "-" for none."""
    for unit, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if size >= unit:
            return f"{size / unit:.3g} {name}"
    return f"{size} B" if size else "-"
