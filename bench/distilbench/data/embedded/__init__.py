"""Text and tasks that need neither a download nor a committed file."""
