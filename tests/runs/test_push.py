"""A run on the Hub: what is uploaded, what its card says there, and what is said where that cannot be. No network."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
import yaml
from huggingface_hub import metadata_load
from huggingface_hub.errors import OfflineModeIsEnabled

from distilbench.cli.app import main
from distilbench.records.record import read_record, read_study
from distilbench.runs.sharing.card import complete_card

REPO = "somebody/a-student"


@pytest.fixture(scope="module")
def run(teacher_folder: Path, text_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a run of mse, in a working folder with its cache."""
    folder = tmp_path_factory.mktemp("push")
    values = {
        "name": "tiny",
        "teacher": str(teacher_folder),
        "student": {"layers": 2, "width": 16},
        "text": {"source": str(text_file)},
        "budget": {"steps": 3},
        "methods": ["mse"],
        "seeds": 1,
        "tasks": ["DistilbenchSTS"],
        "train": {"batch_size": 16, "max_length": 64},
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(values))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DISTILBENCH_CACHE", str(folder / "cache"))
        patch.chdir(folder)
        assert main(["run", "study.yaml", "-q"]) == 0
    (record,) = [record for record in read_study(folder / "results" / "tiny") if record.label == "mse"]
    yield folder / "results" / "tiny" / record.run_id


class FakeHub:
    """What HfApi was asked for."""

    def __init__(self, kept: Path) -> None:
        self.kept, self.made, self.said = kept, list[dict[str, Any]](), list[str]()
        self.private: bool | None = None
        self.error: Exception | None = None

    def __call__(self, library_name: str) -> FakeHub:
        return self

    def create_repo(self, repo: str, *, repo_type: str, private: bool, exist_ok: bool) -> str:
        if self.error is not None:
            raise self.error
        assert exist_ok
        self.made.append({"repo": repo, "type": repo_type, "private": private})
        self.private = private if self.private is None else self.private
        return f"https://huggingface.co/{repo}"

    def repo_info(self, repo: str, *, repo_type: str) -> Any:
        return SimpleNamespace(private=self.private)

    def upload_folder(self, *, repo_id: str, folder_path: Path, repo_type: str, commit_message: str) -> None:
        self.said.append(commit_message)
        shutil.copytree(folder_path, self.kept)


@pytest.fixture
def hub(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    fake = FakeHub(tmp_path / "uploaded")
    monkeypatch.setattr(huggingface_hub, "HfApi", fake)
    monkeypatch.setenv("HF_TOKEN", "hf_of_a_test")
    monkeypatch.setenv("DISTILBENCH_CACHE", str(run.parents[2] / "cache"))
    return fake


def push(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = main(["push", *map(str, arguments)])
    return code, *capsys.readouterr()


def test_model_and_results_are_uploaded(run: Path, hub: FakeHub, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = push(capsys, run, "--repo", REPO)
    assert (code, out, err) == (0, f"https://huggingface.co/{REPO}\n", "")
    assert hub.made == [{"repo": REPO, "type": "model", "private": True}]
    assert hub.said == ["Upload mse seed 1 of tiny"]
    names = {path.name for path in hub.kept.iterdir()}
    assert {"modules.json", "model.safetensors", "README.md", "distilbench"} <= names
    record = read_record(hub.kept / "distilbench" / "record.json")
    assert record == read_record(run / "record.json")
    ((result,),) = [entry["results"] for entry in metadata_load(hub.kept / "README.md")["model-index"]]
    measured = json.loads((run / "mteb" / "DistilbenchSTS.json").read_text())
    assert result["metrics"][0]["value"] == round(100 * record.scores["DistilbenchSTS"]["main_score"], 2)
    assert (result["dataset"]["split"], result["dataset"]["revision"]) == ("test", measured["dataset_revision"])


def test_it_is_public_only_where_asked(run: Path, hub: FakeHub, capsys: pytest.CaptureFixture[str]) -> None:
    hub.private = False
    code, out, err = push(capsys, run, "--repo", REPO)
    assert (code, out, hub.said) == (2, "", [])
    assert "is a public repository; add --public" in err
    assert push(capsys, run, "--repo", REPO, "--public")[0] == 0
    assert hub.made[-1]["private"] is False and hub.said


def refusal(status: int) -> Exception:
    error = OSError("a page of\nHTML")
    error.response = SimpleNamespace(status_code=status)  # type: ignore[attr-defined]
    return error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (refusal(401), "does not let this token write to somebody/a-student (HTTP 401)"),
        (refusal(403), "(HTTP 403); give one that may with hf auth login"),
        (refusal(500), "could not be uploaded (a page of); the same command tries again"),
        (OfflineModeIsEnabled("offline"), "HF_HUB_OFFLINE is set"),
        (ConnectionError("no network"), "could not be uploaded (no network)"),
    ],
)
def test_what_the_hub_refuses_is_a_sentence(
    run: Path, hub: FakeHub, capsys: pytest.CaptureFixture[str], error: Exception, expected: str
) -> None:
    hub.error = error
    code, out, err = push(capsys, run, "--repo", REPO)
    assert (code, out, err.count("\n")) == (3, "", 1) and expected in err


def test_without_a_token_nothing_is_asked(
    run: Path, hub: FakeHub, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    code, out, err = push(capsys, run, "--repo", REPO)
    assert (code, out, hub.made) == (3, "", []) and "there is no token for the Hub; run hf auth login" in err


def test_what_cannot_be_uploaded_is_said_first(run: Path, hub: FakeHub, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = push(capsys, run, "--repo", "no/such/name")
    assert code == 2 and "--repo no/such/name: " in err and err.count("\n") == 1
    code, _, err = push(capsys, run.parent, "--repo", REPO)
    assert code == 2 and "is no run's folder" in err
    assert hub.made == []


@pytest.mark.parametrize(
    ("student", "teacher", "source", "expected"),
    [
        ({}, "owner/teacher", "hub:owner/text", ("owner/teacher", ["owner/text"])),
        ({"name": "owner/student"}, "owner/teacher", "file.txt", ("owner/student", None)),
        ({"name": "a-folder"}, "owner/teacher", ["hub:a/b", "c.txt"], (None, ["a/b"])),
        ({}, "a/b + c/d", "mirror:text.parquet", (None, None)),
    ],
)
def test_a_card_names_models_and_data_of_the_hub(
    run: Path, student: dict[str, str], teacher: str, source: Any, expected: tuple[Any, Any], tmp_path: Path
) -> None:
    record = read_record(run / "record.json")
    record = replace(
        record,
        student={**record.student, **student},
        teacher={**record.teacher, "name": teacher},
        text={**record.text, "source": source},
    )
    card = tmp_path / "README.md"
    card.write_text(complete_card("---\nlicense: mit\ntags: [distilbench]\n---\n\n# A student\n", record, run))
    data = metadata_load(card)
    assert (data.get("base_model"), data.get("datasets")) == expected
    assert (data["license"], data["tags"]) == ("mit", ["distilbench"]) and "model-index" in data
    card.write_text(complete_card("---\nlicense: mit\n---\n", replace(record, limit=20), run))
    assert "model-index" not in metadata_load(card)
