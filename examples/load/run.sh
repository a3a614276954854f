#!/usr/bin/env bash
# Crashes and reloads under load, under guard and under others, and the requests that were lost: bash examples/load/run.sh [ROW]...
#
# server.js serves, main.rs asks RATE times a second with a connection each, and meanwhile the server is killed CRASHES times,
# or reloaded RELOADS times. Two rows are about something else: `speed` is how many requests are answered, `spread` how evenly four
# instances share connections. The tables go to stdout.
#
# It needs bash 5, unshare and nsenter (util-linux), ip and Node, for a row of `spread` gunicorn too. pm2 comes from npm where it
# is not installed. As root, with dockerd, docker, runc and tini, it starts a Docker engine of its own. All of it lives in
# namespaces that end with the script.
set -euo pipefail
cd "$(dirname "$0")"
export LC_ALL=C

CRASHES=${CRASHES:-100}
DOCKER_CRASHES=${DOCKER_CRASHES:-10} # each takes ten seconds
RELOADS=${RELOADS:-20}
RATE=${RATE:-200}       # requests a second
PAUSE=${PAUSE:-100}     # ms between the next run's first answer and its crash
ROUNDS=${ROUNDS:-9}     # of `speed`, a second each
export WORK=${WORK:-10} # ms that the server takes for a request, while it is killed and reloaded
PORT=8080

ROWS=(crash-tini crash-pm2-fork crash-pm2-cluster crash-pm2-cluster-2 crash-guard crash-hold crash-hold-2
    reload-pm2-cluster-2 reload-hold reload-hold-2 reload-pm2-cluster-2-close reload-hold-close reload-hold-2-close
    speed spread)

say() {
    echo "load: $*" >&2
}

# Builds guard and the load, where the environment does not name them.
build() {
    local target
    target=$(uname -m)-unknown-linux-musl
    # One after the other: the load's dependencies have features that guard, as it is released, does not.
    (cd ../.. && cargo build --quiet --locked --release --target "$target" --bin guard &&
        cargo build --quiet --locked --release --target "$target" --example load)
    target=$(realpath "${CARGO_TARGET_DIR:-../../target}")/$target/release
    export GUARD=${GUARD:-$target/guard} LOAD=${LOAD:-$target/examples/load}
}

# Finds the directory of pm2 and pm2-runtime, or why there is none.
find_pm2() {
    pm2=$(command -v pm2-runtime) && pm2=$(dirname "$pm2") && return
    say 'npm installs pm2'
    npm install --silent --no-audit --no-fund --prefix "$home" pm2 >"$home/npm" 2>&1 ||
        why_no_pm2="npm cannot install pm2: $(tail -n 1 "$home/npm")"
    pm2=$home/node_modules/.bin
}

find_docker() {
    local program
    [ "$(id -u)" = 0 ] || why_no_docker='an engine takes root'
    for program in docker dockerd runc tini; do
        command -v "$program" >/dev/null || why_no_docker="$program is not installed"
    done
}

