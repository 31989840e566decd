"""Texts of data sets in the layout of the Hugging Face Hub, in a mirror or on the Hub itself.

Which files a split is made of, and in which format, is for the `datasets` library to say. Rows come as a stream: of a
large data set, only some are in memory.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from dataclasses import dataclass, fields
from functools import cache, lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
import pyarrow as pa

from distilbench.core.bounds import check_table_size
from distilbench.core.errors import UserError, one_of
from distilbench.core.hashes import file_sha256, key_of
from distilbench.core.mirror import check
from distilbench.core.sealed import disk_trouble
from distilbench.data.checks.hub_files import LARGEST, LARGEST_OF_KIND, opened_on_hub, size_on_hub
from distilbench.data.checks.packed_bounds import check_unpacked
from distilbench.data.checks.parquet_bounds import BoundedParquet, opened_parquet, values_of
from distilbench.data.hub_folder import lacking_shard
from distilbench.data.sentences import AT_ONCE

SET_PREFIX, FILE_PREFIX = "hub:", "hf://datasets/"
ID_AND_FILE = re.compile(r"(?P<id>\w[\w.-]*/\w[\w.-]*)(/(?P<file>.+))?")
FORMATS = {".parquet": "parquet", ".jsonl": "json", ".json": "json", ".csv": "csv", ".txt": "text"}
TEXTS = ("json", "csv", "text")
NO_OPTIONS = ("name", "version", "description", "data_files", "data_dir")
"""What a configuration holds beside how its files are read."""


@dataclass(frozen=True)
class HubName:
    """What a section of a study names by `hub:ID` or `hf://datasets/ID/FILE`, and the mirror to look for it first."""

    source: str
    section: str
    mirror: Path | None
    id: str
    file: str | None
    commit: str | None = None
    """Of the Hub; the newest one unless it is said."""

    @staticmethod
    def of(source: str, section: str, mirror: Path | None) -> HubName | None:
        """None for sources of other kinds. Raises `UserError` for what is no name of a data set."""
        prefix = next((prefix for prefix in (SET_PREFIX, FILE_PREFIX) if source.startswith(prefix)), None)
        if prefix is None:
            return None
        parts = ID_AND_FILE.fullmatch(source.removeprefix(prefix))
        if parts is None or ".." in source or (prefix == FILE_PREFIX) != bool(parts["file"]):
            raise UserError(
                f"{section}.source {source!r} names no data set; write {SET_PREFIX}OWNER/NAME, or "
                f"{FILE_PREFIX}OWNER/NAME/FILE"
            )
        return HubName(source, section, mirror, parts["id"], parts["file"])

    @property
    def in_mirror(self) -> Path | None:
        """Its folder or file in the mirror, if it is there."""
        path = None if self.mirror is None else self.mirror / self.id / (self.file or "")
        return path if path is not None and (path.is_file() if self.file else path.is_dir()) else None

    @property
    def at(self) -> str:
        """The commit to read from the Hub, which is asked for the newest one."""
        return self.commit or newest_commit(self.id)

    @property
    def place(self) -> str:
        """As messages name it, and where it was found."""
        return f"{self.source} in {self.in_mirror}" if self.in_mirror is not None else f"{self.source} on the Hub"


@dataclass(frozen=True)
class HubSplit:
    """The rows of a split, in the mirror or at a commit of the Hub."""

    name: HubName
    split: str
    builder: Any
    """Of `datasets`, for this split alone."""

    def __str__(self) -> str:
        return self.name.source

    @property
    def files(self) -> list[str]:
        """Paths in the mirror, or addresses that hold the commit, as they are read one after the other."""
        return list(self.builder.config.data_files[self.split])

    def key(self) -> str:
        """Hash of all that decides the rows. Of the Hub's files, the commit does; they are not read."""
        config = self.builder.config
        options = {field.name: repr(getattr(config, field.name)) for field in fields(config)}
        with worded(self.name):
            return key_of(
                files=[file if "://" in file else file_sha256(Path(file)) for file in self.files],
                config=config.name,
                split=self.split,
                options={name: value for name, value in options.items() if name not in NO_OPTIONS},
                features=repr(self.builder.info.features),
            )

    def columns(self) -> list[str]:
        """Names of the columns; where the format says none, those of the first rows.

        Raises `UserError` for text files in which a line or row is too long to be read, and for too much on the Hub.
        """
        with worded(self.name):
            self._check_on_hub()
            self._unpacked_bytes()
            rows = deepcopy(self.builder).as_streaming_dataset(self.split)
            if rows.column_names is None and self.builder.name == "csv":
                # A stream that is left after some rows would leave the file open.
                options = {**self.builder.config.pd_read_csv_kwargs, "nrows": 0, "chunksize": None}
                return list(map(str, pd.read_csv(self.files[0], **options).columns))
            return list(rows.column_names or next(iter(rows.take(1)), {}))

    def check_fits(self, columns: Sequence[str]) -> None:
        """Raise `UserError` where some columns are too large for this machine's memory."""
        with worded(self.name):
            if self.builder.name != "parquet":
                check_table_size(self._unpacked_bytes())
                return
            for file in self.files:
                with _opened(file, columns) as table:
                    table.check_fits(columns)

    def _check_on_hub(self) -> None:
        far = tuple(file for file in self.files if "://" in file)
        most = LARGEST_OF_KIND.get(self.builder.name, LARGEST)
        if far and (size := size_on_hub(far)) > most:
            raise UserError(
                f"{self.name.section}.source: {self.name.source} has {size} bytes on the Hub, and at most {most} are "
                f"read from there; name some of its files as {FILE_PREFIX}{self.name.id}/FILE, or run distilbench "
                "prefetch and give what it fills as --mirror DIR"
            )

    def _unpacked_bytes(self) -> int:
        """Bytes of text files, unpacked; 0 for other kinds of files."""
        kind = self.builder.name
        return sum(_unpacked_bytes(file, kind, *_state(file)) for file in self.files) if kind in TEXTS else 0

    def column_parts(self, column: str) -> Iterator[pa.Array]:
        """A column in parts, of which few are in memory. Raises `UserError` for files that cannot be read."""
        parts = self._parquet_parts(column) if self.builder.name == "parquet" else self._streamed_parts(column)
        while True:
            with worded(self.name):
                part = next(parts, None)
            if part is None:
                return
            yield part

    def _streamed_parts(self, column: str) -> Iterator[pa.Array]:
        rows = deepcopy(self.builder).as_streaming_dataset(self.split).select_columns([column])
        for table in rows.with_format("arrow").iter(AT_ONCE):
            yield from table.column(column).chunks

    def _parquet_parts(self, column: str) -> Iterator[pa.Array]:
        # The stream of `datasets` holds whole row groups, and its threads can abort the process as it ends.
        for file in self.files:
            with _opened(file, [column]) as table:
                if column not in table.names:
                    raise LookupError(f"{file}: {one_of('column', column, table.names)}")
                yield from (batch.column(0) for batch in table.batches([column]))

    def values(self, column: str) -> list[Any]:
        """All of a column."""
        return [value for part in self.column_parts(column) for value in values_of(part)]


