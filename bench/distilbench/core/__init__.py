"""What every room needs: folders written whole, the cache, hashes, seeds, errors, this machine.

It must not know what a study, a model or a score is."""
