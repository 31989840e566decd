"""An official task's data in a mirror, in whichever layout its data set has on the Hub.

Where the files of a table are found is said in `distilbench.data.hub_folder`. A table is one of

pairs, or labelled texts                        of one subset, or of all, with a column `lang`
corpus, queries, qrels/<split>                  documents and queries, perhaps below <subset>/
corpus/..., queries/..., qrels/... or data/...  or a folder for each, of a subset <subset>-corpus/...
lists                                           or rows of a query with lists of positive and negative documents
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.sts import AbsTaskSTS

from distilbench.core.errors import UserError
from distilbench.data.hub_folder import HubFiles, ending_of
from distilbench.evaluation.task_types.kinds import is_of, kind_of
from distilbench.evaluation.tasks.files import (
    Table,
    candidate_lists,
    check_table,
    check_types,
    has_corpus,
    is_of_lists,
    ranked_candidates,
    read_table,
    retrieval_data,
    retrieval_split,
    with_instructions,
)
from distilbench.evaluation.tasks.subsets import MOST_LISTED, WHOLE, listed, within
from distilbench.records.record import SOURCE_FILE

LANGUAGE_COLUMNS = ("lang", "language")
TRANSFORMED = "transformed"
"""Key of SOURCE.json."""


class HubFolder:
    """Tables of a data set by the names of their configuration and split."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._files = folder, HubFiles(folder)
        self._read: dict[tuple[str, str], Table | None] = {}

    def table(self, config: str, split: str) -> Table | None:
        """A table from all of its files; None where there are none. Raises `ValueError` for files that are damaged."""
        if (config, split) not in self._read:
            self._read[config, split] = self._table(config, split)
        return self._read[config, split]

    def only_table(self, config: str, split: str) -> Table | None:
        """As `table`; where the configuration has one split, that one, whatever it is called."""
        found = self.table(config, split)
        if found is None and len(splits := self._files.splits(config)) == 1:
            found = self.table(config, splits[0])
        return found

    def of_language(self, subset: str, split: str) -> Table | None:
        """The rows of a subset in a table of all subsets; None where there are none."""
        if (whole := self.table(WHOLE, split)) is None:
            return None
        frame, name = whole
        for column in LANGUAGE_COLUMNS:
            if column not in frame.columns:
                continue
            check_table(frame, name, (column,))
            if (rows := frame[column] == subset).any():
                return frame[rows].drop(columns=column).reset_index(drop=True), name
        return None

    def features(self, config: str, split: str, frame: pd.DataFrame) -> Features | None:
        """What a parquet file says of its columns beyond their types: mteb samples by the names of classes."""
        files = self._files.of(config, split)
        if not files or ending_of(files[0]) != ".parquet":
            return None
        try:
            found = Features.from_arrow_schema(pq.read_schema(files[0]))
        except (OSError, ValueError) as error:
            raise ValueError(f"{files[0].name}: {error}") from None
        has_classes = any(isinstance(feature, ClassLabel) for feature in found.values())
        return found if has_classes and list(found) == list(frame.columns) else None

    @cached_property
    def is_transformed(self) -> bool:
        """Whether the tables are those that mteb makes of what the Hub has."""
        source = self.folder / SOURCE_FILE
        try:
            said = json.loads(source.read_text(encoding="utf-8")) if source.is_file() else {}
        except ValueError:
            raise ValueError(f"{SOURCE_FILE} is not JSON") from None
        return isinstance(said, dict) and said.get(TRANSFORMED) is True

    def _table(self, config: str, split: str) -> Table | None:
        files = self._files.of(config, split)
        if not files:
            return None
        parts = [read_table(file) for file in files]
        frame = parts[0] if len(parts) == 1 else pd.concat(parts, ignore_index=True)
        return frame, files[0].relative_to(self.folder).as_posix()


def load_from_mirror(instance: Any, folder: Path, name: str) -> None:
    """Fill a task of mteb with its data in a mirror.

    Raises `UserError` for what is damaged, and for subsets that are to be scored and are not there.
    """
    read = _documents if is_of(instance, AbsTaskRetrieval) else _tables
    try:
        hub = HubFolder(folder)
        found = {subset: read(instance, hub, subset) for subset in instance.hf_subsets}
        if missing := [subset for subset, data in found.items() if data is None]:
            there = [subset for subset in instance.metadata.hf_subsets if read(instance, hub, subset) is not None]
            raise _incomplete(instance, folder, name, missing, there)
        single = not instance.metadata.is_multilingual and not is_of(instance, AbsTaskRetrieval)
        instance.dataset = found[WHOLE] if single else found
        # What `prefetch` left was transformed before.
        if not hub.is_transformed:
            instance.dataset_transform()
        if is_of(instance, AbsTaskSTS):
            _check_pairs(instance)
        elif not is_of(instance, AbsTaskRetrieval):
            _check_tables(instance)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"the mirror's {folder} is damaged: {str(error).splitlines()[0].rstrip('.')}; make it again"
        ) from None
    instance.data_loaded = True