@contextmanager
def _opened(file: str, columns: Sequence[str]) -> Iterator[BoundedParquet]:
    with (
        opened_on_hub(file) if "://" in file else nullcontext(Path(file)) as source,
        opened_parquet(source, columns) as table,
    ):
        yield table


def _state(file: str) -> tuple[int, int]:
    """What changes with a file: an address has a commit in it, whose files stay as they are."""
    if "://" in file:
        return 0, 0
    found = Path(file).stat()
    return found.st_size, found.st_mtime_ns


@lru_cache(maxsize=256)
def _unpacked_bytes(file: str, kind: str, size: int, time: int) -> int:
    """`size` and `time` of the file: what is known of it holds for as long as they stay the same."""
    path = Path(file)
    try:
        return check_unpacked(path, kind, opened_on_hub(file) if "://" in file else None)
    except ValueError as error:
        raise ValueError(f"{path.name} {error}") from None


def open_split(name: HubName, config: str | None, split: str | None) -> HubSplit:
    """The rows of a data set, of which nothing but names is read; a single file has neither configurations nor splits.

    Raises `UserError` for what is not there, cannot be reached, or is not whole.
    """
    from datasets.data_files import DataFilesDict

    if name.file is not None:
        config = split = None
    if name.mirror is not None and name.in_mirror is not None:
        check(name.in_mirror, name.mirror)
    with worded(name), TemporaryDirectory() as scratch:
        builder = _builder(name, config, scratch)
    found = {str(key): files for key, files in (builder.config.data_files or {}).items() if files}
    split = split or "train"
    if split not in found:
        raise UserError(f"{name.section}.split: {name.place}: {one_of('split', split, found)}")
    builder.config.data_files = DataFilesDict({split: found[split]})
    folder = name.in_mirror
    own = f"{folder.resolve()}/" if folder is not None else f"{FILE_PREFIX}{name.id}@{name.at}/"
    # Other files have no commit, and may be the user's.
    if others := [file for file in found[split] if ".." in Path(file).parts or not file.startswith(own)]:
        raise UserError(
            f"{name.section}.source: {name.source} asks for {others[0]}, which is no file of its own; give a data set "
            "that holds its files"
        )
    if folder is not None:
        _check_shards(name, folder, list(map(Path, found[split])))
    return HubSplit(name, split, builder)


