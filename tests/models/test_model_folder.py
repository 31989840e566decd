"""Settings of model folders: each is honoured as sentence-transformers honours it, or refused by name."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from transformers import AutoConfig, AutoModel, AutoTokenizer

from distilbench.core.errors import UserError
from distilbench.data.tokenizer import load_tokenizer
from distilbench.models.embed import embed
from distilbench.models.export import export
from distilbench.models.model_folder import StoredModel, load_encoder
from tests.conftest import Cli

NOUNS = ("tree", "stone") * 9
LONG = " ".join(f"the {colour} dog sees a small {noun}" for colour in ("red", "old") for noun in NOUNS)
TEXTS = ["the dog", "The Old House", "", LONG, "a bird sings under the tree"]
SETTINGS = "sentence_bert_config.json"


def change(folder: Path, name: str, **values: Any) -> None:
    """Set keys of a JSON file; None takes one out."""
    path = folder / name
    stored = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    kept = {key: value for key, value in {**stored, **values}.items() if value is not None}
    path.write_text(json.dumps(kept), encoding="utf-8")


@pytest.fixture
def folder(teacher_folder: Path, tmp_path: Path) -> Path:
    shutil.copytree(teacher_folder, tmp_path / "model")
    return tmp_path / "model"


def ours(folder: Path, texts: list[str] | None = None) -> np.ndarray[Any, Any]:
    return embed(load_encoder(folder), load_tokenizer(folder), texts or TEXTS)


def theirs(folder: Path, texts: list[str] | None = None) -> np.ndarray[Any, Any]:
    vectors: np.ndarray[Any, Any] = SentenceTransformer(str(folder), device="cpu").encode(texts or TEXTS)
    return vectors


def shorter_by_an_old_name(folder: Path) -> None:
    (folder / SETTINGS).rename(folder / "sentence_roberta_config.json")
    change(folder, "sentence_roberta_config.json", max_seq_length=9)


def saved_anew(folder: Path) -> None:
    change(folder, SETTINGS, max_seq_length=12)
    model = SentenceTransformer(str(folder), device="cpu")
    model.save(str(folder))
    assert "max_seq_length" not in json.loads((folder / SETTINGS).read_text(encoding="utf-8"))


def with_tokenizer(folder: Path, **parts: Any) -> None:
    """Replace parts of the tokenizer, which is then loaded as it is written."""
    stored = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    (folder / "tokenizer.json").write_text(json.dumps({**stored, **parts}), encoding="utf-8")
    change(folder, "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")


def cased(folder: Path) -> None:
    with_tokenizer(folder, normalizer=None)


def cased_and_lowered(folder: Path) -> None:
    cased(folder)
    change(folder, SETTINGS, do_lower_case=True)


def in_a_folder_of_its_own(folder: Path) -> None:
    """The layout of sentence-transformers 0.x: versions at the top, the transformer below."""
    (folder / "0_Transformer").mkdir()
    for path in list(folder.iterdir()):
        if path.is_file() and path.name != "modules.json":
            path.rename(folder / "0_Transformer" / path.name)
    (folder / "config.json").write_text(json.dumps({"__version__": "0.2.6"}), encoding="utf-8")
    modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
    modules[0]["path"] = "0_Transformer"
    (folder / "modules.json").write_text(json.dumps(modules), encoding="utf-8")


def in_two_files(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(weights)
    places: dict[str, str] = {}
    for number, part in enumerate((names[::2], names[1::2]), 1):
        file = f"model-{number:05}-of-00002.safetensors"
        save_file({name: weights[name] for name in part}, folder / file, {"format": "pt"})
        places |= dict.fromkeys(part, file)
    index = {"metadata": {"total_size": 1}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")


def in_an_old_format_too(folder: Path) -> None:
    in_two_files(folder)
    (folder / "pytorch_model.bin").write_bytes(b"a pickle")
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": {"x": "pytorch_model.bin"}}))


def cased_by_its_class_and_lowered(folder: Path) -> None:
    """A tokenizer whose class builds its normaliser anew, whatever tokenizer.json says."""
    change(folder, "tokenizer_config.json", do_lower_case=False)
    change(folder, SETTINGS, do_lower_case=True)


def with_a_default_prompt(folder: Path) -> None:
    change(folder, "config_sentence_transformers.json", prompts={"q": "who sees "}, default_prompt_name="q")


HONOURED: dict[str, Callable[[Path], None]] = {
    "an old name of the settings": shorter_by_an_old_name,
    "saved by the installed version": saved_anew,
    "a cased tokenizer": cased,
    "a cased tokenizer of lower-cased texts": cased_and_lowered,
    "a cased class of lower-cased texts": cased_by_its_class_and_lowered,
    "the layout of the first versions": in_a_folder_of_its_own,
    "weights in two files": in_two_files,
    "weights in an old format too": in_an_old_format_too,
    "a default prompt": with_a_default_prompt,
}

SAME = (
    "a cased tokenizer of lower-cased texts",
    "a cased class of lower-cased texts",
    "the layout of the first versions",
    "weights in two files",
    "weights in an old format too",
)


@pytest.mark.parametrize("how", HONOURED)
def test_vectors_are_those_of_sentence_transformers(folder: Path, how: str) -> None:
    before = theirs(folder)
    HONOURED[how](folder)
    np.testing.assert_allclose(ours(folder), theirs(folder), atol=1e-5, rtol=0)
    same = how in SAME
    assert np.allclose(before, theirs(folder), atol=1e-5) == same


@pytest.mark.parametrize("how", HONOURED)
def test_what_is_honoured_is_exported(folder: Path, tmp_path: Path, how: str) -> None:
    HONOURED[how](folder)
    export(load_encoder(folder), load_tokenizer(folder), tmp_path / "exported", "# card\n")
    np.testing.assert_allclose(theirs(tmp_path / "exported"), theirs(folder), atol=1e-5, rtol=0)


@pytest.mark.parametrize("how", HONOURED)
def test_what_is_honoured_is_in_the_hash(folder: Path, how: str) -> None:
    before = StoredModel("m", folder).hashes()
    HONOURED[how](folder)
    assert StoredModel("m", folder).hashes() != before


def test_the_weight_index_is_in_the_hash(folder: Path) -> None:
    """Which file a weight is read from decides the model, though no file of weights changes."""
    in_two_files(folder)
    before = StoredModel("m", folder).hashes()
    index = folder / "model.safetensors.index.json"
    stored = json.loads(index.read_text(encoding="utf-8"))
    stored["weight_map"] = dict(reversed(stored["weight_map"].items()))
    index.write_text(json.dumps(stored), encoding="utf-8")
    assert StoredModel("m", folder).hashes()["weights"] != before["weights"]


POOLINGS = ["cls", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken", ("cls", "mean"), ("mean", "max", "cls")]


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("mode", POOLINGS, ids=str)
def test_every_pooling_on_either_side(folder: Path, tmp_path: Path, mode: Any, side: str) -> None:
    from sentence_transformers.sentence_transformer.modules import Pooling

    plain = SentenceTransformer(str(folder), device="cpu")
    plain.tokenizer.padding_side = side
    SentenceTransformer(modules=[plain[0], Pooling(24, mode)], device="cpu").save(str(tmp_path / "made"))
    made = tmp_path / "made"
    np.testing.assert_allclose(ours(made), theirs(made), atol=1e-5, rtol=0)
    export(load_encoder(made), load_tokenizer(made), tmp_path / "exported", "# card\n")
    np.testing.assert_allclose(theirs(tmp_path / "exported"), theirs(made), atol=1e-5, rtol=0)


def roberta(folder: Path, positions: int) -> None:
    """A plain transformer, two of whose positions are not for tokens."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    config = AutoConfig.for_model(
        "roberta",
        vocab_size=max(tokenizer.get_vocab().values()) + 1,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=positions,
        pad_token_id=1,
    )
    shutil.rmtree(folder)
    tokenizer.model_max_length = 10**6
    AutoModel.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def test_texts_are_cut_at_the_positions_that_are_for_tokens(folder: Path) -> None:
    roberta(folder, 34)
    assert load_encoder(folder).max_length == 32
    loaded = SentenceTransformer(str(folder), device="cpu")
    loaded.max_seq_length = 32
    np.testing.assert_allclose(ours(folder), loaded.encode(TEXTS), atol=1e-5, rtol=0)


