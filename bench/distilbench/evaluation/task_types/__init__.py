"""What is particular to each of mteb's task types: the data it reads, the texts a model embeds, what its examples are.

It must not know where a task's data are from."""
