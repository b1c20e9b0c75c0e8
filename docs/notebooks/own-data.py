# %% [markdown]
# # Your own films to a bundle
#
# A table of films and labels is all that training needs: no boxes. Here the films are digital phantoms and the network
# is tiny, so that this page is made in a minute; with your own table the first cell is not needed.

# %%
import csv
import subprocess
import sys
import tempfile
from pathlib import Path

from msloc_edge import Localizer
from msloc_edge.train.phantom import generate, write_png

work = Path(tempfile.mkdtemp())
with (work / "films.csv").open("w", newline="") as file:
    rows = csv.writer(file)
    rows.writerow(["image", "enlarged heart", "fluid"])
    for seed in range(64):
        heart, fluid = seed % 4 in (1, 3), seed % 4 in (2, 3)
        findings = ["Cardiomegaly"] * heart + ["Effusion"] * fluid
        write_png(generate(seed, 64, tuple(findings)), work / f"{seed}.png")
        rows.writerow([f"{seed}.png", int(heart), int(fluid)])
print((work / "films.csv").read_text()[:90])

# %% [markdown]
# Train, and calibrate at the end. More epochs, a larger `--size` and published weights (`--init`) are what a real run
# takes (docs/training.md).


# %%
def msloc_edge(*command: str) -> str:
    """Run a command as in a shell; what it prints as data."""
    call = [sys.executable, "-m", "msloc_edge", *command]
    return subprocess.run(call, cwd=work, check=True, capture_output=True, text=True).stdout


size = ["--backbone", "edge", "--size", "64", "--epochs", "2", "--batch", "8", "--workers", "0"]
msloc_edge("train", "--data", "csv:films.csv", *size, "--out", "run")
print((work / "run/history.csv").read_text())

# %% [markdown]
# `run/bundle` is what every device runs. Its rates were measured by cross-validation on the validation films; with a
# handful of them the intervals are wide, and they say so.

# %%
print(msloc_edge("models", "show", "run/bundle"))

# %%
with Localizer(work / "run/bundle") as localizer:
    result = localizer.localize(work / "3.png")
{finding.label: round(finding.score, 3) for finding in result.ranked}
