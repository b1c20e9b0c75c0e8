# %% [markdown]
# # A first film
#
# The shipped model on a digital phantom, step by step. The film comes with the repository; any PNG, JPEG, TIFF or
# DICOM film will do.

# %%
from pathlib import Path

from matplotlib import pyplot as plt

from msloc_edge import Localizer

root = next(folder for folder in [Path.cwd(), *Path.cwd().parents] if (folder / "examples/png").is_dir())
film = root / "examples/png/phantom4000176.png"

with Localizer(all_classes=True) as localizer:
    result = localizer.localize(film)
result.plot()

# %% [markdown]
# First the *film gate*: does this film show anything at all? Where it does not, nothing below is positive.

# %%
gate = result.gate
print(f"abnormal {gate.score:.2f}, threshold {gate.threshold:.2f}: {'passes' if gate.positive else 'normal'}")
print(f"profile {result.operating_point.profile}")

# %% [markdown]
# Then each finding, by how far it exceeds its threshold (log-odds). A negative number is below it.

# %%
for finding in result.ranked[:5]:
    print(
        f"{finding.label:20} score {finding.score:.3f}  threshold {finding.threshold:.3f}  excess {finding.excess:+.2f}"
    )

# %% [markdown]
# A finding's map is in logit units, so its threshold is absolute. The layer relevance weights say how much each stage
# of the network counts in it, from the finest to the coarsest.

# %%
finding = result.ranked[0]
stages = result.stage_maps[finding.label]
figure, axes = plt.subplots(1, len(stages) + 1, figsize=(14, 3))
for axis, stage, weight in zip(axes, stages, finding.relevance, strict=False):
    axis.imshow(stage, cmap="magma")
    axis.set_title(f"weight {weight:.2f}")
axes[-1].imshow(result.maps[finding.label], cmap="magma")
axes[-1].set_title(finding.label)
for axis in axes:
    axis.axis("off")

# %% [markdown]
# Boxes are in pixels of the stored image, strongest first; `to_coco`, `to_supervision` and `to_dict` take them on.

# %%
for box in result.boxes:
    print(f"{box.label} {box.score:.2f}: x {box.x:.0f}, y {box.y:.0f}, {box.w:.0f} x {box.h:.0f}")
result.to_dict()["findings"][0]
