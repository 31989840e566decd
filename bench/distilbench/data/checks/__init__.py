"""What is checked of a model folder before it is built."""
