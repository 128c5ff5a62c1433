"""Where several processes keep their metrics together.

prometheus-client decides between one process and several when first imported, by an environment variable. So
workers are born with it: it can't be set in a process that is running.
"""

from pathlib import Path

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"


def prepare_multiprocess(folder: Path) -> dict[str, str]:
    """The environment that makes worker processes count together in `folder`, which starts empty."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for left_over in folder.glob("*.db"):
        left_over.unlink()
    return {VARIABLE: str(folder)}
