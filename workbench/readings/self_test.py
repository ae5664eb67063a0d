"""What the self-tests say."""

import xarray as xr


def self_test(ds: xr.Dataset) -> str:
    """Say whether every self-test passed, and name those that did not with their numbers.

    Parameters
    ----------
    ds : Dataset
        Result of the diagnostic of the same name.
    """
    passed = ds.passed.values.astype(bool)
    if passed.all():
        return f"All {passed.size} self-tests passed."
    failed = [
        f"{name} ({value:.3g}, at most {limit:.3g})"
        for name, value, limit, good in zip(
            ds.check.values, ds.value.values, ds.limit.values, passed, strict=True
        )
        if not good
    ]
    return (
        f"{len(failed)} of {passed.size} self-tests failed, so no number here can be trusted "
        f"yet: {', '.join(failed)}."
    )
