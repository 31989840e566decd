"""Where the teacher's signals of a text lie: computed by a model and kept on disk, or in files of vectors.

It must not know methods beyond what they ask for."""
