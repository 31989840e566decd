"""From a study to prepared runs: teacher, student, texts and tasks, what is refused, and who each run is.

It must not know how a run is executed.
"""
