"""The network: a small decoder-only transformer, to be read from top to bottom.

By default it is the Parameter Golf baseline: RMS norms without weights, rotary attention with
grouped key/value heads and a learned gain a head, a squared-ReLU feed-forward, learned per-channel
scales on every write, a mix of the embedding into every block, and skips from the first half of
the blocks to the second. Parameters carry the official key names, so official weights load as they
are. Other fields of the configuration make it a Llama, a Qwen2 or a Qwen3: norms with weights, a
plain residual stream, a gated feed-forward, biases of queries, keys and values.

Letters: ``B`` rows of a batch, ``T`` positions, ``C`` channels (d_model), ``H`` query heads,
``K`` key/value heads, ``D`` channels of a head, ``V`` vocabulary.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from workbench.folder import InputError
from workbench.model.config import ModelConfig
from workbench.model.rotary import Rotary
from workbench.model.value_residual import ValueResidual

Tap = Callable[[str, Tensor], Tensor]

QUERY_GAIN_INIT = 1.5
TIED_EMBEDDING_STD = {"mixed": 0.005, "plain": 0.02}  # by kind of stream


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


class Norm(nn.Module):
    """RMS norm of the last dim; with a learned weight a channel where there is an eps."""

    def __init__(self, width: int, eps: float | None) -> None:
        super().__init__()
        self.eps = eps
        if eps is not None:
            self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``(..., width)``."""
        normed = F.rms_norm(x, (x.shape[-1],), eps=self.eps)
        return normed if self.eps is None else normed * self.weight.to(normed.dtype)


