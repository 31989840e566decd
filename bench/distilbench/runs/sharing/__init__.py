"""A run's model and results for other people: what its card tells the Hub, and how both get there."""
