"""Which texts a study trains on, and is scored by."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from distilbench.study.sections.section import Label, PositiveInt, Section


class _HubText(Section):
    """A text that may be a data set of the Hugging Face Hub, or several."""

    source: str | Annotated[list[str], Field(min_length=1)]
    config: str | None = None
    """Configuration of a data set of the Hub. Unset: the one that it has by default."""
    split: str | None = None
    """Split of a data set of the Hub. Unset: train."""

    @model_validator(mode="after")
    def _config_fits(self) -> Self:
        sources = [self.source] if isinstance(self.source, str) else self.source
        if (self.config or self.split) and not any(source.startswith("hub:") for source in sources):
            raise ValueError(
                "config and split are of data sets of the Hub; give source: hub:OWNER/NAME, or leave them out"
            )
        return self


class TextSpec(_HubText):
    """Unlabelled training text."""

    source: str | Annotated[list[str], Field(min_length=1)]
    """`embedded`, files (.txt, .jsonl, .csv, .tsv, .parquet), `mirror:PATH` below the mirror, `hub:OWNER/NAME` for a
    data set of the Hugging Face Hub, or `hf://datasets/OWNER/NAME/FILE` for one file of it."""
    column: str = "text"
    """Column to read where the file has columns."""
    side: str | None = None
    """Name of the prompt that stands before every text, `query` or `document`: teacher and student each have their own.
    Unset: the one that a model has by default, which most have not."""
    sentences: PositiveInt | None = None
    """Sample this many distinct sentences. Unset: all."""
    on_bad_line: Literal["error", "skip"] = "error"
    """What to do with empty lines, NUL bytes, invalid UTF-8 and lines over 100 000 characters: stop at the first, or
    leave them out."""
    evaluation_text: Literal["remove", "keep"] = "remove"
    """What to do with sentences that contain text of the study's tasks: leave them out and count them, or keep them."""


class LabelledSpec(_HubText):
    """Texts that belong together, for methods that learn from them: an anchor, what fits it, what fits it less."""

    source: str
    """`embedded` (docstrings: summary, body, another body), a file with columns, `mirror:PATH`, `hub:OWNER/NAME` or
    `hf://datasets/OWNER/NAME/FILE`."""
    columns: Annotated[list[str], Field(min_length=2)] = Field(default=["anchor", "positive", "negative"])
    """Columns of the anchor and its candidates, the fitting one first; `embedded` has three of its own."""
    sides: list[str] = Field(default=[])
    """Names of the prompts that stand before the texts of each column, such as `[query, document, document]`. Unset:
    those that the models have by default."""
    scores: list[str] = Field(default=[])
    """Columns with a score for each candidate. Unset: cosines of the teacher's vectors."""
    rows: PositiveInt | None = None
    """Sample this many rows. Unset: all."""

    @model_validator(mode="after")
    def _sides_fit(self) -> LabelledSpec:
        columns = 3 if self.source == "embedded" else len(self.columns)
        if self.sides and len(self.sides) != columns:
            raise ValueError(f"sides names {len(self.sides)} prompts for {columns} columns; give one for each")
        return self

    @model_validator(mode="after")
    def _scores_fit(self) -> LabelledSpec:
        if self.scores and len(self.scores) != len(self.columns) - 1:
            raise ValueError(
                f"scores names {len(self.scores)} columns for {len(self.columns) - 1} candidates; give one for each"
            )
        if self.scores and self.source == "embedded":
            raise ValueError("the embedded text has no scores; leave labelled.scores out")
        return self


class DevSpec(LabelledSpec):
    """Pairs by which students are watched while they train: an anchor with each of its candidates."""

    columns: Annotated[list[str], Field(min_length=2)] = Field(default=["sentence1", "sentence2"])
    """Columns of the anchor and its candidates."""
    rows: PositiveInt = 500
    """Sample this many rows."""
    points: Annotated[int, Field(ge=1, le=20)] = 6
    """Score students at this many shares of the budget: all of it, half, a quarter and so on."""
    evaluation_text: Literal["remove", "keep"] = "keep"
    """What to do with rows that contain text of the study's tasks: leave them out and count them, or keep them. Weights
    and settings are not chosen by pairs that a task holds too."""


class OwnTask(Section):
    """A task made from the user's own data."""

    name: Label
    """The task's name in tables."""
    source: str
    """A table of pairs with scores (.csv, .tsv, .jsonl, .parquet), or a BEIR folder (corpus, queries,
    `qrels/<split>`). `mirror:PATH` is below the mirror."""
    columns: tuple[str, str, str] = ("sentence1", "sentence2", "score")
    """Columns of a table: the two texts and their score."""
    split: Label = "test"
    """Which judgements of a BEIR folder to score by."""
    ignore_identical_ids: bool = False
    """Whether a query of a BEIR folder that is also one of its documents, by its id, may not find itself."""

    @field_validator("columns")
    @classmethod
    def _distinct(cls, columns: tuple[str, str, str]) -> tuple[str, str, str]:
        if len(set(columns)) < len(columns):
            raise ValueError("names a column twice; give those of the two texts and of their score")
        return columns


class PartOfTask(Section):
    """Subsets of a task of mteb that has several, such as one for each language. Their scores are averaged."""

    name: str
    """mteb's name of the task."""
    subsets: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """mteb's names of the subsets to score. `TASK@SUBSET,SUBSET` says the same wherever a task is named."""
    languages: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """Score the subsets that are in these languages and in no other, by ISO 639-3 codes (`eng`), with a script where it
    matters (`zho-Hans`)."""
    splits: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """Score these of its splits. `TASK@SUBSET#SPLIT` and `TASK#SPLIT` say the same. Unset: those that mteb scores."""

    @model_validator(mode="after")
    def _one_way(self) -> PartOfTask:
        if self.subsets is not None and self.languages is not None:
            raise ValueError("give either subsets or languages")
        if self.subsets is None and self.languages is None and self.splits is None:
            raise ValueError("give either subsets or languages, or splits")
        return self


TaskSpec = str | PartOfTask | OwnTask
"""A task as a study names it."""