class Attention(nn.Module):
    """Causal attention with rotated queries and keys and grouped key/value heads."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.n_head, self.n_kv_head = config.n_head, config.n_kv_head
        has_bias = config.attention_bias
        self.c_q = nn.Linear(config.d_model, config.d_query, bias=has_bias)
        self.c_k = nn.Linear(config.d_model, config.d_key_value, bias=has_bias)
        self.c_v = nn.Linear(config.d_model, config.d_key_value, bias=has_bias)
        self.proj = nn.Linear(config.d_query, config.d_model, bias=False)
        self.is_gained = config.query_key == "gained"
        if self.is_gained:
            self.q_gain = nn.Parameter(torch.full((config.n_head,), QUERY_GAIN_INIT))
        eps = config.norm_eps if config.query_key == "learned" else None
        has_norm = config.query_key != "plain"
        self.q_norm = Norm(config.d_head, eps) if has_norm else nn.Identity()
        self.k_norm = Norm(config.d_head, eps) if has_norm else nn.Identity()
        self.rotary = Rotary(
            config.d_head,
            config.rope_base,
            direction=config.rope_direction,
            scaling=config.rope_scaling,
        )

    def value(self, x: Tensor) -> Tensor:
        """Return this visit's own value, ``(B, K, T, D)``."""
        return _heads(self.c_v(x), self.n_kv_head)

    def forward(self, x: Tensor, value: Tensor, *, tap: Tap, at: str) -> Tensor:
        """Attend from ``x`` (B, T, C) over ``value`` (B, K, T, D); return (B, T, C)."""
        query = self.rotary(self.q_norm(_heads(self.c_q(x), self.n_head)))
        if self.is_gained:
            query = query * self.q_gain.to(query.dtype)[:, None, None]
        query = tap(f"{at}.query", query)
        key = tap(f"{at}.key", self.rotary(self.k_norm(_heads(self.c_k(x), self.n_kv_head))))
        mixed = F.scaled_dot_product_attention(
            query, key, value.to(query.dtype), is_causal=True, enable_gqa=True
        )
        mixed = tap(f"{at}.head_out", mixed)  # (B, H, T, D)
        return self.proj(mixed.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """Two matrices around a squared ReLU, or three around a gate."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.is_gated = config.feedforward == "swiglu"
        self.fc = nn.Linear(config.d_model, config.d_feedforward, bias=False)
        if self.is_gated:
            self.gate = nn.Linear(config.d_model, config.d_feedforward, bias=False)
        self.proj = nn.Linear(config.d_feedforward, config.d_model, bias=False)

    def forward(self, x: Tensor, *, tap: Tap, at: str) -> Tensor:
        """Map (B, T, C) to (B, T, C)."""
        hidden = self.fc(x)
        hidden = F.silu(self.gate(x)) * hidden if self.is_gated else F.relu(hidden).square()
        return self.proj(tap(f"{at}.feedforward_hidden", hidden))


class Block(nn.Module):
    """Attention and feed-forward, each reading a norm of the stream and writing into it.

    In a mixed stream the embedding is mixed in first, and writes pass a learned scale a channel.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        d_model = config.d_model
        self.attn_norm = Norm(d_model, config.norm_eps)
        self.attn = Attention(config)
        self.mlp_norm = Norm(d_model, config.norm_eps)
        self.mlp = FeedForward(config)
        self.is_mixed = config.stream == "mixed"
        if self.is_mixed:
            self.attn_scale = nn.Parameter(torch.ones(d_model))
            self.mlp_scale = nn.Parameter(torch.ones(d_model))
            self.resid_mix = nn.Parameter(torch.tensor([[1.0], [0.0]]).expand(2, d_model).clone())

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
        if self.is_mixed:
            mix = self.resid_mix.to(x.dtype)
            x = mix[0] * x + mix[1] * embedding
        x = tap(f"{at}.residual_in", x)
        normed = self.attn_norm(x)
        value = mix_value(tap(f"{at}.value_own", self.attn.value(normed)))
        write = self.attn(normed, value, tap=tap, at=at)
        if self.is_mixed:
            write = self.attn_scale.to(x.dtype) * write
        x = x + tap(f"{at}.attention_out", write)
        write = self.mlp(self.mlp_norm(x), tap=tap, at=at)
        if self.is_mixed:
            write = self.mlp_scale.to(x.dtype) * write
        return x + tap(f"{at}.feedforward_out", write)


class Network(nn.Module):
    """Token ids to next-token logits.

    Sites (see `sites`) are the named places where `record` can read or replace a tensor.
    """

    VISIT_SITES = (
        "residual_in",  # (B, T, C) stream after skip and embedding mix
        "value_own",  # (B, K, T, D) value before an earlier one is mixed in
        "value",  # (B, K, T, D) as attended to, and as later visits see it
        "query",  # (B, H, T, D) after norm, rotation and gain, where there are such
        "key",  # (B, K, T, D) after norm and rotation
        "head_out",  # (B, H, T, D) what each head read, before it is projected into the stream
        "attention_out",  # (B, T, C) as written into the stream
        "feedforward_hidden",  # (B, T, F) after the squared ReLU or the gate
        "feedforward_out",  # (B, T, C) as written into the stream
    )

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        # Torch's own draw would be thrown away, and on the device "meta" its imports take seconds.
        empty = torch.empty(config.vocab_size, config.d_model)
        self.tok_emb = nn.Embedding.from_pretrained(empty, freeze=False)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.is_mixed = config.stream == "mixed"
        if self.is_mixed:
            self.skip_weights = nn.Parameter(torch.ones(config.n_skip, config.d_model))
        if config.value_residual is not None:
            self.value_residual = ValueResidual(config.value_residual, len(config.visits))
        if not config.tie_embeddings:
            self.lm_head = nn.Linear(config.d_model, config.vocab_size, bias=False)
        if config.output_bias:
            self.lm_bias = nn.Parameter(torch.zeros(config.vocab_size))
        self.final_norm = Norm(config.d_model, config.norm_eps)
        self.tap: Tap = untouched
        self.visits = self.order = config.visits  # of each visit its block; which visits run
        self.take_passes(config.passes)

    def sites(self) -> tuple[str, ...]:
        """List the names of all sites in order of execution."""
        inner = [f"visit.{visit}.{name}" for visit in self.order for name in self.VISIT_SITES]
        return ("embedding", *inner, "residual_out", "final_norm", "logits")

    def take_passes(self, passes: int) -> None:
        """Let blocks that recur run so many times from now on.

        Raises
        ------
        InputError
            If that is more often than the configuration has it.
        """
        if not 1 <= passes <= self.config.passes:
            expected, remedy = f"1 to {self.config.passes}", "Raise them in the model's recurrence."
            raise InputError("passes", expected=expected, found=str(passes), remedy=remedy)
        again, every = self.config.recurrence, range(len(self.visits))
        left_out = () if again is None else again.visits_after(passes)
        self.order = tuple(visit for visit in every if visit not in left_out)

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
            if self.config.feedforward == "swiglu":
                weights["feedforward_gate"] = block.mlp.gate
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
        embedding = self.tok_emb(ids)
        x = embedding = tap("embedding", rms_norm(embedding) if self.is_mixed else embedding)
        skips: list[Tensor] = []
        values: list[Tensor] = []
        for place, visit in enumerate(self.order, start=-(len(self.order) // 2)):
            if place >= 0 and skips:
                x = x + self.skip_weights[place].to(x.dtype) * skips.pop()
            block, mix = self.blocks[self.visits[visit]], self._value_mix(visit, values)
            x = block(x, embedding, mix, tap=tap, at=f"visit.{visit}")
            if self.is_mixed and place < 0:
                skips.append(x)
        return tap("final_norm", self.final_norm(tap("residual_out", x)))

    def head(self, hidden: Tensor) -> Tensor:
        """Turn hidden states (..., C) into logits (..., V)."""
        z = F.linear(hidden, self.head_weight.to(hidden.dtype))
        if self.config.output_bias:
            z = z + self.lm_bias.to(z.dtype)
        return self.tap("logits", self.capped(z))

    def capped(self, z: Tensor) -> Tensor:
        """Bound logits by the softcap, where there is one."""
        cap = self.config.softcap
        return z if cap is None else cap * torch.tanh(z / cap)

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
    an untied head, which are zero, as biases are: at step 0 every block is the identity.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):  # torch's layers draw from the global generator
        network = Network(config)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name == "tok_emb.weight":
                std = TIED_EMBEDDING_STD[config.stream] if config.tie_embeddings else 1.0
                parameter.normal_(0.0, std, generator=generator)
            elif name.endswith(("proj.weight", ".bias")) or name == "lm_head.weight":
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