# Everything happens in namespaces, in which processes and network are the script's own.
if [ "${1:-}" != --in-namespaces ]; then
    [ $# -gt 0 ] || set -- "${ROWS[@]}"
    export home pm2='' why_no_pm2='' why_no_docker=''
    home=$(mktemp --directory)
    inside=
    tidy_up() {
        local code=$?
        [ -z "$inside" ] || kill -KILL "$inside" 2>/dev/null || true
        wait
        rm -rf "$home"
        exit "$code"
    }
    trap tidy_up EXIT
    trap 'exit 130' INT TERM HUP
    [ -n "${GUARD:-}" ] && [ -n "${LOAD:-}" ] || build
    [[ " $*" != *pm2* && " $*" != *\ sp* ]] || find_pm2
    find_docker
    user=()
    [ "$(id -u)" = 0 ] || user=(--user --map-root-user)
    unshare "${user[@]}" --mount --net --pid --fork --kill-child --mount-proc -- bash run.sh --in-namespaces "$@" &
    inside=$!
    wait "$inside"
    exit
fi
shift

# Starts a command as PID 1 of a namespace; that pid is then in $pid1.
below() {
    local unshare
    unshare --pid --fork --kill-child --mount-proc -- "$@" >>"$home/log" 2>&1 &
    unshare=$!
    pid1=
    until [ -n "$pid1" ]; do
        kill -0 "$unshare" || { cat "$home/log" >&2; exit 1; }
        read -r pid1 <"/proc/$unshare/task/$unshare/children" || true # no line break ends it
    done
    started+=("$pid1")
}

start_alone() {
    below env PORT="$PORT" node server.js
}

# Starts guard, which restarts without end and at once, as pm2 does.
start_guard() {
    below env PORT="$PORT" GUARD_MAX_RESTARTS=unlimited GUARD_BACKOFF_INITIAL=0 GUARD_INSTANCES="$instances" \
        GUARD_HOLD="$hold" "$GUARD" -- "${server[@]}" "${arguments[@]}"
    reload=("$GUARD" reload)
}

# Starts pm2-runtime, which is told not to count restarts.
start_pm2() {
    PM2_HOME=$(mktemp --directory --tmpdir="$home")
    export PM2_HOME
    cat >"$PM2_HOME/ecosystem.json" <<END
{ "apps": [{ "name": "server", "script": "$PWD/server.js", "args": "${arguments[*]}", "exec_mode": "$mode",
    "instances": $instances, "max_restarts": 1000000, "env": { "PORT": "$PORT", "WORK": "$WORK" } }] }
END
    below "$pm2/pm2-runtime" start "$PM2_HOME/ecosystem.json"
    reload=("$pm2/pm2" reload all)
}

# Starts a Docker engine and a container with this machine's node and tini. Docker waits 100 ms before a restart, and twice as
# long each time, unless the container has run for ten seconds: so that is what it gets between two crashes.
start_docker() {
    local program
    mount -t tmpfs tmpfs /run
    export DOCKER_HOST=unix://$home/docker.sock
    dockerd --host "$DOCKER_HOST" --data-root "$home/docker" --exec-root "$home/exec" --pidfile "$home/dockerd.pid" \
        --bridge none --iptables=false --ip6tables=false >"$home/dockerd" 2>&1 &
    dockerd=$!
    until docker version >/dev/null 2>&1; do
        kill -0 "$dockerd" 2>/dev/null || { cat "$home/dockerd" >&2; exit 1; }
    done
    mkdir -p "$home/root/usr/bin"
    cp server.js "$home/root"
    for program in node tini; do
        cp --dereference "$(command -v $program)" "$home/root/usr/bin/$program"
        ldd "$(command -v $program)" | grep -o '/[^ ]*' | xargs cp --dereference --parents --target-directory "$home/root"
    done
    tar --directory "$home/root" --create . | docker import - server >/dev/null
    docker run --detach --restart always --network host --name server --env PORT="$PORT" --env WORK="$WORK" server \
        /usr/bin/tini -- /usr/bin/node /server.js >/dev/null
    pause=10500 times=$DOCKER_CRASHES
}

# Ends what has been started.
stop() {
    if [ -n "$dockerd" ]; then
        docker rm --force server >/dev/null || true
        kill "$dockerd" && wait "$dockerd" || true
        dockerd=
    fi
    [ ${#started[@]} = 0 ] || kill -KILL "${started[@]}"
    started=()
    wait
}

# Of a row's name: what is started, its title, and why it cannot be started here.
choose() {
    instances=1 arguments=() hold=off why_not='' mode=fork pause=$PAUSE server=(node server.js)
    [[ $1 != *-close ]] || arguments=(--close)
    local row=${1%-close}
    [[ $row != *-[0-9] ]] || instances=${row##*-}
    case ${row%-[0-9]} in
    crash-tini)
        what='tini, Docker `--restart=always`' start=start_docker
        why_not=$why_no_docker
        ;;
    crash-pm2-fork) what='pm2-runtime, fork mode' start=start_pm2 why_not=$why_no_pm2 ;;
    *-pm2-cluster) what='pm2-runtime, cluster mode' start=start_pm2 mode=cluster why_not=$why_no_pm2 ;;
    app) what='app alone' start=start_alone ;;
    crash-guard) what='guard' start=start_guard ;;
    gunicorn-hold)
        what='guard, `GUARD_HOLD=on`, gunicorn' start=start_guard hold=on
        server=(gunicorn --bind "0.0.0.0:$PORT" --workers 2 server:app)
        command -v gunicorn >/dev/null || why_not='gunicorn is not installed'
        ;;
    *-hold) what='guard, `GUARD_HOLD=on`' start=start_guard hold=on ;;
    speed | spread) what=$1 ;;
    *)
        say "no row $1; there are ${ROWS[*]}"
        exit 2
        ;;
    esac
    case $1 in
    crash-*) event=crashes times=$CRASHES ;;
    reload-*) event=reloads times=$RELOADS ;;
    esac
    [ "$instances" = 1 ] || what+=", $instances instances"
    [ ${#arguments[@]} = 0 ] || what+=', app with `server.close()`'
}

# Prints the row of crashes or reloads.
disturb() {
    local command=() requests refused reset timed_out in_flight longest
    choose "$1"
    if [ -n "$why_not" ]; then
        echo "| $what | $why_not | | | | | | |"
        return
    fi
    "$start"
    [ "$event" = crashes ] || command=(nsenter --target "$pid1" --pid --mount -- "${reload[@]}")
    read -r requests refused reset timed_out in_flight longest < <(
        "$LOAD" "${1%%-*}" "$PORT" "$instances" "$RATE" "$times" "$pause" "${command[@]}"
    ) || { tail -n 30 "$home/log" >&2; exit 1; }
    [ "$event" = crashes ] || in_flight=
    echo "| $what | $times $event | $requests | $refused | $reset | $timed_out | $in_flight | $longest |"
    stop
}

# Prints how many requests a second are answered, in turns, and how long the slowest of a hundred takes.
speed() {
    local row titles=() ports=() rate slowest index=0 PORT=$PORT
    local -x WORK=0
    for row in app crash-guard crash-hold crash-pm2-fork crash-pm2-cluster; do
        choose "$row"
        if [ -n "$why_not" ]; then
            say "speed of $what: $why_not"
            continue
        fi
        PORT=$((PORT + 1))
        "$start"
        titles+=("$what") ports+=("$PORT")
    done
    echo '| | requests a second | p99, ms |'
    echo '| --- | ---: | ---: |'
    while read -r rate slowest; do
        echo "| ${titles[index++]} | $rate | $slowest |"
    done < <("$LOAD" speed "$ROUNDS" 1 "${ports[@]}" || cat "$home/log" >&2)
    [ "$index" = ${#ports[@]} ] || exit 1
    stop
}

# Prints how many of the connections the most and the least busy of four instances get.
spread() {
    local row most least ratio
    local -x WORK=0
    echo '| | most busy | least busy | ratio |'
    echo '| --- | ---: | ---: | ---: |'
    for row in crash-hold-4 gunicorn-hold-4 crash-pm2-cluster-4; do
        choose "$row"
        if [ -n "$why_not" ]; then
            echo "| $what | $why_not | | |"
            continue
        fi
        "$start"
        read -r most least < <("$LOAD" spread "$PORT" "$instances" 1000 5) || { cat "$home/log" >&2; exit 1; }
        ratio=$((least > 0 ? most * 100 / least : 0))
        printf '| %s | %d | %d | %d.%02d |\n' "$what" "$most" "$least" $((ratio / 100)) $((ratio % 100))
        stop
    done
}

dockerd='' started=()
for row in "$@"; do choose "$row"; done
ip link set lo up
: >"$home/log"
heading=
for row in "$@"; do
    case $row in
    speed | spread)
        heading=
        echo
        "$row"
        ;;
    *)
        if [ -z "$heading" ]; then
            heading=yes
            echo '| | | requests | refused | reset | timed out | lost in flight | longest wait, ms |'
            echo '| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |'
        fi
        disturb "$row"
        ;;
    esac
done