def _builder(name: HubName, config: str | None, scratch: str) -> Any:
    import datasets

    datasets.disable_progress_bars()
    # What a study names is looked for where it says: `datasets` would take a folder of that name in the working one.
    where: dict[str, Any] = {"path": f"{FILE_PREFIX}{name.id}"}
    if name.in_mirror is not None:
        where = {"path": str(name.in_mirror.resolve())}
    elif name.file is None:
        where["revision"] = name.at
    else:
        where = {"path": _format(name), "data_files": f"{FILE_PREFIX}{name.id}@{name.at}/{name.file}"}
    try:
        # It would remember a data set by its path, in a folder of the user's.
        return datasets.load_dataset_builder(**where, name=config, cache_dir=scratch)
    except ValueError:
        known = [] if name.file else datasets.get_dataset_config_names(**where)
        if config is None and len(known) > 1:
            raise UserError(
                f"{name.section}.config: {name.place} has several configurations; name one of {', '.join(known)}"
            ) from None
        if config is not None and config not in known:
            raise UserError(f"{name.section}.config: {name.place}: {one_of('configuration', config, known)}") from None
        raise


def _format(name: HubName) -> str:
    kinds = [FORMATS[ending] for ending in Path(str(name.file)).suffixes if ending in FORMATS]
    if not kinds:
        raise UserError(f"{name.section}.source: {name.source} is none of {', '.join(FORMATS)}; give a file that is")
    return kinds[-1]


@cache
def newest_commit(data_set: str) -> str:
    """The newest commit of a data set on the Hub, or what it was when this process first looked."""
    from huggingface_hub import HfApi

    return str(HfApi().dataset_info(data_set).sha)


def _check_shards(name: HubName, folder: Path, files: list[Path]) -> None:
    """Refuse shards without their siblings."""
    if lacks := lacking_shard(files, folder):
        raise UserError(
            f"{name.section}.source: {folder} lacks {lacks}; put it there, or remove the folder and run distilbench "
            "prefetch"
        )


@contextmanager
def worded(name: HubName) -> Iterator[None]:
    """Turns what `datasets` raises, and writes to the log, into one sentence."""
    log = logging.getLogger("datasets")
    before = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    except UserError:
        raise
    # It raises what each of the libraries does by which it reads.
    except Exception as error:
        if disk_trouble(error):
            raise
        raise UserError(_refusal(name, error)) from None
    finally:
        log.setLevel(before)


def _refusal(name: HubName, error: Exception) -> str:
    from datasets.exceptions import DatasetNotFoundError
    from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled, RepositoryNotFoundError

    source, said = f"{name.section}.source: {name.source}", (str(error).splitlines() or [type(error).__name__])[0]
    # What follows are the names of all formats that there are.
    said = said.partition(" with any supported extension")[0].rstrip(".")
    if "scripts are no longer supported" in said:
        return f"{source} is made by a script, which is not run; give a data set of files"
    if name.in_mirror is not None:
        return (
            f"{source} cannot be read from {name.in_mirror} ({said}); mend the files, or remove the folder "
            "and run distilbench prefetch"
        )
    if isinstance(error, RepositoryNotFoundError | DatasetNotFoundError):
        return f"{source} is not on the Hub, or not for everyone; check the name, or run hf auth login"
    # The Hub is asked by httpx or httpx2, as the version of huggingface_hub has it.
    lost = any(kind.__name__ == "TransportError" for kind in type(error).__mro__)
    if lost or isinstance(error, ConnectionError | LocalEntryNotFoundError):
        why = "HF_HUB_OFFLINE is set" if isinstance(error, OfflineModeIsEnabled) else "the Hub cannot be reached"
        return (
            f"{source} is not in a mirror, and {why}; run distilbench prefetch where there is a network, and give what "
            "it fills as --mirror DIR"
        )
    # What is too large stays so, and says itself what helps.
    if isinstance(error, ValueError) and "; " in said:
        return f"{source} cannot be read from the Hub: {said}"
    return f"{source} cannot be read from the Hub ({said}); try again, or give another source"
