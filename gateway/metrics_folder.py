"""Where several processes keep their metrics together.

prometheus-client decides between one process and several when first imported, by an environment variable. So
this module, which must run before that, imports none of it.
"""

import os
import sys
from pathlib import Path

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"


def prepare_multiprocess(folder: Path) -> None:
    """From here on this process and its children count into `folder`, which starts empty.

    Call once per start of the gateway, in the parent, before gateway.metrics is imported.
    """
    if "prometheus_client" in sys.modules:
        raise RuntimeError("prometheus_client is imported already; prepare_multiprocess comes first")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for left_over in folder.glob("*.db"):
        left_over.unlink()
    os.environ[VARIABLE] = str(folder)
