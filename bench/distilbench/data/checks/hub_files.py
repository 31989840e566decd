"""Files of a data set on the Hub: how large they are, known before anything of them is read, and what is in them."""

from __future__ import annotations

from functools import cache
from typing import IO, cast

LARGEST = 2**29
"""Bytes of a split's files, as they lie there. Text is gone through before it is read, and so fetched twice."""
LARGEST_OF_KIND = {"parquet": 2**34}
"""Of what says by itself how large it becomes."""


@cache
def size_on_hub(addresses: tuple[str, ...]) -> int:
    """Bytes of some files together. An address holds a commit, whose files stay as they are."""
    from huggingface_hub import HfFileSystem

    return sum(int(HfFileSystem().info(address)["size"]) for address in addresses)


def opened_on_hub(address: str) -> IO[bytes]:
    """A file, of which only what is read is fetched."""
    from huggingface_hub import HfFileSystem

    return cast(IO[bytes], HfFileSystem().open(address))
