"""Freeze the diagnoses of the demo runs as the datasets that reports read.

::

    make demo && .venv/bin/python reports/freeze.py && make reports

Only what the reports read is kept. The provenance keeps configuration, data and seed; the machine's
name and process are left out.
"""

from pathlib import Path

from workbench.folder import find_run, replacing
from workbench.result import open_tree, provenance, save

DATA = Path(__file__).parent / "data"
READ = (
    "self_test",
    "effective_rank",
    "value_residual",
    "logit_prior",
    "routing_audit",
    "token_loss",
)


def main() -> None:
    """Copy each diagnosis without what names a machine."""
    for name in ("demo", "demo-world"):
        tree = open_tree(find_run(name).path / "diagnosis.nc")
        known = provenance(tree)
        known["environment"] = known["environment"]["packages"]
        groups = {group: tree[group].to_dataset() for group in READ if group in tree.children}
        groups["effective_rank"] = groups["effective_rank"].drop_dims("singular")
        with replacing(DATA / f"{name}.nc") as scratch:
            save(groups, scratch, provenance=known)


if __name__ == "__main__":
    main()
