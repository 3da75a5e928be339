"""One attack a file, one class in each."""
