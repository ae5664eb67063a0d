"""What every test shares: quiet threads, fixed examples, a data folder that is not the user's."""

import os

# Before torch or a kernel is imported: threads that spin while waiting make shared cores crawl.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("JUPYTER_PLATFORM_DIRS", "1")

import json  # noqa: E402
import random  # noqa: E402
from collections.abc import Iterator  # noqa: E402

import pytest  # noqa: E402
from hypothesis import settings  # noqa: E402

settings.register_profile(
    "workbench", deadline=None, derandomize=True, database=None, max_examples=50
)
settings.load_profile("workbench")


@pytest.fixture(scope="session", autouse=True)
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Send corpora, tokenizers and runs to one folder that all workers of this session share."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORKBENCH_DATA", str(shared / "data"))
        yield


# torch, and what needs it, is imported inside fixtures: many tests run without.


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory):
    """Open a corpus of short texts of letters, one id a byte: 40 to learn, 12 to validate on."""
    from workbench.text import open_data

    draw = random.Random(0)
    words = ["ab", "cab", "bad", "face", "dead", "fee", "gab", "\u00e9a"]
    texts = [" ".join(draw.choices(words, k=draw.randint(8, 40))) + ".\n" for _ in range(52)]
    folder = tmp_path_factory.mktemp("tiny_corpus")
    for split, some in (("train", texts[:40]), ("validation", texts[40:])):
        lines = "".join(json.dumps({"text": text}) + "\n" for text in some)
        (folder / f"{split}.jsonl").write_text(lines, encoding="utf-8")
    return open_data(folder, tokenizer="bytes")


@pytest.fixture
def tiny_network():
    """Make a network of two blocks whose every weight is random, so that no part is idle."""
    import torch

    from workbench.model import new_network, preset

    config = preset("demo", n_layer=2, d_model=16, vocab_size=257)
    network = new_network(config, seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(0.0, 0.3, generator=generator)
    return network.eval()


@pytest.fixture(scope="session")
def tiny_run(tiny_data):
    """Train a network of two blocks for 12 updates; return its run folder, to be read only."""
    from workbench.model import new_network, preset
    from workbench.training import begin, train, train_config

    config = train_config(
        optimizer={},
        device="cpu",
        steps=12,
        tokens_per_step=128,
        sequence_length=16,
        micro_batches=2,
        warmdown_steps=4,
        validate_every=4,
        checkpoints=3,
    )
    network = new_network(preset("demo", n_layer=2, d_model=16, vocab_size=257), seed=0)
    run = begin(f"tiny-{os.getpid()}", network, tiny_data, config, replace=True)
    train(network, tiny_data, config, run)
    return run


@pytest.fixture(scope="session")
def tiny_world_run():
    """Train on the closed world for 6 updates; return the run folder, to be read only."""
    from tiny_runs import trained

    from workbench.text import open_data

    data = open_data("closed-world")
    return trained(f"tiny-world-{os.getpid()}", data, steps=6, checkpoints=2, output_bias=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a GPU where there is none; torch is imported only if something needs it."""
    wanting = [item for item in items if item.get_closest_marker("gpu")]
    if not wanting:
        return
    import torch

    if not torch.cuda.is_available():
        for item in wanting:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))
