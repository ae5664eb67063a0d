"""The network: a small decoder-only transformer, to be read from top to bottom.

It is the Parameter Golf baseline: RMS norms without weights, rotary attention with grouped
key/value heads and a learned gain a head, a squared-ReLU feed-forward, learned per-channel scales
on every write, a mix of the embedding into every block, and skips from the first half of the
blocks to the second. Parameters carry the official key names, so official weights load as they are.

Letters: ``B`` rows of a batch, ``T`` positions, ``C`` channels (d_model), ``H`` query heads,
``K`` key/value heads, ``D`` channels of a head, ``V`` vocabulary.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from workbench.model.config import ModelConfig
from workbench.model.value_residual import ValueResidual

Tap = Callable[[str, Tensor], Tensor]

QUERY_GAIN_INIT = 1.5
TIED_EMBEDDING_STD = 0.005


@dataclass(frozen=True)
class Matrix:
    """A two-dimensional weight and its place."""

    name: str
    block: int  # -1: outside the blocks
    role: str
    weight: Tensor  # (rows, columns), rows are outputs


def rms_norm(x: Tensor) -> Tensor:
    """Scale the last dim to root mean square 1; no learned weight."""
    return F.rms_norm(x, (x.shape[-1],))


def untouched(site: str, tensor: Tensor) -> Tensor:
    """Let a tensor pass a site: the tap of a model that nobody watches."""
    return tensor


class Rotary(nn.Module):
    """Rotary position embedding in the half-split layout, turning by minus the angle."""

    def __init__(self, d_head: int, base: float) -> None:
        super().__init__()
        exponent = torch.arange(0, d_head, 2, dtype=torch.float32) / d_head
        self.frequency: Tensor
        self.register_buffer("frequency", 1.0 / base**exponent, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Rotate ``(B, H, T, D)``."""
        position = torch.arange(x.shape[-2], device=x.device, dtype=torch.float32)
        angle = torch.outer(position, self.frequency)  # (T, D / 2)
        cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
        first, second = x.chunk(2, dim=-1)
        return torch.cat([first * cos + second * sin, second * cos - first * sin], dim=-1)


class Attention(nn.Module):
    """Causal attention with normalised queries and keys and grouped key/value heads."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.n_head, self.n_kv_head = config.n_head, config.n_kv_head
        self.c_q = nn.Linear(config.d_model, config.d_model, bias=False)
        self.c_k = nn.Linear(config.d_model, config.d_key_value, bias=False)
        self.c_v = nn.Linear(config.d_model, config.d_key_value, bias=False)
        self.proj = nn.Linear(config.d_model, config.d_model, bias=False)
        self.q_gain = nn.Parameter(torch.full((config.n_head,), QUERY_GAIN_INIT))
        self.rotary = Rotary(config.d_head, config.rope_base)

    def value(self, x: Tensor) -> Tensor:
        """Return this visit's own value, ``(B, K, T, D)``."""
        return _heads(self.c_v(x), self.n_kv_head)

    def forward(self, x: Tensor, value: Tensor, *, tap: Tap, at: str) -> Tensor:
        """Attend from ``x`` (B, T, C) over ``value`` (B, K, T, D); return (B, T, C)."""
        query = self.rotary(rms_norm(_heads(self.c_q(x), self.n_head)))
        query = tap(f"{at}.query", query * self.q_gain.to(query.dtype)[:, None, None])
        key = tap(f"{at}.key", self.rotary(rms_norm(_heads(self.c_k(x), self.n_kv_head))))
        mixed = F.scaled_dot_product_attention(
            query, key, value.to(query.dtype), is_causal=True, enable_gqa=True
        )
        mixed = tap(f"{at}.head_out", mixed)  # (B, H, T, D)
        return self.proj(mixed.transpose(1, 2).reshape(x.shape))


class FeedForward(nn.Module):
    """Two matrices around a squared ReLU."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.fc = nn.Linear(config.d_model, config.d_feedforward, bias=False)
        self.proj = nn.Linear(config.d_feedforward, config.d_model, bias=False)

    def forward(self, x: Tensor, *, tap: Tap, at: str) -> Tensor:
        """Map (B, T, C) to (B, T, C)."""
        return self.proj(tap(f"{at}.feedforward_hidden", F.relu(self.fc(x)).square()))


class Block(nn.Module):
    """Attention and feed-forward, each written into the stream through a learned scale."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        d_model = config.d_model
        self.attn = Attention(config)
        self.mlp = FeedForward(config)
        self.attn_scale = nn.Parameter(torch.ones(d_model))
        self.mlp_scale = nn.Parameter(torch.ones(d_model))
        self.resid_mix = nn.Parameter(torch.stack([torch.ones(d_model), torch.zeros(d_model)]))

    def forward(
        self,
        x: Tensor,
        embedding: Tensor,
        mix_value: Callable[[Tensor], Tensor],
        *,
        tap: Tap,
        at: str,
    ) -> Tensor:
        """Visit this block once: (B, T, C) to (B, T, C)."""
        mix = self.resid_mix.to(x.dtype)
        x = tap(f"{at}.residual_in", mix[0] * x + mix[1] * embedding)
        normed = rms_norm(x)
        value = mix_value(tap(f"{at}.value_own", self.attn.value(normed)))
        write = self.attn_scale.to(x.dtype) * self.attn(normed, value, tap=tap, at=at)
        x = x + tap(f"{at}.attention_out", write)
        write = self.mlp_scale.to(x.dtype) * self.mlp(rms_norm(x), tap=tap, at=at)
        return x + tap(f"{at}.feedforward_out", write)


