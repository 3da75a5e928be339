"""The base of the errors that are this package's own. Bad arguments raise ValueError, missing files
OSError.
"""

__all__ = ["FacemixError"]


class FacemixError(Exception):
    """Something outside the program did not do its part; the text says what, and what it should have done."""
