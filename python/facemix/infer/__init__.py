"""What `facemix infer` does, in steps: find the images, classify them, write the results."""
