"""Any causal language model of transformers with the surface that diagnostics use on a `Network`.

Its parts are found by what they do in one short pass, hardly by what they are called. Letters:
``B`` rows, ``T`` positions, ``C`` channels, ``H`` heads, ``D`` channels of a head, ``V``
vocabulary.
"""

import math
import re
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from itertools import combinations
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from workbench.folder import InputError
from workbench.model.config import ModelConfig
from workbench.model.network import Matrix, Network, Tap, untouched
from workbench.model.sites import record

ATTENDED = {"query": 0, "key": 1, "value_own": 2, "value": 2}  # site: argument of attention
ROLES = {  # of a matrix, by the name of its layer; another name is its own role
    "query": r"(w?q|query)(_proj|_lin)?",
    "key": r"(w?k|key)(_proj|_lin)?",
    "value": r"(w?v|value)(_proj|_lin)?",
    "feedforward_gate": r"(gate|w1)(_proj)?",
    "feedforward_in": r"up_proj|c_fc|fc1|fc_in|w3|dense_h_to_4h",
}
READERS = {"attention_out": "head_out", "feedforward_out": "feedforward_hidden"}  # role: its input
Seen = dict[nn.Module, tuple[Any, Any]]  # first tensor each module was given, and that it returned


def adapt(model: nn.Module) -> "Adapter":
    """Give a causal language model of transformers the surface of a `Network`.

    The model is used as it is, without a copy, and left as it is. Its `sites` are

    - the stream before and after every block, what heads read, what the last matrix of a
      feed-forward reads, and the logits;
    - both writes, where a block adds an attention and a feed-forward to its stream, one after the
      other or side by side, with or without norms behind them;
    - queries, keys and values, where attention is ``scaled_dot_product_attention`` with the usual
      scale and every position reads all before it: no window, no other mask;
    - ``final_norm``, where the head makes the logits of what its norm returns.

    A diagnostic that needs another says so. Fused matrices stay one, under their own name.

    Parameters
    ----------
    model : nn.Module
        What ``AutoModelForCausalLM`` returns, in evaluation mode.

    Raises
    ------
    InputError
        If it is in training mode, or has no list of blocks with an attention in each.
    """
    lists = {n: m for n, m in model.named_modules() if isinstance(m, nn.ModuleList)}
    outer = [m for n, m in lists.items() if not any(n.startswith(f"{o}.") for o in lists)]
    blocks = max(outer, key=len, default=nn.ModuleList())
    found, remedy = "", "Pass what AutoModelForCausalLM.from_pretrained(...) returns."
    if not (hasattr(model, "get_output_embeddings") and len(blocks) and all(map(_last, blocks))):
        found = f"{type(model).__name__}, without such blocks"
    elif model.training:
        found, remedy = "one in training mode, with dropout", "Call model.eval() before."
    if found:
        expected = "a causal language model of transformers in evaluation mode"
        raise InputError("model", expected=expected, found=found, remedy=remedy)
    return Adapter(model, blocks)


