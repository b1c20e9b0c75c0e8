#!/usr/bin/env bash
# The SDK for one machine, into dist/: sdk.sh ARCH, x86_64 or aarch64 (cross-compiled). An archive, a .deb, the SBOM that
# both hold, and SHA256SUMS of this version in dist/.
#
# DICOM=OFF leaves out what reads DICOM files, for equipment that reads them itself.
#
# Two builds of one commit give the same bytes: file times are the commit's, paths of this machine are left out.
set -euo pipefail
cd "$(dirname "$0")/.."
ARCH=$1
PYTHON=${PYTHON:-python3}
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export SOURCE_DATE_EPOCH
umask 022
log=build/sdk/$ARCH/sdk.log

packaging/parts.sh "$ARCH"

# Whose work is in it. Debian's copyright files hold the licences of what is compiled in.
licences=build/sdk/licences
rm -rf "$licences"
mkdir -p "$licences/openvino"
cp -r build/sdk/"$ARCH"/openvino/openvino-*.dist-info/licenses/. "$licences/openvino/"
[ "${DICOM:=ON}" = OFF ] || cp build/sdk/dcmtk-source/COPYRIGHT "$licences/dcmtk.txt"
cp /usr/share/doc/nlohmann-json3-dev/copyright "$licences/nlohmann-json.txt"
cp /usr/share/doc/libstb-dev/copyright "$licences/stb.txt"
find "$licences" -type f -exec chmod 644 {} +
"$PYTHON" tools/soup.py --sdk build/sdk/sbom.cdx.json $([ "$DICOM" = ON ] || echo --without DCMTK)

trap 'tail -20 "$log" >&2' ERR
cmake --preset "sdk-$ARCH" --no-warn-unused-cli "-DMSLOC_WITH_DCMTK=$DICOM" \
  -DPython3_EXECUTABLE="$(realpath -s "$(command -v "$PYTHON")")" >"$log" 2>&1
cmake --build "build/sdk-$ARCH" "-j${JOBS:-2}" >>"$log" 2>&1
mkdir -p dist
(cd "build/sdk-$ARCH" && rm -rf packages && cpack -B packages) >>"$log" 2>&1
for package in "build/sdk-$ARCH"/packages/msloc-edge-sdk*; do packaging/repack.sh "$package" dist; done
VERSION=$(sed -n 's/^CMAKE_PROJECT_VERSION:.*=//p' "build/sdk-$ARCH/CMakeCache.txt")
cp build/sdk/sbom.cdx.json "dist/msloc-edge-sdk-$VERSION.cdx.json"
packaging/sums.sh "$VERSION"
