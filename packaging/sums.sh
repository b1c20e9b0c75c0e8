#!/usr/bin/env bash
# SHA256SUMS of what dist/ has of a version: sums.sh VERSION. `make dist` and `make sdk` end with it, in either order.
set -euo pipefail
cd "$(dirname "$0")/../dist"
sha256sum -- *"$1"* >SHA256SUMS
ls -l
