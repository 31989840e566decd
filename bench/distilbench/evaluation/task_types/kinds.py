"""mteb's task types other than retrieval: which columns they read, what a model embeds, what their scores are made of.

Each is scored by mteb itself. What is said here is where the parts of its score are found, so that they can be kept and
resampled: pairs, texts with summaries, or repeated experiments.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from datasets import Dataset
from mteb.abstasks import (
    AbsTask,
    AbsTaskClassification,
    AbsTaskClustering,
    AbsTaskClusteringLegacy,
    AbsTaskMultilabelClassification,
    AbsTaskPairClassification,
    AbsTaskSTS,
    AbsTaskSummarization,
)
from mteb.abstasks.retrieval import AbsTaskRetrieval

from distilbench.data.vectors import SidedText
from distilbench.records.frames import AVERAGE_PRECISION, MEASURE

MEAN_OVER_QUERIES = re.compile(r"(max_over_subqueries_)?(ndcg|map|mrr|recall|precision|hit_rate)_at_\d+|accuracy")
FEWEST_LABELS = 2
"""Without which a classifier cannot be trained, nor pairs be told apart."""


def whole(data: Dataset, column: str) -> list[Any]:
    """A column as a list; iterated, a column of `datasets` makes its rows one by one, ten times slower."""
    return list(data[column][:])


def is_of(task: Any, base: type) -> bool:
    """Whether a task is of a type: `isinstance` would ask each of mteb's thousand classes, for each class of tasks."""
    return base in type(task).__mro__


class Kind:
    """A task type whose data are tables. `data` is one split of one subset."""

    base: ClassVar[type[AbsTask]]
    predicts: ClassVar[bool] = True
    """Whether mteb's predictions are needed for the examples."""
    label: ClassVar[str] = ""
    """The attribute of a task that names its column of labels, if it has one."""

    def columns(self, task: Any) -> tuple[str, ...]:
        """What a table must have, without gaps."""
        raise NotImplementedError

    def splits(self, task: Any) -> list[str]:
        """The splits that are read, those that are scored before others."""
        return list(task.eval_splits)

    def embedded(self, task: Any, split: str, data: Dataset) -> Dataset:
        """The rows of a split that is read of which a model embeds the texts."""
        return data

    def texts(self, task: Any, data: Dataset) -> Iterator[SidedText]:
        """The texts that a model embeds, with their sides."""
        raise NotImplementedError

    def pairs(self, task: Any, data: Dataset) -> Iterable[tuple[str, str]]:
        """The pairs of texts that the score is about; none where it is about single texts."""
        return ()

    def shown(self, task: Any, data: Dataset) -> Sequence[str]:
        """The text of each example, none where an example is no text."""
        return [f"{first} | {second}" for first, second in self.pairs(task, data)]

    def examples(self, task: Any, data: Dataset, predicted: Any, scores: dict[str, Any]) -> pd.DataFrame:
        """A row for each example, from mteb's predictions and scores."""
        raise NotImplementedError

    def prepare(self, task: Any, data: Dataset) -> Dataset:
        """A loaded table as it is kept."""
        return data

    def shorten(self, task: Any, data: Dataset, limit: int) -> Dataset:
        """About the first `limit` rows, of as many labels as there are."""
        if not self.label:
            return data.select(range(min(limit, len(data))))
        column = data[getattr(task, self.label)]
        labels = pd.Series([str(label) for label in column])
        turns = labels.groupby(labels).cumcount().sort_values(kind="stable")
        return data.select(sorted(turns.index[: max(limit, FEWEST_LABELS)]))


class Sts(Kind):
    """Pairs with graded similarity."""

    base = AbsTaskSTS

    def columns(self, task: Any) -> tuple[str, ...]:
        return (*task.column_names, "score")

    def texts(self, task: Any, data: Dataset) -> Iterator[SidedText]:
        yield from ((text, None) for column in task.column_names for text in whole(data, column))

    def pairs(self, task: Any, data: Dataset) -> Iterable[tuple[str, str]]:
        first, second = task.column_names
        return zip(whole(data, first), whole(data, second), strict=True)

    def examples(self, task: Any, data: Dataset, predicted: Any, scores: dict[str, Any]) -> pd.DataFrame:
        frame = pd.DataFrame({"gold": data["score"], "similarity": predicted["cosine_scores"]})
        return frame.assign(example=frame.index.astype(str))


