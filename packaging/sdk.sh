#!/usr/bin/env bash
# The SDK for one machine, into dist/: sdk.sh ARCH, x86_64 or aarch64 (cross-compiled). An archive and a .deb.
#
# Two builds of one commit give the same bytes: file times are the commit's, paths of this machine are left out.
set -euo pipefail
cd "$(dirname "$0")/.."
ARCH=$1
PYTHON=${PYTHON:-python3}
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH
umask 022

packaging/parts.sh "$ARCH"

# Whose work is in it. Debian's copyright files hold the licences of what is compiled in.
licences=build/sdk/licences
rm -rf "$licences"
mkdir -p "$licences/openvino"
cp -r build/sdk/"$ARCH"/openvino/openvino-*.dist-info/licenses/. "$licences/openvino/"
cp build/sdk/dcmtk-source/COPYRIGHT "$licences/dcmtk.txt"
cp /usr/share/doc/nlohmann-json3-dev/copyright "$licences/nlohmann-json.txt"
cp /usr/share/doc/libstb-dev/copyright "$licences/stb.txt"
find "$licences" -type f -exec chmod 644 {} +
"$PYTHON" tools/soup.py --sdk build/sdk/sbom.cdx.json

cmake --preset "sdk-$ARCH" -B "build/sdk/$ARCH/build" -DPython3_EXECUTABLE="$(command -v "$PYTHON")" >/dev/null
cmake --build "build/sdk/$ARCH/build" "-j${JOBS:-2}"
mkdir -p dist
(cd "build/sdk/$ARCH/build" && cpack -B "$PWD/packages")
cp build/sdk/"$ARCH"/build/packages/msloc-edge-sdk* dist/