def _incomplete(instance: Any, folder: Path, name: str, missing: list[str], there: list[str]) -> UserError:
    some = f"{{name: {instance.metadata.name}, subsets: [{', '.join(there[:MOST_LISTED])}]}}"
    cure = f"score these alone ({some}), or add the others" if there else "add them, each in a folder of its name"
    return UserError(
        f"the mirror's {folder} lacks {len(missing)} of the subsets of {name} ({listed(missing)}) and has "
        f"{listed(there)}; {cure}"
    )


def _tables(instance: Any, hub: HubFolder, subset: str) -> DatasetDict | None:
    """The splits of a subset; None for one of several that the mirror does not have."""
    splits = {}
    wanted = kind_of(instance).splits(instance)
    for split in wanted:
        table = hub.table(subset, split)
        if table is None and subset != WHOLE:
            table = hub.of_language(subset, split)
        if table is not None:
            splits[split] = Dataset.from_pandas(table[0], features=hub.features(subset, split, table[0]))
    if not splits and subset != WHOLE:
        return None
    _check_splits(wanted, splits, subset)
    return DatasetDict(splits)


def _documents(instance: Any, hub: HubFolder, subset: str) -> dict[str, Any] | None:
    """The splits of a subset of documents and queries; None for one of several that the mirror does not have."""
    folder = hub.folder if subset == WHOLE else hub.folder / subset
    if has_corpus(folder):
        return {split: retrieval_split(folder, split) for split in instance.eval_splits}
    splits = {split: data for split in instance.eval_splits if (data := _judged(hub, subset, split)) is not None}
    if splits:
        _check_splits(instance.eval_splits, splits, subset)
        return splits
    return {split: retrieval_split(folder, split) for split in instance.eval_splits} if subset == WHOLE else None


def _check_splits(wanted: Sequence[str], splits: dict[str, Any], subset: str) -> None:
    for split in wanted:
        if split not in splits:
            raise ValueError(f"{within(subset, split)}.parquet is missing")


def _judged(hub: HubFolder, subset: str, split: str) -> dict[str, Any] | None:
    """Corpus, queries and judgements from configurations of their own, as mteb names them."""

    def table(config: str) -> Table | None:
        return hub.only_table(config if subset == WHOLE else f"{subset}-{config}", split)

    qrels = "qrels" if subset == WHOLE else f"{subset}-qrels"
    judgements = (hub.table(WHOLE, split) if subset == WHOLE else None) or hub.table(qrels, split)
    for lists in (judgements, hub.table(subset, split)):
        if lists is not None and is_of_lists(lists):
            return candidate_lists(lists, split)
    parts = {"qrels": judgements, "queries": table("queries"), "corpus": table("corpus")}
    there = {name: part for name, part in parts.items() if part is not None}
    if not there:
        return None
    if missing := [name for name in parts if name not in there]:
        raise ValueError(f"{within(subset, missing[0])} is missing")
    data = retrieval_data(**there)
    if (candidates := table("top_ranked")) is not None:
        data["top_ranked"] = ranked_candidates(candidates)
    if (instructions := table("instruction")) is not None:
        data["queries"] = with_instructions(data["queries"], instructions)
    return data


def _check_pairs(instance: Any) -> None:
    """Refuse tables that cannot be scored, and make numbers of scores that were read as text."""
    parts = instance.dataset if instance.metadata.is_multilingual else {WHOLE: instance.dataset}
    for subset, splits in parts.items():
        for split, data in splits.items():
            frame, name = data.to_pandas(), f"{within(subset, split)}.parquet"
            check_table(frame, name, (*instance.column_names, "score"))
            check_types(frame, name, instance.column_names)
            if data.features["score"].dtype in ("string", "large_string"):
                splits[split] = data.cast_column("score", Value("float64"))


def _check_tables(instance: Any) -> None:
    """Refuse tables that lack a column, or a value in one, that is scored."""
    parts = instance.dataset if instance.metadata.is_multilingual else {WHOLE: instance.dataset}
    for subset, splits in parts.items():
        for split in kind_of(instance).splits(instance):
            for column in kind_of(instance).columns(instance):
                if column not in splits[split].column_names:
                    raise ValueError(f"{within(subset, split)} has no column {column!r}")
                gaps = [row for row, value in enumerate(splits[split][column], start=1) if value is None]
                if gaps:
                    raise ValueError(f"{within(subset, split)} row {gaps[0]} has no usable value under {column!r}")
