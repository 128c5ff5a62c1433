"""The folder in which several processes share their metrics.

prometheus-client decides between one process and several when first imported, by an environment variable. So
workers inherit it: it can't be set in a running process.
"""

from pathlib import Path

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"


def prepare_multiprocess(folder: Path) -> dict[str, str]:
    """Empties `folder`; returns the environment that makes worker processes share their metrics there."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for left_over in folder.glob("*.db"):
        left_over.unlink()
    return {VARIABLE: str(folder)}
