"""The installed program `rdx`: the same as `python -m rdx`."""

import runpy


def main() -> None:
    """Run `python -m rdx`."""
    runpy.run_module("rdx", run_name="__main__", alter_sys=True)
