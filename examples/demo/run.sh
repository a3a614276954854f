#!/bin/sh
# A crash, a restart and a drain, to watch: sh examples/demo/run.sh
#
# Builds guard and runs examples/demo/app.sh under it. Press Ctrl-C while a job is under way; without a terminal
# guard gets a SIGTERM after five seconds, as from `docker stop`.
set -eu
cd "$(dirname "$0")/../.."

cargo build --release --quiet
guard=${CARGO_TARGET_DIR:-target}/release/guard

if [ -t 0 ]; then
    echo "demo: press Ctrl-C to stop"
    exec "$guard" -- sh examples/demo/app.sh
fi

"$guard" -- sh examples/demo/app.sh &
pid=$!
trap 'kill -TERM "$pid"' INT TERM
sleep 5
echo "demo: SIGTERM for guard"
kill -TERM "$pid"
code=0
wait "$pid" || code=$?
echo "demo: guard exited with $code"
exit "$code"
