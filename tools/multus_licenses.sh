#!/bin/sh
# Collect the licenses and notices of the Go modules that a release of Multus is built from: multus_licenses.sh VERSION DIRECTORY
# [SOURCE], where SOURCE is a checkout or the URL of a repository.
set -eu
version=$1 directory=$2 source=${3:-https://github.com/k8snetworkplumbingwg/multus-cni}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
git -c advice.detachedHead=false clone --quiet --depth=1 --branch="$version" "$source" "$work/multus"
cd "$work/multus"
[ -d vendor ] || go mod vendor # releases after 4.3.0 have no such directory of their own
find . -path ./vendor -prune -o -type f -name 'NOTICE*' -print >"$work/found"
find vendor -type f \( -iname 'LICEN[SC]E*' -o -iname 'COPYING*' -o -iname 'NOTICE*' \) >>"$work/found"
[ "$(grep -c ^vendor/ "$work/found")" -gt 10 ] || { echo "too few licenses in $source at $version" >&2; exit 1; }
tar -cf "$work/found.tar" -T "$work/found"
cd "$OLDPWD"
rm -rf "$directory"
mkdir -p "$directory"
tar -xf "$work/found.tar" -C "$directory" --no-same-owner
echo "$(wc -l <"$work/found") files in $directory"
