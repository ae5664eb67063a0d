"""What a forecast says, in words; bytes are counted in thousands, not in 1024s."""

import xarray as xr

SIZES = {1e9: "GB", 1e6: "MB", 1e3: "kB", 1: "B"}


def parameters(ds: xr.Dataset) -> str:
    """List parameters by part."""
    total = int(ds["count"].sum())
    some = ds["count"].where(ds["count"] > 0, drop=True).to_series().items()
    told = ", ".join(f"{part} {int(n):,} ({n / total:.1%})" for part, n in some)
    return f"{total:,} in all: {told}."


def memory(ds: xr.Dataset) -> str:
    """List the memory of training by part, then its peaks."""
    told = (f"{part.replace('_', ' ')} {size(n)}" for part, n in ds.bytes.to_series().items() if n)
    return f"{', '.join(told)}; libraries and what the allocator keeps not counted."


def deployment(ds: xr.Dataset) -> str:
    """List the bytes of artifacts and of models in use."""
    kinds = zip(ds.setting.values, ds.artifact.values, ds.memory.values, strict=True)
    told = "; ".join(f"{b} bits {size(file)} (in use {size(used)})" for b, file, used in kinds)
    return f"artifact, as a forecast within a tenth: {told}; of which the cache {size(ds.cache)}."


def pace(ds: xr.Dataset) -> str:
    """Say how long training takes, and how well it uses the machine."""
    at = {name: float(ds[name]) for name in ds}
    return (
        f"{1000 * at['step']:.1f} ms a step: {at['training']:,.1f} s for {at['steps']:,.0f} steps, "
        f"{at['tokens']:,.0f} tokens; {at['flops'] / 1e6:.2f} MFLOP a token, "
        f"{at['rate'] / 1e9:.1f} GFLOP/s, {at['utilisation']:.0%} of a large matrix product's here."
    )


def phases(ds: xr.Dataset) -> str:
    """Say when each phase of the schedule begins and ends."""
    told = []
    for name, each in ds.to_dataframe().dropna().iterrows():
        seconds = f" ({each.begins_at:.1f} to {each.ends_at:.1f} s)" if each.ends_at else ""
        told.append(f"{name} from update {each.begins + 1:,.0f} to {each.ends:,.0f}{seconds}")
    return "; ".join(told) + "."


def checks(ds: xr.Dataset) -> str:
    """List checks, with a remedy where one stands; settings that were shown to act in one line."""
    lines, acting = [""], list[str]()
    for name, each in ds.to_dataframe().iterrows():
        if each.level == "ok" and "." in str(name):
            acting.append(str(name))
            continue
        remedy = "" if each.level == "ok" else f". {each.remedy}"
        lines.append(f"{each.level}: {name}: {each.message}{remedy}")
    if acting:
        lines.append(f"ok: {len(acting)} settings were shown to act: {', '.join(acting)}")
    return "\n  ".join(lines)


def size(count: float) -> str:
    """Write bytes with a unit that fits.

    Examples
    --------
    >>> size(16_500_000)
    '16.5 MB'
    """
    step = next((step for step in SIZES if count >= step), 1)
    return f"{float(count) / step:.1f} {SIZES[step]}" if step > 1 else f"{int(count)} B"