class Network(nn.Module):
    """Token ids to next-token logits.

    Sites (see `sites`) are the named places where `record` can read or replace a tensor.
    """

    VISIT_SITES = (
        "residual_in",  # (B, T, C) stream after skip and embedding mix
        "value_own",  # (B, K, T, D) value before an earlier one is mixed in
        "value",  # (B, K, T, D) as attended to, and as later visits see it
        "query",  # (B, H, T, D) after norm, rotation and gain
        "key",  # (B, K, T, D) after norm and rotation
        "head_out",  # (B, H, T, D) what each head read, before it is projected into the stream
        "attention_out",  # (B, T, C) as written into the stream
        "feedforward_hidden",  # (B, T, F) after the squared ReLU
        "feedforward_out",  # (B, T, C) as written into the stream
    )

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.tok_emb = nn.Embedding(config.vocab_size, config.d_model)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.skip_weights = nn.Parameter(torch.ones(config.n_skip, config.d_model))
        if config.value_residual is not None:
            self.value_residual = ValueResidual(config.value_residual, config.n_layer)
        if not config.tie_embeddings:
            self.lm_head = nn.Linear(config.d_model, config.vocab_size, bias=False)
        if config.output_bias:
            self.lm_bias = nn.Parameter(torch.zeros(config.vocab_size))
        self.tap: Tap = untouched

    def sites(self) -> tuple[str, ...]:
        """List the names of all sites in order of execution."""
        visits = range(self.config.n_layer)
        inner = [f"visit.{visit}.{name}" for visit in visits for name in self.VISIT_SITES]
        return ("embedding", *inner, "residual_out", "final_norm", "logits")

    def matrices(self) -> list[Matrix]:
        """List every matrix with its block and role, the embedding first."""
        found = [Matrix("embedding", -1, "embedding", self.tok_emb.weight)]
        for number, block in enumerate(self.blocks):
            assert isinstance(block, Block)
            weights = {
                "query": block.attn.c_q,
                "key": block.attn.c_k,
                "value": block.attn.c_v,
                "attention_out": block.attn.proj,
                "feedforward_in": block.mlp.fc,
                "feedforward_out": block.mlp.proj,
            }
            found += [
                Matrix(f"block.{number}.{role}", number, role, layer.weight)
                for role, layer in weights.items()
            ]
        if not self.config.tie_embeddings:
            found.append(Matrix("head", -1, "head", self.lm_head.weight))
        return found

    @property
    def head_weight(self) -> Tensor:
        """Output head, (V, C); the embedding itself when tied."""
        return self.tok_emb.weight if self.config.tie_embeddings else self.lm_head.weight

    @property
    def output_bias(self) -> Tensor | None:
        """Logit offset a token, (V,), or None."""
        return self.lm_bias if self.config.output_bias else None

    def forward(self, ids: Tensor) -> Tensor:
        """Return logits (B, T, V) for ids (B, T)."""
        return self.head(self.hidden(ids))

    def hidden(self, ids: Tensor) -> Tensor:
        """Run the trunk: ids (B, T) to the normalised hidden state (B, T, C)."""
        tap = self.tap
        x = embedding = tap("embedding", rms_norm(self.tok_emb(ids)))
        skips: list[Tensor] = []
        values: list[Tensor] = []
        for visit, block in enumerate(self.blocks):
            if visit >= self.config.n_encoder and skips:
                weight = self.skip_weights[visit - self.config.n_encoder].to(x.dtype)
                x = x + weight * skips.pop()
            mix = self._value_mix(visit, values)
            x = block(x, embedding, mix, tap=tap, at=f"visit.{visit}")
            if visit < self.config.n_encoder:
                skips.append(x)
        return tap("final_norm", rms_norm(tap("residual_out", x)))

    def head(self, hidden: Tensor) -> Tensor:
        """Turn hidden states (..., C) into logits (..., V), bounded by the softcap."""
        z = F.linear(hidden, self.head_weight.to(hidden.dtype))
        if self.config.output_bias:
            z = z + self.lm_bias.to(z.dtype)
        cap = self.config.softcap
        return self.tap("logits", cap * torch.tanh(z / cap))

    def _value_mix(self, visit: int, values: list[Tensor]) -> Callable[[Tensor], Tensor]:
        """Return what this visit does to its own value; `values` remembers earlier ones."""

        def mix(value: Tensor) -> Tensor:
            if self.config.value_residual is not None and visit > 0:
                first = self.config.value_residual.source == "first"
                value = self.value_residual(value, values[0] if first else values[-1], visit)
            values.append(self.tap(f"visit.{visit}.value", value))
            return values[-1]

        return mix


def _heads(x: Tensor, n_head: int) -> Tensor:
    """Split channels into heads: (B, T, H * D) to (B, H, T, D)."""
    return x.unflatten(-1, (n_head, -1)).transpose(1, 2)


def new_network(config: ModelConfig, *, seed: int) -> Network:
    """Make a network with fresh weights, drawn from `seed` alone.

    Matrices are uniform within ``1 / sqrt(columns)``, except those that write into the stream and
    an untied head, which are zero: at step 0 every block is the identity.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):  # torch's layers draw from the global generator
        network = Network(config)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name == "tok_emb.weight":
                std = TIED_EMBEDDING_STD if config.tie_embeddings else 1.0
                parameter.normal_(0.0, std, generator=generator)
            elif name.endswith("proj.weight") or name == "lm_head.weight":
                parameter.zero_()
            elif parameter.ndim == 2 and name.startswith("blocks.") and "resid_mix" not in name:
                bound = parameter.shape[1] ** -0.5
                parameter.uniform_(-bound, bound, generator=generator)
    return network


def n_parameter(config: ModelConfig) -> int:
    """Forecast the number of parameters without allocating them.

    Examples
    --------
    >>> n_parameter(ModelConfig())
    17059912
    """
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in Network(config).parameters())
