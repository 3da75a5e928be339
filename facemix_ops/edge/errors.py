"""What can be wrong with a bundle."""


class BundleError(ValueError):
    """The file is not a bundle that this version can use: damaged, altered, of another kind, or newer."""
