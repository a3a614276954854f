#!/bin/sh
# As the official images have it: some preparation, and then the command in its place.
set -e
echo prepared
exec "$@"
