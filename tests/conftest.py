"""What all tests share."""

from hypothesis import settings

# The same examples in every run, so that a change is what turns a run red. To search further:
# pytest --hypothesis-profile=default
settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")
