"""The installed program `rdx-analysis`: the same as `python -m analysis`."""

import runpy


def main() -> None:
    """Run `python -m analysis`."""
    runpy.run_module("analysis", run_name="__main__", alter_sys=True)
