#!/bin/sh
# Write the digest behind the tag of each image, of all its platforms together, into a file of FROM lines: pin.sh FILE IMAGE...
set -eu
file=$1
shift
for image; do
  digest=$(docker buildx imagetools inspect "$image" --format '{{.Manifest.Digest}}')
  case $digest in
    sha256:*) ;;
    *) echo "$image: expected a digest, found '$digest'" >&2; exit 1 ;;
  esac
  sed -i -E "s#^FROM $image(@sha256:[0-9a-f]+)? #FROM $image@$digest #" "$file"
  grep -F "FROM $image@$digest " "$file" || { echo "$file has no line 'FROM $image'" >&2; exit 1; }
done
