"""What all tests share."""

import gc
import os
import pickle
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings

# Before torch loads: a test process has one core, where several run at once.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# No test asks the Hub, or finds what its user has cached; huggingface_hub reads these once.
os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HOME": str(Path(tempfile.gettempdir()) / "rdx-no-hub")}

# The same examples in every run, so that a change is what turns a run red. To search further:
# pytest --hypothesis-profile=default
settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")


def pytest_collection_finish() -> None:
    """Keep what is loaded by now out of every later collection of garbage: a tenth of the time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def composed_once():
    """Let Hydra compose the options of this checkout once each: most cells of tests share theirs.

    What it composes is not resolved: values that refer to the environment are still read anew. A
    working folder with options of its own, or a file named by its path, is read every time.
    """
    from omegaconf import open_dict

    import rdx.config  # noqa: F401  so that there is what is replaced
    from rdx import folders

    composing = sys.modules["rdx.config.composing"]
    hydras, known = composing.compose, {}

    def compose(name, overrides, return_hydra_config=False):
        own = folders.homes() != [folders.ROOT] or any(".yaml" in text for text in overrides)
        if own:
            return hydras(name, overrides, return_hydra_config=return_hydra_config)
        key = (folders.ROOT, name, *overrides)
        if key not in known:
            known[key] = pickle.dumps(hydras(name, overrides, return_hydra_config=True))
        cfg = pickle.loads(known[key])
        if not return_hydra_config:
            with open_dict(cfg):
                del cfg["hydra"]
        return cfg

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(composing, "compose", compose)
        yield