class Adapter(nn.Module):
    """A model behind the surface of a `Network`; made by `adapt`.

    Hooks stand on the model during a pass that is watched, and at no other time.
    """

    def __init__(self, network: Any, blocks: nn.ModuleList) -> None:
        super().__init__()
        self.network, self.blocks = network, blocks
        self.tap: Tap = untouched
        self.embedding = network.get_input_embeddings()
        self.unembedding: nn.Linear = network.get_output_embeddings()
        whole, attended = network.config.get_text_config(), next(iter(_last(blocks[0])))
        self.config = ModelConfig(  # of a foreign model it says the sizes alone
            n_layer=len(blocks),
            n_head=whole.num_attention_heads,
            n_kv_head=getattr(whole, "num_key_value_heads", None) or whole.num_attention_heads,
            d_model=self.head_weight.shape[1],
            head_width=_matrix(attended).shape[1] // whole.num_attention_heads,
            vocab_size=len(self.head_weight),
            tie_embeddings=self.head_weight is self.embedding.weight,
            output_bias=self.output_bias is not None,
            softcap=getattr(whole, "final_logit_softcapping", None),
            stream="plain",
        )
        self.longest: int = getattr(whole, "max_position_embeddings", 256)  # tokens of context
        self.places: dict[str, tuple[nn.Module, bool]] = {}  # site: module, and if it is its output
        self._find()

    @property
    def head_weight(self) -> Tensor:
        """Output head, (V, C)."""
        return self.unembedding.weight

    @property
    def output_bias(self) -> Tensor | None:
        """Logit offset a token, (V,), or None."""
        return self.unembedding.bias

    def sites(self) -> tuple[str, ...]:
        """List the names of the sites that this model has, in the order of a `Network`."""
        inner = [f"visit.{v}.{n}" for v in range(len(self.blocks)) for n in Network.VISIT_SITES]
        known = self.attended | self.places.keys() | {"logits"}
        every = ("embedding", *inner, "residual_out", "final_norm", "logits")
        return tuple(site for site in every if site in known)

    def matrices(self) -> list[Matrix]:
        """List every matrix of the blocks with its role, the embedding first."""
        found = [Matrix("embedding", -1, "embedding", self.embedding.weight)]
        for number, block in enumerate(self.blocks):
            for name, layer in _linears(block).items():
                last = name.rpartition(".")[2]
                named = next((r for r, names in ROLES.items() if re.fullmatch(names, last)), last)
                role = _last(block).get(layer, named)
                found.append(Matrix(f"block.{number}.{role}", number, role, _matrix(layer)))
        if not self.config.tie_embeddings:
            found.append(Matrix("head", -1, "head", self.head_weight))
        return found

    def forward(self, ids: Tensor) -> Tensor:
        """Return logits (B, T, V) for ids (B, T)."""
        with ExitStack() as stack:
            if self.tap is not untouched:
                stack.enter_context(_Attended(self.tap))
                for site, (module, is_output) in self.places.items():
                    stack.enter_context(_hook(module, is_output, partial(self._pass, site)))
            return self.tap("logits", self.network(input_ids=ids, use_cache=False).logits)

    def hidden(self, ids: Tensor) -> Tensor:
        """Run the trunk: ids (B, T) to the normalised hidden state (B, T, C)."""
        with record(self, ["final_norm"]) as seen:  # type: ignore[arg-type]
            self(ids)
        return seen["final_norm"]

    def head(self, hidden: Tensor) -> Tensor:
        """Turn hidden states (..., C) into logits (..., V)."""
        return self.tap("logits", self.capped(self.unembedding(hidden)))

    def capped(self, z: Tensor) -> Tensor:
        """Bound logits by the softcap, where there is one."""
        cap = self.config.softcap
        return z if cap is None else cap * torch.tanh(z / cap)

    def _pass(self, site: str, x: Tensor) -> Tensor:
        """Show the tap what passes a site; what heads read is split into heads for it."""
        if not site.endswith("head_out"):
            return self.tap(site, x)
        heads = x.unflatten(-1, (self.config.n_head, -1)).transpose(1, 2)
        return self.tap(site, heads).transpose(1, 2).flatten(2)

    def _find(self) -> None:
        """Learn from one short pass where the sites are."""
        seen: Seen = {}

        def note(module: nn.Module, args: tuple[Any, ...], more: dict[str, Any], out: Any) -> None:
            pair = _first((*args, *more.values())), _first(out)
            seen[module] = (None, None) if module in seen else pair  # one place, one site

        ids = torch.arange(4, device=self.head_weight.device)[None] % self.config.vocab_size
        with ExitStack() as stack, torch.no_grad():
            attention = stack.enter_context(_Attended(untouched))
            for module in self.network.modules():
                stack.enter_context(module.register_forward_hook(note, with_kwargs=True))
            logits = self(ids)
        self.attended = set() if _is_windowed(self.network.config) else attention.sites
        for visit, block in enumerate(self.blocks):
            found = _places(block, seen)
            self.places |= {f"visit.{visit}.{site}": place for site, place in found.items()}
        self.places |= {"embedding": (self.embedding, True), "residual_out": (block, True)}
        given = seen[self.unembedding][0]
        for norm in [
            m for m, (_, out) in seen.items() if _equal(out, given) and not [*m.children()]
        ]:
            if _equal(self.head(norm(seen[block][1])), logits):
                self.final_norm = norm
                self.places["final_norm"] = self.unembedding, False


