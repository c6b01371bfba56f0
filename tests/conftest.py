"""What all tests share."""

import os
import tempfile
from pathlib import Path

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
