"""Teacher and student: finding, loading, pooling, cutting, exporting, and their vectors of plain texts.

It must not know how a student is trained or scored."""
