"""What ships is what was trained: bit for bit through our loader, to 1e-6 through sentence-transformers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from huggingface_hub import metadata_load
from torch import nn

from distilbench.core.errors import UserError
from distilbench.core.sealed import write_sealed
from distilbench.data.tokenizer import load_tokenizer
from distilbench.models.cutting import build_student
from distilbench.models.encoder import Dense, Encoder, Normalize
from distilbench.models.export import export, licence_of, model_card
from distilbench.models.model_folder import StoredModel, load_encoder
from distilbench.records.record import dump_json
from distilbench.runs.export import export_run
from distilbench.study.sections.models import StudentSpec

TEXTS = ["the dog sees a cat", "water", "a small bird sings under the old tree"]
HEADS = {
    "none": None,
    "normalize": nn.Sequential(Normalize()),
    "dense": Dense(nn.Linear(16, 5), nn.Tanh()),
    "plain linear": nn.Linear(16, 5),
    "linear and activation": nn.Sequential(nn.Linear(16, 5), nn.Tanh(), nn.Linear(5, 4)),
    "dense and normalize": nn.Sequential(Dense(nn.Linear(16, 5, bias=False), nn.Identity()), Normalize()),
}


@pytest.fixture
def student(teacher_folder: Path) -> Encoder:
    return build_student(load_encoder(teacher_folder), StudentSpec(layers=2, width=16), 1).eval()


def vectors(model: Encoder, folder: Path) -> torch.Tensor:
    tokens = load_tokenizer(folder)(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        final: torch.Tensor = model(tokens["input_ids"], tokens["attention_mask"]).final
    return final


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("head", HEADS)
def test_export_and_reload(student: Encoder, teacher_folder: Path, tmp_path: Path, head: str, pooling: str) -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers")
    student.pooling = pooling  # type: ignore[assignment]
    student.head = HEADS[head] or nn.Identity()
    export(student, load_tokenizer(teacher_folder), tmp_path / "model", "# card\n")
    expected = vectors(student, teacher_folder)
    assert torch.equal(vectors(load_encoder(tmp_path / "model"), tmp_path / "model"), expected)
    theirs = sentence_transformers.SentenceTransformer(str(tmp_path / "model"), device="cpu").encode(TEXTS)
    torch.testing.assert_close(torch.from_numpy(theirs), expected, atol=1e-6, rtol=0)


def test_a_head_that_cannot_ship_is_refused(student: Encoder, teacher_folder: Path, tmp_path: Path) -> None:
    student.head = nn.Sequential(nn.Linear(16, 16), nn.LayerNorm(16))
    with pytest.raises(TypeError, match="not of LayerNorm"):
        export(student, load_tokenizer(teacher_folder), tmp_path / "model", "# card\n")
    assert not (tmp_path / "model").exists()


def test_plain_transformers_loads_the_backbone(student: Encoder, teacher_folder: Path, tmp_path: Path) -> None:
    from transformers import AutoModel

    export(student, load_tokenizer(teacher_folder), tmp_path / "model", "# card\n")
    backbone = AutoModel.from_pretrained(tmp_path / "model", add_pooling_layer=False)
    for name, value in student.backbone.state_dict().items():
        assert torch.equal(backbone.state_dict()[name], value)


def test_the_hash_follows_weights_tokenizer_and_structure(
    student: Encoder, teacher_folder: Path, tmp_path: Path
) -> None:
    tokenizer = load_tokenizer(teacher_folder)

    def hashes(name: str) -> dict[str, str]:
        export(student, tokenizer, tmp_path / name, f"# {name}\n")
        return StoredModel("same name", tmp_path / name).hashes()

    first = hashes("a")
    assert hashes("b") == first
    student.pooling = "cls"
    assert {key for key, value in hashes("c").items() if value != first[key]} == {"structure"}
    student.pooling = "mean"
    with torch.no_grad():
        next(student.parameters())[0, 0] += 1
    assert {key for key, value in hashes("d").items() if value != first[key]} == {"weights"}


def test_the_card_has_front_matter_and_provenance() -> None:
    card = model_card({"Teacher": "t", "Seed": 3})
    assert card.startswith("---\nlibrary_name: sentence-transformers\n")
    assert "| Seed | 3 |" in card
    assert "license:" not in card
    assert "its card states none" in card
    licensed = model_card({}, "apache-2.0")
    assert 'license: "apache-2.0"\n---\n' in licensed


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\nlanguage: en\nlicense: apache-2.0\n---\ntext", "apache-2.0"),
        ("---\nlicense: 'mit'\n---\n", "mit"),
        ("---\nlanguage: en\n---\nlicense: mit", None),
        ("license: mit", None),
        (None, None),
    ],
)
def test_the_licence_is_read_from_the_front_matter(card: str | None, licence: str | None, tmp_path: Path) -> None:
    if card is not None:
        (tmp_path / "README.md").write_text(card)
    assert licence_of(tmp_path) == licence


@pytest.fixture
def run_folder(student: Encoder, teacher_folder: Path, tmp_path: Path) -> Path:
    """A finished run's record and model, where a study leaves them."""
    stored = tmp_path / "cache" / "runs" / "abc"

    def write_model(folder: Path) -> None:
        export(student, load_tokenizer(teacher_folder), folder / "model", model_card({"Seed": 3}))

    write_sealed(stored, write_model)
    record = {
        **{name: {} for name in ("hyperparameters", "train")},
        "teacher": {"name": "t", "sha256": "0", "output_width": 24},
        "student": {"layers": 2, "width": 16, "output_width": 16, "parameters": 1000},
        "text": {"source": "text", "sentences": 3200, "sha256": "0"},
        "budget": {"currency": "steps", "amount": 50},
        **{"run_id": "abc", "study": "s", "role": "method", "label": "mse", "method": "mse", "status": "completed"},
        "seed": 3,
        "ledger": {"sentences": 3200, "steps": 50, "tuning_trials": 0, "seconds": {}},
        "tasks": {"STS12": {"type": "STS", "main_metric": "cosine_spearman", "data_sha256": "0", "precision": "fp32"}},
        "scores": {"STS12": {"main_score": 0.61234}},
        "identity": {"weights": StoredModel("x", stored / "model").hashes()["weights"]},
        "environment": {"mteb": "2.26", "torch": "2.0", "transformers": "5.0", "threads": 1}
        | {"platform": "Linux", "cpu": "a CPU", "device": "cpu"},
        "schema": 1,
    }
    write_sealed(tmp_path / "results" / "abc", lambda folder: dump_json(record, folder / "record.json"))
    return tmp_path / "results" / "abc"


