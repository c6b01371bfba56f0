"""The tiny world of the tests of rdx, here too."""

from tests.rdx.conftest import world

__all__ = ["world"]
