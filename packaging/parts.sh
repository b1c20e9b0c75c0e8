#!/usr/bin/env bash
# What the SDK is built of besides this repository, for one machine: parts.sh ARCH, x86_64 or aarch64.
#
#   build/sdk/ARCH/openvino   OpenVINO's Python wheel for that machine, unpacked: headers, CMake files, libraries
#   build/sdk/ARCH/dcmtk      DCMTK of Debian's source package, with its security patches: static, its dictionary
#                             inside, without XML, ICU and OpenSSL, which the distribution's libraries bring (40 MB)
#
# Each is made once; DICOM=OFF leaves DCMTK out. apt install dpkg-dev python3-pip, for aarch64 g++-aarch64-linux-gnu and
# qemu-user.
set -eEuo pipefail
cd "$(dirname "$0")/.."

OPENVINO=2026.4.1
DCMTK=3.6.7-9~deb12u4
ARCH=$1
ROOT=$PWD
PARTS=$ROOT/build/sdk/$ARCH
PYTHON=${PYTHON:-python3}

openvino() {
  [ -e "$PARTS/openvino/openvino/cmake" ] && return
  local wheels=$PARTS/wheels platform
  local platforms=()
  for platform in manylinux_2_35 manylinux_2_31 manylinux_2_28 manylinux2014; do
    platforms+=(--platform "${platform}_$ARCH")
  done
  "$PYTHON" -m pip download -qq --disable-pip-version-check --no-deps --only-binary=:all: --python-version 3.11 \
    "${platforms[@]}" --dest "$wheels" "openvino==$OPENVINO"
  mkdir -p "$PARTS/openvino"
  "$PYTHON" -m zipfile -e "$wheels"/openvino-*.whl "$PARTS/openvino"
}

# The machine's own package sources, asked for source packages, in folders of their own: no root, nothing changed.
dcmtk_source() {
  local source=$ROOT/build/sdk/dcmtk-source apt=$ROOT/build/sdk/apt
  [ -e "$source" ] && return
  mkdir -p "$apt/parts" "$apt/lists" "$apt/cache"
  cat /etc/apt/sources.list.d/debian.sources 2>/dev/null | sed 's/^Types: .*/Types: deb-src/' >"$apt/parts/s.sources"
  sed -n 's/^deb /deb-src /p' /etc/apt/sources.list >"$apt/parts/s.list" 2>/dev/null || true
  local options=(-qq -o "Dir::Etc::SourceList=/dev/null" -o "Dir::Etc::SourceParts=$apt/parts"
    -o "Dir::State::Lists=$apt/lists" -o "Dir::Cache=$apt/cache" -o "APT::Sandbox::User=")
  apt-get "${options[@]}" update
  (cd "$apt" && apt-get "${options[@]}" source --download-only "dcmtk=$DCMTK")
  dpkg-source -q --no-check -x "$apt"/dcmtk_*.dsc "$source"
  # Files of these two cannot be compiled together: they switch by macros between 8, 12 and 16 bits, and what is inline.
  sed -i '1i set(CMAKE_UNITY_BUILD OFF)' "$source/dcmjpeg/CMakeLists.txt" "$source/oflog/CMakeLists.txt"
}

dcmtk() {
  [ -e "$PARTS/dcmtk/lib/libdcmdata.a" ] && return
  dcmtk_source
  local build=$PARTS/dcmtk-build log=$PARTS/dcmtk.log part
  echo "building DCMTK for $ARCH, once; this takes minutes (${log#"$ROOT/"})"
  trap 'tail -20 "$log" >&2' ERR
  local options=(-DCMAKE_BUILD_TYPE=Release -DCMAKE_UNITY_BUILD=ON -DCMAKE_UNITY_BUILD_BATCH_SIZE=16
    -DBUILD_SHARED_LIBS=OFF -DBUILD_APPS=OFF -DDCMTK_DEFAULT_DICT=builtin -DCMAKE_POSITION_INDEPENDENT_CODE=ON
    -DCMAKE_INSTALL_PREFIX="$PARTS/dcmtk" -DCMAKE_INSTALL_LIBDIR=lib -DCMAKE_INSTALL_DATADIC=share/dcmtk
    "-DDCMTK_MODULES=ofstd;oflog;dcmdata;dcmimgle;dcmimage;dcmjpeg;dcmjpls"
    "-DCMAKE_C_FLAGS=-ffile-prefix-map=$ROOT/build/sdk/=" "-DCMAKE_CXX_FLAGS=-ffile-prefix-map=$ROOT/build/sdk/=")
  for part in TIFF PNG XML ZLIB OPENSSL SNDFILE ICONV ICU OPENJPEG WRAP; do options+=("-DDCMTK_WITH_$part=OFF"); done
  [ "$ARCH" = "$(uname -m)" ] ||
    options+=("-DCMAKE_TOOLCHAIN_FILE=$ROOT/msloc_edge/capi/cmake/$ARCH-linux-gnu.cmake")
  cmake -G Ninja -S "$ROOT/build/sdk/dcmtk-source" -B "$build" "${options[@]}" >"$log" 2>&1
  cmake --build "$build" "-j${JOBS:-2}" >>"$log" 2>&1
  cmake --install "$build" >>"$log"
  trap - ERR
}

mkdir -p "$PARTS"
openvino
[ "${DICOM:-ON}" = OFF ] || dcmtk
