"""The README's lines with the curl that people have."""

import os
from pathlib import Path

from tests.served import AMTP, served
from tests.test_readme import check_curl, lines_of, run


def test_the_lines_with_curl_send_and_read_a_message(tmp_path: Path) -> None:
    path = os.pathsep.join([str(Path(AMTP).parent), os.environ["PATH"]])
    with served(tmp_path) as gateway:
        check_curl(run(["bash", "-eu"], lines_of("sh curl"), gateway, tmp_path, path))