def test_a_shipped_model_has_its_scores_on_its_card(run_folder: Path, tmp_path: Path) -> None:
    out = export_run(run_folder, tmp_path / "shipped", tmp_path / "cache")
    card = (out / "README.md").read_text()
    assert "| STS12 | cosine_spearman | 61.23 |" in card
    assert "3,200 sentences in 50 steps, seed 3" in card
    assert "- mse: " in card
    data = metadata_load(out / "README.md")
    assert data["tags"][-1] == "distilbench" and "base_model" not in data and "datasets" not in data
    assert data["model-index"][0]["name"] == "s-mse-seed-3"
    (result,) = data["model-index"][0]["results"]
    assert (result["task"], result["dataset"]["name"]) == ({"type": "STS"}, "STS12")
    assert result["metrics"] == [{"type": "cosine_spearman", "value": 61.23}]
    model = tmp_path / "cache" / "runs" / "abc" / "model"
    assert torch.equal(vectors(load_encoder(out), out), vectors(load_encoder(model), model))
    with pytest.raises(UserError, match="is taken"):
        export_run(run_folder, out, tmp_path / "cache")


def test_only_the_scored_model_is_shipped(run_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no run's folder"):
        export_run(tmp_path, tmp_path / "out", tmp_path / "cache")
    with pytest.raises(UserError, match="is not in the cache"):
        export_run(run_folder, tmp_path / "out", tmp_path / "another")
    with (tmp_path / "cache" / "runs" / "abc" / "model" / "config.json").open("a") as stream:
        stream.write(" ")
    with pytest.raises(UserError, match=r"config\.json is not as it was written"):
        export_run(run_folder, tmp_path / "out", tmp_path / "cache")
    assert not (tmp_path / "out").exists()