class _Attended(TorchFunctionMode):
    """Show a tap what each call of plain causal attention is given, by visit."""

    def __init__(self, tap: Tap) -> None:
        super().__init__()
        self.tap, self.visit = tap, -1
        self.sites: set[str] = set()  # that were passed

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        more = kwargs or {}
        if func is F.scaled_dot_product_attention:
            self.visit += 1
            mask, scale = more.get("attn_mask"), more.get("scale") or args[0].shape[-1] ** -0.5
            usual = abs(scale * args[0].shape[-1] ** 0.5 - 1) < 1e-4
            if usual and (mask is None or _is_causal(mask)):
                for site, at in ATTENDED.items():
                    self.sites.add(name := f"visit.{self.visit}.{site}")
                    args = (*args[:at], self.tap(name, args[at]), *args[at + 1 :])
        return func(*args, **more)


def _is_causal(mask: Tensor) -> bool:
    """Tell whether a boolean mask shows every position all before it, and nothing else."""
    return mask.dtype == torch.bool and bool((mask == torch.ones_like(mask).tril()).all())


def _is_windowed(config: Any) -> bool:
    """Tell whether some layer reads less than all before; a short pass cannot see a window."""
    said = config.get_text_config().to_dict()
    window, longest = said.get("sliding_window"), said.get("max_position_embeddings")
    kinds = {*(said.get("layer_types") or ())} - {"full_attention"}
    return bool(kinds) or (window is not None and window < (longest or math.inf))


def _linears(module: nn.Module) -> dict[str, Any]:
    """Find the layers that are a matrix by name, in order."""
    return {n: m for n, m in module.named_modules() if isinstance(m, nn.Linear) or _is_turned(m)}


def _is_turned(module: Any) -> bool:
    """Tell whether a layer keeps a matrix with its outputs as columns, as that of GPT-2 does."""
    weight, bias = getattr(module, "weight", None), getattr(module, "bias", None)
    return weight is not None and bias is not None and bias.shape == weight.shape[1:]


def _matrix(layer: Any) -> Tensor:
    """Return a layer's matrix with its outputs as rows."""
    weight: Tensor = layer.weight.mT if _is_turned(layer) else layer.weight
    return weight


def _last(block: nn.Module) -> dict[Any, str]:
    """Return the last matrix of the attention and that of the rest, with their roles."""
    layers = _linears(block)
    own = [m for name, m in layers.items() if "att" in name.partition(".")[0]]
    rest = [m for m in layers.values() if m not in own]
    return {each[-1]: role for each, role in zip((own, rest), READERS, strict=True) if own and each}


def _places(block: nn.Module, seen: Seen) -> dict[str, tuple[nn.Module, bool]]:
    """Find the sites of a block in what its modules were given and returned."""
    found = {"residual_in": (block, False)}
    for layer, role in _last(block).items():
        if getattr(seen.get(layer, (None,))[0], "ndim", 0) == 3:
            found[READERS[role]] = layer, False
    (stream, after), children = seen[block], set(block.children())
    shaped = [m for m in seen if m in children and getattr(seen[m][1], "shape", 0) == stream.shape]
    for pair in combinations(shaped, 2):
        if _equal(stream + seen[pair[0]][1] + seen[pair[1]][1], after):
            writes = {role: (each, True) for role, each in zip(READERS, pair, strict=True)}
            return found | writes
    return found


def _hook(module: nn.Module, is_output: bool, see: Callable[[Tensor], Tensor]) -> RemovableHandle:
    """Replace the first tensor that a module is given, or that it returns."""
    if not is_output:
        return module.register_forward_pre_hook(lambda _, args: (see(args[0]), *args[1:]))
    return module.register_forward_hook(
        lambda _, __, out: see(out) if isinstance(out, Tensor) else (see(out[0]), *out[1:])
    )


def _first(found: Any) -> Tensor | None:
    """Return the first tensor of arguments or of an output."""
    parts = found if isinstance(found, tuple) else (found,)
    return next((each for each in parts if isinstance(each, Tensor)), None)


def _equal(one: Tensor | None, other: Tensor) -> bool:
    """Tell whether two tensors are equal but for rounding."""
    if one is None or one.shape != other.shape:
        return False
    near = torch.finfo(one.dtype).eps ** 0.5 * other.abs().max() if one.is_floating_point() else 0
    return bool((one - other).abs().max() <= near)
