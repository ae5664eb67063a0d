"""Small causal language models to be adapted in tests: of transformers, and of plain PyTorch."""

import torch
import torch.nn.functional as F
import transformers
from torch import nn

KINDS = ("gpt2", "llama", "gpt_neox", "gemma2")
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 257}
FIELDS = {
    "gpt2": {"n_positions": 64},  # fused queries, keys and values, matrices kept the other way
    "llama": {"intermediate_size": 24, "num_key_value_heads": 2},
    "gpt_neox": {"intermediate_size": 24, "hidden_act": "gelu"},  # parallel residual
    "gemma2": {  # norms after the writes, softcap, heads wider than the stream
        "intermediate_size": 24,
        "num_key_value_heads": 2,
        "head_dim": 6,
        "final_logit_softcapping": 3.0,
    },
}


def foreign_model(kind: str, **fields: object) -> torch.nn.Module:
    """Make a model of two blocks in evaluation mode; every parameter is random, norms too."""
    given = {**SIZES, **FIELDS.get(kind, {}), **fields}
    ends = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": None}
    config = transformers.AutoConfig.for_model(kind, **given, **ends)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_config(config)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                away = 1.0 if parameter.ndim == 1 and name.endswith("norm.weight") else 0.0
                parameter.normal_(away, 0.2)
    return model.eval()


class FusedAttention(nn.Module):
    """Queries, keys and values of one matrix; torch's own attention, given by position."""

    def __init__(self, width, n_head):
        super().__init__()
        self.n_head = n_head
        self.c_attn = nn.Linear(width, 3 * width)
        self.c_proj = nn.Linear(width, width)

    def forward(self, x):
        parts = self.c_attn(x).split(x.shape[-1], dim=-1)
        query, key, value = (_heads(each, self.n_head) for each in parts)
        mixed = F.scaled_dot_product_attention(query, key, value, None, 0.0, True)
        return self.c_proj(mixed.transpose(1, 2).flatten(2))


class WrittenAttention(nn.Module):
    """Three matrices and a softmax written out; the matrix that is used last is declared first."""

    def __init__(self, width, n_head):
        super().__init__()
        self.n_head = n_head
        self.proj = nn.Linear(width, width)
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))

    def forward(self, x):
        parts = self.query(x), self.key(x), self.value(x)
        query, key, value = (_heads(each, self.n_head) for each in parts)
        scores = query @ key.mT / query.shape[-1] ** 0.5
        later = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
        mixed = scores.masked_fill(later, -torch.inf).softmax(dim=-1) @ value
        return self.proj(mixed.transpose(1, 2).flatten(2))


class Block(nn.Module):
    def __init__(self, attention, width, n_head):
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = attention(width, n_head)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width), nn.Dropout(0.1)
        )

    def forward(self, x):
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class PlainModel(nn.Module):
    """A model as people write it after nanoGPT: without targets, logits of the last place alone."""

    def __init__(
        self, attention=FusedAttention, *, is_tied=True, n_head=4, width=16, rows=257, length=32
    ):
        super().__init__()
        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Embedding(rows, width),
                "wpe": nn.Embedding(length, width),
                "h": nn.ModuleList(Block(attention, width, n_head) for _ in range(2)),
                "ln_f": nn.LayerNorm(width),
            }
        )
        self.lm_head = nn.Linear(width, rows, bias=False)
        if is_tied:
            self.lm_head.weight = self.transformer.wte.weight

    def trunk(self, ids):
        x = self.transformer.wte(ids) + self.transformer.wpe(torch.arange(ids.shape[1]))
        for block in self.transformer.h:
            x = block(x)
        return self.transformer.ln_f(x)

    def forward(self, ids, targets=None):
        x = self.trunk(ids)
        if targets is None:
            return self.lm_head(x[:, [-1]]), None
        logits = self.lm_head(x)
        return logits, F.cross_entropy(logits.flatten(0, 1), targets.flatten())


class EveryPlace(PlainModel):
    """The same, with logits of every place alone."""

    def forward(self, ids):
        return self.lm_head(self.trunk(ids))


def plain_model(kind="fused", **fields):
    """Make a model of two blocks in evaluation mode: `fused`, or `written` and not tied."""
    attention = {"fused": FusedAttention, "written": WrittenAttention}[kind]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = PlainModel(attention, is_tied=kind == "fused", **fields)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.normal_(float("ln_" in name and name.endswith("weight")), 0.2)
    return model.eval()


def _heads(x, n_head):
    """Split channels into heads: (B, T, C) to (B, H, T, D)."""
    return x.unflatten(-1, (n_head, -1)).transpose(1, 2)
