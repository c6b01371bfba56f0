"""Run a module where some packages and what they need are all that is installed.

python tests/benchmarks/alone.py "torch numpy" MODULE [ARGUMENTS]
"""

import re
import runpy
import sys
from importlib import metadata
from importlib.machinery import PathFinder

COMMAND_LINES = {"typer"}  # and what it needs: no module of a library does


def needed(names):
    """The distributions of these names, and all that they need."""
    found, left = {}, list(names)
    while left:
        name = _plain(left.pop())
        if name in found or name in COMMAND_LINES:
            continue
        try:
            found[name] = metadata.distribution(name)
        except metadata.PackageNotFoundError:  # of another platform
            continue
        needs = found[name].requires or []
        left += [re.match(r"[\w.-]+", one)[0] for one in needs if "extra ==" not in one]
    return found


def _plain(name):
    return re.sub(r"[-_.]+", "-", name).lower()


class Only:
    """In the place of the finder of installed modules: some distributions, and this project."""

    def __init__(self, distributions):
        owners = metadata.packages_distributions()
        self.hidden = {
            module
            for module, names in owners.items()
            if not any(_plain(name) in distributions for name in names)
        } - {"rdx", "analysis"}
        self.distributions = distributions

    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in self.hidden else PathFinder.find_spec(name, path)

    def find_distributions(self, context):
        name = context.name
        if name is None:
            return iter(self.distributions.values())
        return (d for n, d in self.distributions.items() if n == _plain(name))


if __name__ == "__main__":
    names, module, *arguments = sys.argv[1:]
    only = Only(needed(names.split()))
    assert "pydantic" in only.hidden
    assert not only.hidden & set(sys.modules)
    sys.meta_path = [only if finder is PathFinder else finder for finder in sys.meta_path]
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