class PairClassification(Kind):
    """Pairs that belong together or do not."""

    base = AbsTaskPairClassification
    label = "label_column_name"
    SIMILARITIES: ClassVar[dict[str, tuple[str, int]]] = {
        "similarity": ("similarity_scores", 1),
        "cosine": ("cosine_scores", 1),
        "manhattan": ("manhattan_distances", -1),
        "euclidean": ("euclidean_distances", -1),
        "dot": ("dot_scores", 1),
    }
    """mteb's name of a measure -> where its predictions are, and the sign that makes more of it more alike."""

    def columns(self, task: Any) -> tuple[str, ...]:
        return (task.input1_column_name, task.input2_column_name, task.label_column_name)

    def prepare(self, task: Any, data: Dataset) -> Dataset:
        # Older data sets are one row of lists.
        return Dataset.from_dict(data[0]) if len(data) == 1 else data

    def texts(self, task: Any, data: Dataset) -> Iterator[SidedText]:
        for column, side in (
            (task.input1_column_name, task.input1_prompt_type),
            (task.input2_column_name, task.input2_prompt_type),
        ):
            yield from ((text, side.value if side else None) for text in whole(data, column))

    def pairs(self, task: Any, data: Dataset) -> Iterable[tuple[str, str]]:
        return zip(whole(data, task.input1_column_name), whole(data, task.input2_column_name), strict=True)

    def examples(self, task: Any, data: Dataset, predicted: Any, scores: dict[str, Any]) -> pd.DataFrame:
        """Similarities by the measure that the main score is made with, which mteb takes to be the best one.

        Resampled, the measure stays the same, so that the score of a resample is at most what mteb would make of it.
        """
        main = task.metadata.main_score
        metric = main.removeprefix("max_")
        if main.startswith("max_"):
            measure = max(self.SIMILARITIES, key=lambda name: float(scores[f"{name}_{metric}"]))
        else:
            measure, _, metric = main.partition("_")
        place, sign = self.SIMILARITIES[measure]
        frame = pd.DataFrame({"gold": [float(label) for label in whole(data, task.label_column_name)]})
        similarity = sign * np.asarray(predicted[place], dtype=np.float64)
        frame = frame.assign(example=frame.index.astype(str))
        if metric == "ap":
            frame[MEASURE] = AVERAGE_PRECISION
            return frame.assign(similarity=similarity)
        if metric == "accuracy":
            # A decision at the best threshold is right or wrong, and the score their mean.
            _, threshold = task._find_best_acc_and_threshold(list(similarity), frame["gold"].to_numpy(), True)
            right = (similarity > threshold) == (frame["gold"] == 1)
            return frame.drop(columns="gold").assign(**{main: right.astype(float)})
        return frame.assign(similarity=similarity)


class Summarization(Kind):
    """Texts with summaries that people have graded: one correlation for each text."""

    base = AbsTaskSummarization

    def columns(self, task: Any) -> tuple[str, ...]:
        return (
            task.text_column_name,
            task.human_summaries_column_name,
            task.machine_summaries_column_name,
            task.relevancy_column_name,
        )

    def texts(self, task: Any, data: Dataset) -> Iterator[SidedText]:
        for column in (task.human_summaries_column_name, task.machine_summaries_column_name):
            yield from ((text, None) for summaries in whole(data, column) for text in summaries)

    def shown(self, task: Any, data: Dataset) -> Sequence[str]:
        return whole(data, task.text_column_name)

    def examples(self, task: Any, data: Dataset, predicted: Any, scores: dict[str, Any]) -> pd.DataFrame:
        main, rows = task.metadata.main_score, []
        parts = list(zip(*(predicted[name] for name in predicted), strict=True))
        for row, grades in enumerate(whole(data, task.relevancy_column_name)):
            scaled = ((np.array(grades) - task.min_score) / (task.max_score - task.min_score)).tolist()
            # mteb leaves out texts whose summaries are all graded, or all scored, alike.
            if not parts or dict(zip(predicted, parts[0], strict=True))["human_scores"] != scaled:
                continue
            alone = {name: [part] for name, part in zip(predicted, parts.pop(0), strict=True)}
            rows.append({"example": str(row), main: task.evaluator._calculate_metrics(None, alone)[main]})
        return pd.DataFrame(rows, columns=["example", main])


