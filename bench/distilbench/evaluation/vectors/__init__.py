"""What a model's vectors are like, beside their scores."""
