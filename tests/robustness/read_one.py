"""Read one film, and print how that ended and what it cost, with all processes: python read_one.py FILE."""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path

from msloc_edge.errors import MslocError
from msloc_edge.imaging import decoder
from msloc_edge.imaging.reading import read_frame

try:
    outcome = str(read_frame(sys.argv[1]).pixels.shape)
except MslocError as error:
    outcome = error.reason
decoder.end_helpers()
usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
seconds = sum(usage.ru_utime + usage.ru_stime for usage in usages)
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
own = int(status["VmHWM"].split()[0])  # ru_maxrss would hold the peak of the test that started this process, too
peak = max(own, usages[1].ru_maxrss) >> 10
print(json.dumps({"outcome": outcome, "seconds": seconds, "mb": peak}))
