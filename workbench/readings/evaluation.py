"""What an evaluation says, in words."""

from collections.abc import Mapping
from typing import Any


def evaluation(summary: Mapping[str, Any]) -> str:
    """Say bits per byte and by class, and name what the certificate refuses."""
    error = summary["standard_error"]
    over = "documents" if summary["groups"] == summary["documents"] else "facts"
    spread = f" +- {error:.4f} (standard error over {summary['groups']} {over})" if error else ""
    size = f", {summary['artifact_bytes']:,} bytes" if summary["artifact_bytes"] else ""
    lines = [
        f"{summary['bits_per_byte']:.4f} bit/byte{spread}{size}",
        f"{summary['loss_nat']:.4f} nat/token over {summary['tokens']:,} of "
        f"{summary['split_tokens']:,} tokens, {summary['bytes']:,} bytes, protocol "
        f"{summary['protocol']}, context {summary['context']}",
    ]
    for name, part in summary["by_class"].items():
        lines.append(f"  {name:<14}{part['loss_nat']:8.4f} nat/token  {part['tokens']:>9,} tokens")
    for name, part in summary.get("certificate", {}).items():
        if not part["passed"]:
            lines.append(f"NOT {name.replace('_', ' ')}: {part['value']} above {part['limit']}")
    return "\n".join(lines)
