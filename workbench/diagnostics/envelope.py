"""What a plan of training asks of a machine, held against what the plan says of itself."""

from dataclasses import dataclass

from workbench.diagnostics.checks import Check

DAY = 86400.0  # s
STATE = {  # bytes of a parameter's weight, gradient and Adam moments
    "mixed precision, float32 gradients": 18,
    "mixed precision": 16,
    "8-bit moments": 10,
    "all bfloat16": 8,
}
ROUNDING = 0.1  # of a number of days, as people write them


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A training that somebody proposes."""

    name: str
    parameters: float
    tokens_per_second: float
    tokens: float
    precision: str = "mixed precision"  # key of STATE


def envelope(plan: Plan) -> dict[str, float]:
    """Compute what a plan asks for.

    Returns
    -------
    dict of str to float
        ``days``; effective arithmetic without attention, ``flops`` [flop/s]; ``state``, the bytes
        of weights, gradients and moments, before any activation.
    """
    return {
        "days": plan.tokens / plan.tokens_per_second / DAY,
        "flops": 6 * plan.parameters * plan.tokens_per_second,
        "state": plan.parameters * STATE[plan.precision],
    }


def plan_checks(plan: Plan, *, days: float, memory: float) -> list[Check]:
    """Hold a plan against the days and the memory [byte] that it names."""
    asked, read = envelope(plan), days * DAY * plan.tokens_per_second / 1e9
    fits = ", ".join(how for how in STATE if plan.parameters * STATE[how] <= memory)
    in_time = Check(
        name="plan_days",
        value=abs(days / asked["days"] - 1),
        threshold=ROUNDING,
        message=f"{plan.name}: {asked['days']:.1f} days at this speed, not {days:g}",
        remedy=f"In {days:g} days {read:.1f} B tokens are read.",
    )
    in_memory = Check(
        name="plan_memory",
        value=asked["state"],
        threshold=memory,
        unit="byte",
        message=f"{plan.name}: {asked['state'] / 1e9:.1f} GB before any activation",
        remedy=f"Would fit {memory / 1e9:.1f} GB: {fits or 'nothing known here'}.",
    )
    return [in_time, in_memory]