class LabelledTexts(Kind):
    """Single texts with labels, of which the score is made in repeated experiments."""

    predicts = False
    label = "label_column_name"

    def columns(self, task: Any) -> tuple[str, ...]:
        return (task.input_column_name, task.label_column_name)

    def texts(self, task: Any, data: Dataset) -> Iterator[SidedText]:
        yield from ((text, None) for text in whole(data, task.input_column_name))

    def shown(self, task: Any, data: Dataset) -> Sequence[str]:
        return []


class Classification(LabelledTexts):
    """Labels are learned from a few of the training split, several times over."""

    base = AbsTaskClassification

    def splits(self, task: Any) -> list[str]:
        return list(dict.fromkeys([*task.eval_splits, task.train_split]))

    def embedded(self, task: Any, split: str, data: Dataset) -> Dataset:
        if split in task.eval_splits:
            return data
        chosen, order = set[int](), None
        # mteb goes on shuffling the order of the last time.
        for number in range(0 if task.is_cross_validation else task.n_experiments):
            _, order, rows = task._undersample_data(data, number, order)
            chosen.update(rows)
        return data.select(sorted(chosen))

    def examples(self, task: Any, data: Dataset, predicted: Any, scores: dict[str, Any]) -> pd.DataFrame:
        main = task.metadata.main_score
        return experiments([float(one[main]) for one in scores["scores_per_experiment"]], main)


class Clustering(LabelledTexts):
    """Texts are clustered several times over, perhaps on several levels."""

    base = AbsTaskClustering

    def examples(self, task: Any, data: Dataset, predicted: Any, scores: dict[str, Any]) -> pd.DataFrame:
        main = task.metadata.main_score
        by_level = scores["v_measures" if main == "v_measure" else f"{main}_scores"]
        return experiments([float(value) for values in by_level.values() for value in values], main)

    def shorten(self, task: Any, data: Dataset, limit: int) -> Dataset:
        # mteb would cluster a share of the few.
        task.max_fraction_of_documents_to_embed = task.max_document_to_embed = None
        return super().shorten(task, data, limit)


class ClusteringLegacy(Clustering):
    """Sets of texts, each clustered once."""

    base = AbsTaskClusteringLegacy

    def texts(self, task: Any, data: Dataset) -> Iterator[SidedText]:
        for texts in whole(data, task.input_column_name):
            yield from ((text, None) for text in ([texts] if isinstance(texts, str) else texts))

    def examples(self, task: Any, data: Dataset, predicted: Any, scores: dict[str, Any]) -> pd.DataFrame:
        main = task.metadata.main_score
        return experiments([float(value) for value in scores["v_measures"]], main)

    def shorten(self, task: Any, data: Dataset, limit: int) -> Dataset:
        sets = [
            Dataset.from_dict(row)
            for row in data.select_columns(list(self.columns(task))).select(range(min(limit, len(data))))
        ]
        return Dataset.from_list([Kind.shorten(self, task, texts, limit).to_dict() for texts in sets])


def experiments(values: Sequence[float], metric: str) -> pd.DataFrame:
    """Repeated experiments as examples: the main score is their mean."""
    return pd.DataFrame({"example": [str(number) for number in range(len(values))], metric: values})


KINDS = (Sts(), PairClassification(), Summarization(), Classification(), Clustering(), ClusteringLegacy())


SCORED_TYPES = (
    "STS",
    "Retrieval",
    "Reranking",
    "PairClassification",
    "Classification",
    "Clustering",
    "Summarization",
)


def kind_of(task: Any) -> Kind:
    """What is particular to a task whose data are tables. Raises `KeyError` for types that are not scored."""
    for kind in KINDS:
        if is_of(task, kind.base) and not is_of(task, AbsTaskMultilabelClassification):
            return kind
    raise KeyError(task.metadata.type)


def is_mean_over_queries(task: AbsTaskRetrieval) -> bool:
    """Whether the main score of a retrieval task is a mean over its queries, of a metric that is known here.

    It is not where mteb compares the ranks of a query under two instructions, or two queries with each other.
    """
    return MEAN_OVER_QUERIES.fullmatch(task.metadata.main_score) is not None


def is_scored(task: Any) -> bool:
    """Whether distilbench scores a task of mteb: texts alone, of one of the known types, by what examples add up to."""
    if list(task.metadata.modalities) != ["text"] or task.is_aggregate:
        return False
    try:
        return is_mean_over_queries(task) if is_of(task, AbsTaskRetrieval) else kind_of(task) is not None
    except KeyError:
        return False
