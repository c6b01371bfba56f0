"""Texts for people."""


def counted(number: int, noun: str) -> str:
    """A number and a noun in the form that belongs to it.

    >>> counted(1, "cell"), counted(2000, "query")
    ('1 cell', '2,000 queries')
    """
    if number == 1:
        return f"1 {noun}"
    return f"{number:,} {noun[:-1] + 'ies' if noun.endswith('y') else noun + 's'}"
