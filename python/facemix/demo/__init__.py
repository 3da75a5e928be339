"""What `facemix demo` does, in steps: train, serve, measure, draw, report."""
