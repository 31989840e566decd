"""Small models with random weights, of every family of encoders that sentence-transformers loads by itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import nn

from tests.conftest import sentences

WIDTH, LAYERS, HEADS, KEYS, INNER, POSITIONS, VOCABULARY = 32, 4, 4, 2, 48, 96, 300
DEVIATION = 0.25
"""Of the weights: wide enough that a layer more or less changes vectors."""
SIZES = {
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "intermediate_size": INNER,
    "max_position_embeddings": POSITIONS,
}
GROUPED = {**SIZES, "num_key_value_heads": KEYS, "head_dim": WIDTH // HEADS}
T5 = {"d_model": WIDTH, "d_kv": 8, "d_ff": INNER, "num_layers": LAYERS, "num_heads": HEADS}
AROUND = {"cls_token": "<s>", "pad_token": "<pad>", "sep_token": "</s>", "unk_token": "<unk>", "mask_token": "<mask>"}


def wordpiece() -> Any:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return _trained(tokenizer, trainers.WordPieceTrainer, {**names, "mask_token": "[MASK]"})


def byte_pairs(*, around: bool) -> Any:
    """Bytes, with special tokens around a text, or none and padding on the left as decoders have it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    letters: dict[str, Any] = {"initial_alphabet": pre_tokenizers.ByteLevel.alphabet()}
    if not around:
        return _trained(tokenizer, trainers.BpeTrainer, {"pad_token": "<|endoftext|>"}, padding_side="left", **letters)
    return _trained(tokenizer, trainers.BpeTrainer, AROUND, **letters)


def unigram(*, around: bool = True) -> Any:
    """Pieces of words; around a text stand <s> and </s>, or only the latter as T5 has it."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    names = AROUND if around else {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    return _trained(tokenizer, trainers.UnigramTrainer, names, unk_token="<unk>")


def _trained(
    tokenizer: Any, trainer: Any, names: Mapping[str, str], padding_side: str = "right", **options: Any
) -> Any:
    special = list(names.values())
    texts = [*sentences(200), *(text.title() for text in sentences(20))]
    tokenizer.train_from_iterator(
        texts, trainer(vocab_size=VOCABULARY, special_tokens=special, show_progress=False, **options)
    )
    first, last = names.get("cls_token"), names.get("sep_token", names.get("eos_token"))
    if last is not None:
        template = " ".join(part for part in (first, "$A", last) if part)
        numbers = [(token, tokenizer.token_to_id(token)) for token in (first, last) if token]
        tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=numbers)
    return hf.PreTrainedTokenizerFast(tokenizer_object=tokenizer, padding_side=padding_side, **names)


@dataclass(frozen=True)
class Family:
    """One kind of transformer: its config, and the tokenizer that goes with it."""

    config: str
    tokenizer: Callable[[], Any]
    sizes: Mapping[str, Any] = field(default_factory=lambda: SIZES)
    pooling: str = "mean"
    model: str | None = None
    """Class, where it is not that which `AutoModel` takes."""

    def build(self, tokenizer: Any) -> Any:
        ids = {"pad_token_id": tokenizer.pad_token_id, "vocab_size": len(tokenizer)}
        config = getattr(hf, self.config)(**{**self.sizes, **ids, "initializer_range": DEVIATION})
        backbone = getattr(hf, self.model)(config) if self.model else hf.AutoModel.from_config(config)
        generator = torch.Generator().manual_seed(1)
        for name, weight in backbone.named_parameters():
            # Norms stay near one, so that states neither vanish nor grow.
            nn.init.normal_(
                weight, float(weight.detach().mean()) if "norm" in name.lower() else 0.0, DEVIATION, generator=generator
            )
        table = backbone.get_input_embeddings().weight
        with torch.no_grad():
            table[tokenizer.pad_token_id] = 0
        return backbone.eval()


def _decoder(**more: Any) -> dict[str, Any]:
    return {"sizes": {**GROUPED, **more}, "tokenizer": lambda: byte_pairs(around=False), "pooling": "lasttoken"}


SOME_LAYERS = ["sliding_attention", "full_attention", "sliding_attention", "full_attention"]
FAMILIES: dict[str, Family] = {
    "bert": Family("BertConfig", wordpiece),
    "roberta": Family("RobertaConfig", lambda: byte_pairs(around=True)),
    "xlm-roberta": Family("XLMRobertaConfig", unigram),
    "mpnet": Family("MPNetConfig", wordpiece),
    "distilbert": Family(
        "DistilBertConfig",
        wordpiece,
        {"dim": WIDTH, "n_layers": LAYERS, "n_heads": HEADS, "hidden_dim": INNER, "max_position_embeddings": POSITIONS},
    ),
    "electra": Family("ElectraConfig", wordpiece, {**SIZES, "embedding_size": 16}),
    "albert": Family("AlbertConfig", unigram, {**SIZES, "embedding_size": 16}),
    "deberta-v2": Family(
        "DebertaV2Config",
        unigram,
        {
            **SIZES,
            "relative_attention": True,
            "pos_att_type": ["p2c", "c2p"],
            "position_buckets": 16,
            "type_vocab_size": 0,
        },
    ),
    "mobilebert": Family(
        "MobileBertConfig",
        wordpiece,
        {**SIZES, "embedding_size": 16, "intra_bottleneck_size": 16, "num_feedforward_networks": 2},
    ),
    "modernbert": Family(
        "ModernBertConfig",
        lambda: byte_pairs(around=True),
        {**SIZES, "global_attn_every_n_layers": 3, "local_attention": 8},
    ),
    "nomic": Family("NomicBertConfig", wordpiece),
    "gte": Family("GteConfig", wordpiece),
    "eurobert": Family("EuroBertConfig", lambda: byte_pairs(around=True), GROUPED),
    "jina-v3": Family("JinaEmbeddingsV3Config", unigram),
    "t5": Family("T5Config", lambda: unigram(around=False), T5, model="T5EncoderModel"),
    "qwen2": Family("Qwen2Config", **_decoder()),
    "qwen3": Family("Qwen3Config", **_decoder()),
    "llama": Family("LlamaConfig", **_decoder()),
    "gemma3": Family(
        "Gemma3TextConfig",
        unigram,
        {**GROUPED, "layer_types": SOME_LAYERS, "sliding_window": 8, "use_bidirectional_attention": True},
    ),
}


def make_family(
    name: str,
    folder: Path,
    *,
    pooling: str | tuple[str, ...] | None = None,
    prompts: dict[str, str] | None = None,
    max_length: int = 40,
    dense: int | None = None,
    normalize: bool = False,
) -> Path:
    """A model of a family as sentence-transformers saves it."""
    family = FAMILIES[name]
    tokenizer = family.tokenizer()
    family.build(tokenizer).save_pretrained(folder / "plain")
    tokenizer.model_max_length = max_length
    tokenizer.save_pretrained(folder / "plain")
    chosen = pooling or family.pooling
    width = WIDTH * (1 if isinstance(chosen, str) else len(chosen))
    modules: list[nn.Module] = [Transformer(str(folder / "plain")), Pooling(WIDTH, chosen)]
    if dense:
        torch.manual_seed(2)
        modules.append(Dense(width, dense, activation_function=nn.Tanh()))
    if normalize:
        modules.append(Normalize())
    SentenceTransformer(modules=modules, prompts=prompts, device="cpu").save(str(folder / "model"))
    return folder / "model"