def test_a_text_without_a_token_has_a_vector(folder: Path) -> None:
    """Of a tokenizer without special tokens; the mean of nothing is zero, as in sentence-transformers."""
    with_tokenizer(folder, post_processor=None)
    expected = theirs(folder, ["", "the dog"])
    np.testing.assert_allclose(ours(folder, ["", "the dog"]), expected, atol=1e-5, rtol=0)
    assert not expected[0].any()
    assert not ours(folder, [""]).any()


def more_tokens(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<one>", "<two>"])
    tokenizer.save_pretrained(folder)


def another_index(**weight_map: str) -> Callable[[Path], None]:
    def made(folder: Path) -> None:
        in_two_files(folder)
        index = folder / "model.safetensors.index.json"
        stored = json.loads(index.read_text(encoding="utf-8"))
        stored["weight_map"] |= weight_map
        index.write_text(json.dumps(stored), encoding="utf-8")

    return made


def modules_of(*kinds: str) -> Callable[[Path], None]:
    def made(folder: Path) -> None:
        (folder / "modules.json").write_text(
            json.dumps([{"idx": n, "name": str(n), "path": "", "type": kind} for n, kind in enumerate(kinds)])
        )

    return made


def pooled(**settings: Any) -> Callable[[Path], None]:
    return lambda folder: change(folder / "1_Pooling", "config.json", **settings)


def settled(name: str = SETTINGS, **settings: Any) -> Callable[[Path], None]:
    return lambda folder: change(folder, name, **settings)


def without_prompt_in_the_mean(folder: Path) -> None:
    change(folder, "config_sentence_transformers.json", prompts={"query": "who sees "})
    change(folder / "1_Pooling", "config.json", include_prompt=False)


OWN_CODE = {"model_type": "own", "auto_map": {"AutoConfig": "own.Own"}}
OURS, THEIRS = "sentence_transformers.models.Transformer", "sentence_transformers.models.Pooling"
REFUSED: Mapping[str, tuple[Callable[[Path], None], str]] = {
    "more tokens than vectors": (
        more_tokens,
        r"no vector, such as '<two>'; call resize_token_embeddings\(104\)",
    ),
    "weights outside": (another_index(x="../outside.safetensors"), r"names \.\./outside\.safetensors, which is no"),
    "weights in a pickle": (another_index(x="model.bin"), r"names model\.bin, which is no \.safetensors"),
    "weights that are not there": (another_index(x="model-3.safetensors"), r"model-3\.safetensors, which is not there"),
    "longer than its positions": (settled(max_seq_length=70), "max_seq_length 70, but the model takes 64 tokens"),
    "a length in words": (settled(max_seq_length="long"), "max_seq_length 'long'; give a number"),
    "the length of queries": (settled(query_length=9), "sets query_length"),
    "another task": (settled(transformer_task="fill-mask"), "sets transformer_task"),
    "another distance": (settled("config_sentence_transformers.json", similarity_fn_name="euclidean"), "euclidean"),
    "a pooling of its own": (pooled(pooling_mode_odd=True), "asks for odd pooling"),
    "no prompt in the mean": (without_prompt_in_the_mean, "leaves the prompt out of the pooling"),
    "an adapter": (settled("adapter_config.json", peft_type="LORA"), "is an adapter"),
    "code of its own": (
        settled("config.json", model_type="own", auto_map={"AutoConfig": "own.Own"}),
        "code of its own",
    ),
    "a first module of its own": (modules_of("own.Encoder", THEIRS), r"has a own\.Encoder module"),
    "prompts in a list": (
        settled("config_sentence_transformers.json", prompts=["a"]),
        "settings in .* are not readable",
    ),
    "a prompt that is a number": (settled("config_sentence_transformers.json", prompts={"query": 3}), "are no text"),
    "a pooling mode that is a number": (pooled(pooling_mode=3), "settings in .* are not readable"),
    "modalities in a list": (settled(modality_config=["text"]), "settings in .* are not readable"),
    "no pooling": (modules_of(OURS), "does not pool once"),
    "two poolings": (modules_of(OURS, THEIRS, THEIRS), "does not pool once"),
    "a router": (modules_of("sentence_transformers.models.Router"), "has a Router module"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_honoured_is_refused_by_name(folder: Path, what: str) -> None:
    breaks, expected = REFUSED[what]
    breaks(folder)
    with pytest.raises(UserError, match=expected):
        load_encoder(folder)


def test_a_similarity_of_lengths_is_honoured_and_exported(folder: Path, tmp_path: Path) -> None:
    change(folder, "config_sentence_transformers.json", similarity_fn_name="dot")
    export(load_encoder(folder), load_tokenizer(folder), tmp_path / "out", "# card\n")
    assert SentenceTransformer(str(tmp_path / "out"), device="cpu").similarity_fn_name == "dot"


def test_prompts_are_exported(folder: Path, tmp_path: Path) -> None:
    prompts = {"query": "who sees ", "document": ""}
    change(folder, "config_sentence_transformers.json", prompts=prompts, default_prompt_name="query")
    export(load_encoder(folder), load_tokenizer(folder), tmp_path / "out", "# card\n")
    loaded = SentenceTransformer(str(tmp_path / "out"), device="cpu")
    assert (loaded.prompts, loaded.default_prompt_name) == (prompts, "query")


@pytest.mark.parametrize("what", ["more tokens than vectors", "longer than its positions"])
def test_it_is_said_before_anything_is_planned(
    cli: Cli, study: Callable[..., Path], folder: Path, tmp_path: Path, what: str
) -> None:
    breaks, expected = REFUSED[what]
    breaks(folder)
    code, _, errors = cli("run", study(teacher=str(folder)), "--out", tmp_path / "results", "--dry-run")
    assert code == 2
    assert len(errors.strip().splitlines()) == 1
    assert re.search(expected, errors)


def test_vectors_do_not_depend_on_the_batch(folder: Path) -> None:
    together = ours(folder)
    torch.testing.assert_close(
        torch.from_numpy(np.concatenate([ours(folder, [text]) for text in TEXTS])), torch.from_numpy(together)
    )
