"""Texts, their tokens, and the batches that are made of them; and the text that comes with distilbench.

It must not know models beyond a folder's files and tokenizer, nor any method."""
