"""Read or replace tensors at named sites while a model runs."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor

from workbench.folder import check_known
from workbench.model.network import Network


@contextmanager
def record(
    model: Network,
    sites: Iterable[str] = (),
    *,
    replace: Mapping[str, Callable[[Tensor], Tensor]] | None = None,
) -> Iterator[dict[str, Tensor]]:
    """Watch a model inside a ``with`` block; nothing stays on it afterwards.

    Parameters
    ----------
    model : Network
        Any model with `sites()` and a `tap`.
    sites : iterable of str
        Names to keep; only these are kept, each holding the latest forward pass.
    replace : mapping of site to function, optional
        Each function receives the tensor of its site and returns the one to go on with.

    Yields
    ------
    dict of str to Tensor
        Filled by forward passes inside the block.

    Raises
    ------
    InputError
        If a site does not exist; the nearest are named.
    """
    wanted, edits = set(sites), dict(replace or {})
    check_known(wanted | set(edits), model.sites(), what="site")
    seen: dict[str, Tensor] = {}
    outer = model.tap

    def tap(site: str, tensor: Tensor) -> Tensor:
        tensor = outer(site, tensor)
        if site in edits:
            tensor = edits[site](tensor)
        if site in wanted:
            seen[site] = tensor
        return tensor

    model.tap = tap
    try:
        yield seen
    finally:
        model.tap = outer
