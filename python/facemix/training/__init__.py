"""Training with the mix in the loop, from a baseline trained first (paper, section 3.4)."""
