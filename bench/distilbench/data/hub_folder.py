"""Which files a table of a data set is made of, in a folder that is laid out as the Hub has it: found by their names.

<split>.parquet                                 or .jsonl, .csv, .tsv, and these with .gz
<split>-00000-of-00002.parquet ...              or in shards
<config>/<split>.parquet, <split>/<config>...   or of a configuration, perhaps below data/
<config>/<split>/0000.parquet                   or as the Hub's own conversion to parquet has it
README.md, .huggingface.yaml                    go before all of these where they list `configs`
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

DEFAULT = "default"
"""The Hub's name of the only configuration."""
CARDS = ("README.md", ".huggingface.yaml")
"""Where a data set may say which files it has; the second overrules the first."""
PLACES = (
    "{config}/{split}",
    "{config}/data/{split}",
    "data/{config}/{split}",
    "{split}/{config}",
    "data/{split}/{config}",
    "{config}-{split}",
    "{config}_{split}",
)
PLACES_OF_DEFAULT = ("{split}", "data/{split}", "default/{split}")
SHARD = re.compile(r"^(?P<stem>.+)-(?P<number>\d+)-of-(?P<count>\d+)(?=\D|$)")
HEAD = re.compile(r"\A---\r?\n(.*?)^---\s*$", re.DOTALL | re.MULTILINE)
PACKED = ".gz"
FORMATS = (".parquet", ".jsonl", ".tsv", ".csv")
ENDINGS = (*FORMATS, *(f"{ending}{PACKED}" for ending in FORMATS if ending != ".parquet"))
"""Of tables; where a table is there in several formats, the first counts."""


def ending_of(path: Path) -> str:
    """The ending by which a table's file is read; empty for other files."""
    return next((ending for ending in ENDINGS if path.name.endswith(ending)), "")


class HubFiles:
    """The files of a data set by the names of their configuration and split. Raises `ValueError` for damage."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def of(self, config: str, split: str) -> list[Path]:
        """The files that make a table together, none where it is not there."""
        found = self._declared.get(config, {}).get(split) or self._in_its_place(config, split)
        if lacks := lacking_shard(found, self.folder):
            raise ValueError(f"{lacks} is missing")
        return found

    def splits(self, config: str) -> list[str]:
        """The splits that a configuration has in a folder of its own, or as the data set says."""
        folder = self.folder / config
        return list(self._declared.get(config) or _by_split(folder) or [at.name for at in folder.glob("*/")])

    def _in_its_place(self, config: str, split: str) -> list[Path]:
        for place in PLACES_OF_DEFAULT if config == DEFAULT else PLACES:
            if files := _at(self.folder / place.format(config=config, split=split)):
                return files
        return []

    @cached_property
    def _declared(self) -> dict[str, dict[str, list[Path]]]:
        """Configuration -> split -> files that are there."""
        for card in reversed(CARDS):
            if configs := _listed(self.folder / card):
                try:
                    return {str(one.get("config_name", DEFAULT)): self._declared_splits(one, card) for one in configs}
                except (TypeError, AttributeError, KeyError, NotImplementedError):
                    raise ValueError(f"{card} lists `configs` in a form that the Hub does not know") from None
        return {}

    def _declared_splits(self, config: dict[str, Any], card: str) -> dict[str, list[Path]]:
        listed_files = config.get("data_files")
        if listed_files is None and _stays_inside(str(config.get("data_dir", ".."))):
            return _by_split(self.folder / config["data_dir"])
        found = {}
        for split, patterns in _patterns(listed_files).items():
            of_each = {pattern: self._matching(pattern) for pattern in patterns}
            if files := {file for matching in of_each.values() for file in matching}:
                if lost := [pattern for pattern, matching in of_each.items() if not matching]:
                    raise ValueError(f"{lost[0]} is missing, which {card} names")
                found[split] = sorted(files)
        return found

    def _matching(self, pattern: str) -> list[Path]:
        if not _stays_inside(pattern):
            return []
        return [file for file in self.folder.glob(pattern) if file.is_file() and ending_of(file)]


def lacking_shard(files: Sequence[Path], folder: Path) -> str | None:
    """The name of a shard without which some files of a data set are not whole; None where they are.

    Shards that the data set's card names one by one are all that is meant.
    """
    there: dict[tuple[str, int], set[int]] = {}
    for file in files:
        if shard := SHARD.match(file.name):
            there.setdefault((shard["stem"], int(shard["count"])), set()).add(int(shard["number"]))
    split = {shards: missing for shards, found in there.items() if (missing := sorted(set(range(shards[1])) - found))}
    if not split:
        return None
    cards = "".join((folder / card).read_text("utf-8", "replace") for card in CARDS if (folder / card).is_file())
    for (stem, count), missing in split.items():
        if any(file.name not in cards for file in files if file.name.startswith(f"{stem}-")):
            return f"{stem}-{missing[0]:05d}-of-{count:05d}"
    return None


def _listed(card: Path) -> Any:
    """`configs` of a card, empty where it has none."""
    if not card.is_file():
        return []
    text = card.read_text("utf-8", "replace")
    head = HEAD.match(text) if card.suffix == ".md" else None
    if card.suffix == ".md" and head is None:
        return []
    try:
        values = yaml.safe_load(head[1] if head else text)
    except yaml.YAMLError as error:
        raise ValueError(f"{card.name}: its head is not readable YAML ({str(error).splitlines()[0]})") from None
    return (values.get("configs") if isinstance(values, dict) else None) or []


def _patterns(data_files: Any) -> dict[str, list[str]]:
    """Split -> patterns, from whichever form of `data_files` a card has."""
    if isinstance(data_files, dict):
        return {str(split): _as_list(value) for split, value in data_files.items()}
    found: dict[str, list[str]] = {}
    for item in _as_list(data_files or []):
        # The Hub calls a split that has no name `train`.
        split, value = (item["split"], item["path"]) if isinstance(item, dict) else ("train", item)
        found.setdefault(str(split), []).extend(_as_list(value))
    return found


def _as_list(value: Any) -> list[Any]:
    return [value] if isinstance(value, str) else list(value)


def _stays_inside(pattern: str) -> bool:
    return not Path(pattern).is_absolute() and ".." not in Path(pattern).parts


def _stem(file: Path) -> str:
    """The name of a table's file without its ending and the number of its shard."""
    name = file.name.removesuffix(ending_of(file))
    shard = SHARD.match(name)
    return shard["stem"] if shard else name


def _by_split(folder: Path) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for file in sorted(folder.glob("*")):
        if ending_of(file):
            found.setdefault(_stem(file), []).append(file)
    return found


def _at(place: Path) -> list[Path]:
    """The files of the table that lies in a place: a file, its shards, or all files of a folder; of one format."""
    found = [*_by_split(place.parent).get(place.name, []), *sorted(place.glob("*"))]
    for ending in ENDINGS:
        if (whole := place.with_name(f"{place.name}{ending}")) in found:
            return [whole]
        if files := [file for file in found if ending_of(file) == ending]:
            return files
    return []
