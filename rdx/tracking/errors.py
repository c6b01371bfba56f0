"""What may be wrong with records of trials."""


class NoRecords(LookupError):
    """There is no MLflow store at an address, or no such experiment in it."""


class RecordError(ValueError):
    """A finished trial lacks its files, or its database cannot be read."""
