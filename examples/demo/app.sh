#!/bin/sh
# The app of the demo: it does jobs of two seconds each. Its first run crashes; when it is asked to stop, it ends the
# job that it has begun.

say() {
    echo "app, run $GUARD_RUN: $*"
}

job=0
stopping=
trap 'stopping=yes; say "asked to stop, job $job is still under way"' TERM INT

say "started, restarts so far: $GUARD_RESTARTS, last exit: ${GUARD_LAST_EXIT:-none}"
while [ -z "$stopping" ]; do
    job=$((job + 1))
    if [ "$GUARD_RUN" = 1 ] && [ "$job" = 2 ]; then
        say "job $job crashes"
        exit 1
    fi
    say "job $job begins"
    # In the background: a trap runs at once only while the shell waits, and Ctrl-C spares background commands.
    sleep 2 &
    while kill -0 "$!" 2>/dev/null; do wait "$!"; done
    say "job $job is done"
done
say "nothing is under way any more"
