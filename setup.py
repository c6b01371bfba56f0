"""The wheel's data: what lies beside the packages in the checkout goes into rdx/ of the wheel."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class WithData(build_py):
    """Copies the files that `rdx.folders.ROOT` holds."""

    def run(self) -> None:
        """Build the packages, then copy."""
        super().run()
        if not self.editable_mode:
            rdx = Path(self.build_lib, "rdx")
            for name in ("conf", "experiments"):
                shutil.rmtree(rdx / name, ignore_errors=True)
                shutil.copytree(name, rdx / name)
            for name in ("CITATION.cff", "constraints.txt"):
                shutil.copy(name, rdx)


setup(cmdclass={"build_py": WithData})
