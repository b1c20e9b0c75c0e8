#!/usr/bin/env bash
# The same package into a folder, with its files by name and of one time, so that two builds give the same bytes: tools
# take files as the file system lists them. repack.sh PACKAGE FOLDER, with SOURCE_DATE_EPOCH; a .deb or a .tar.gz.
set -euo pipefail
target=$2/$(basename "$1")
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
case $1 in
  *.deb)
    dpkg-deb -R "$1" "$tree"
    dpkg-deb --root-owner-group -Zgzip -b "$tree" "$target"
    ;;
  *)
    tar xf "$1" -C "$tree" --no-same-owner
    (cd "$tree" && find . -mindepth 1 -printf '%P\n' | LC_ALL=C sort) |
      tar -c -C "$tree" --no-recursion -T - --format=gnu --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 \
        --numeric-owner | gzip -n >"$target"
    ;;
esac
