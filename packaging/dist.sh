#!/usr/bin/env bash
# Wheel and sdist into dist/, each installed alone in a fresh environment of every Python here, where it localizes the
# example films. Then the SBOM, and SHA256SUMS of this version in dist/.
#
#   packaging/dist.sh            the Pythons of PATH and pyenv
#   packaging/dist.sh python3.12 one of them
set -euo pipefail
cd "$(dirname "$0")/.."
ROOT=$PWD
WORK=$ROOT/build/dist
PYTHON=${PYTHON:-python3}
VERSION=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' msloc_edge/__init__.py)
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export SOURCE_DATE_EPOCH

# Each minor version once, from 3.10 on.
pythons() {
  local minor candidate
  for minor in 10 11 12 13 14; do
    for candidate in "python3.$minor" "$HOME/.pyenv/versions/3.$minor".*/bin/python; do
      if "$candidate" -c '' 2>/dev/null; then command -v "$candidate" && break; fi
    done
  done
}

# installs PYTHON PACKAGE: the package alone localizes, outside of this folder.
installs() {
  local venv=$WORK/venv films
  rm -rf "$venv" "$WORK/out"
  "$1" -m venv "$venv"
  "$venv/bin/pip" install -qq --disable-pip-version-check "$2[dicom]"
  (cd "$WORK" && "$venv/bin/msloc-edge" selftest >/dev/null &&
    "$venv/bin/msloc-edge" infer "$ROOT"/examples/png "$ROOT"/examples/dicom --out out) \
    >"$WORK/lines.jsonl" 2>"$WORK/log" || { cat "$WORK/log" && exit 1; }
  films=$(find examples/png examples/dicom -name '*.png' -o -name '*.dcm' | wc -l)
  [ "$(wc -l <"$WORK/lines.jsonl")" = "$films" ] || { cat "$WORK/log" && exit 1; }
  echo "$(basename "$2") in $("$1" --version): $films films localized"
}

rm -rf "$WORK" dist/msloc_edge-*
mkdir -p "$WORK" dist
git archive HEAD | tar -x --one-top-level="$WORK/source" # what is committed, and nothing that lies around
"$PYTHON" -m venv "$WORK/build"
"$WORK/build/bin/pip" install -qq --disable-pip-version-check build
"$WORK/build/bin/python" -m build --outdir "$WORK/packages" "$WORK/source" >"$WORK/build.log" 2>&1 ||
  { tail -20 "$WORK/build.log" && exit 1; }
WHEEL=dist/msloc_edge-$VERSION-py3-none-any.whl
SDIST=dist/msloc_edge-$VERSION.tar.gz
cp "$WORK/packages/$(basename "$WHEEL")" dist
packaging/repack.sh "$WORK/packages/$(basename "$SDIST")" dist

mapfile -t found < <(if [ $# -gt 0 ]; then command -v "$@"; else pythons; fi)
for python in "${found[@]}"; do installs "$python" "$ROOT/$WHEEL"; done
installs "${found[0]}" "$ROOT/$SDIST"

"$PYTHON" tools/soup.py --sbom "dist/msloc-edge-$VERSION.cdx.json"
packaging/sums.sh "$VERSION"
