#!/usr/bin/env bash
# Rolling replacement behind nginx under load, and the requests that were lost: bash examples/rolling/run.sh [VARIANT]...
#
# Two containers of app.js serve behind nginx, load.js asks a hundred times a second, and each container is replaced ROUNDS
# times as a platform does it: start the new one, wait until it is ready, put it into nginx's list, `docker stop` the old one.
# nginx hears of the stop only ENDPOINTS_DELAY later, as load balancers and Kubernetes' nodes do. The table goes to stdout.
#
# It needs bash 5 and a Docker engine, in which it makes the image `guard` where there is none. Containers and network are gone
# afterwards; the image stays for the next time.
set -euo pipefail
cd "$(dirname "$0")"
export LC_ALL=C

ROUNDS=${ROUNDS:-2}
ENDPOINTS_DELAY=${ENDPOINTS_DELAY:-1.5} # seconds, as sleep takes them
DRAIN_DELAY=${DRAIN_DELAY:-3s}          # guard's
GUARD_IMAGE=${GUARD_IMAGE:-guard}       # has /guard
NODE_IMAGE=${NODE_IMAGE:-node:20-slim}  # has bash, and Debian's packages to add to
IMAGE=${IMAGE:-guard-rolling}           # what the image is called that this makes
NGINX_IMAGE=${NGINX_IMAGE:-$IMAGE}      # nginx:1, say, in place of Debian's nginx

VARIANTS=(bare tini tini-started close close-tini guard-no-delay guard guard-close)

id=rolling-$$
work=$(mktemp --directory)
stopping=

# What a variant is: its row's name, what `docker run` gets, and the command.
choose() {
    local listens="bash -c '</dev/tcp/127.0.0.1/8080'" guard=(guard --health-check http://127.0.0.1:8080/)
    ready=$listens command=(node app.js)
    case $1 in
    bare) what='app as PID 1' ;;
    tini) what='app under tini' command=(tini -- node app.js) ;;
    tini-started) what='app under tini, ready as soon as started' command=(tini -- node app.js) ready= ;;
    close) what='app with `server.close()` as PID 1' command=(node app.js --close) ;;
    close-tini) what='app with `server.close()` under tini' command=(tini -- node app.js --close) ;;
    guard-no-delay) what='app under guard without a drain delay' command=("${guard[@]}" -- node app.js) ready='guard ready' ;;
    guard)
        what='app under guard' ready='guard ready'
        command=("${guard[@]}" --drain-delay "$DRAIN_DELAY" -- node app.js)
        ;;
    guard-close)
        what='app with `server.close()` under guard' ready='guard ready'
        command=("${guard[@]}" --drain-delay "$DRAIN_DELAY" -- node app.js --close)
        ;;
    *)
        echo "run.sh: no variant $1; there are ${VARIANTS[*]}" >&2
        exit 2
        ;;
    esac
}

say() {
    echo "rolling: $*" >&2
}

# Everything of this run that is in the engine goes.
remove() {
    docker ps --all --quiet --filter label="$id" | xargs -r docker rm --force --volumes >/dev/null || true
    docker network rm "$id" >/dev/null 2>&1 || true
}

tidy_up() {
    local code=$?
    [ -z "$stopping" ] || kill "$stopping" 2>/dev/null || true
    remove
    rm -rf "$work"
    exit "$code"
}

# Waits until a command, which need not end by itself, prints a line that ends like this.
until_prints() {
    local end=$1 line='' lines reader
    shift
    exec {lines}< <(exec "$@" 2>&1)
    reader=$!
    while IFS= read -r -t 60 -u "$lines" line; do
        [[ $line != *"$end" ]] || break
    done
    kill "$reader" 2>/dev/null || true
    exec {lines}<&-
    [[ $line == *"$end" ]] || { say "no '$end' from: $*"; exit 1; }
}

build() {
    [ "$GUARD_IMAGE" != guard ] || docker image inspect guard >/dev/null 2>&1 || docker build --tag guard ../.. >&2
    docker build --build-arg GUARD_IMAGE="$GUARD_IMAGE" --build-arg NODE_IMAGE="$NODE_IMAGE" --tag "$IMAGE" . \
        >"$work/build" 2>&1 ||
        { cat "$work/build" >&2; exit 1; }
}

# Starts a container of the app; its name is then in $new.
start_app() {
    local health=()
    [ -z "$ready" ] || health=(--health-cmd "$ready" --health-interval 200ms)
    new=$id-app-$((count += 1))
    docker run --detach --label "$id" --network "$id" --name "$new" "${health[@]}" "$IMAGE" "${command[@]}" >/dev/null
}

# Waits until a container is ready, if anybody asks it.
until_ready() {
    [ -n "$ready" ] || return 0
    until_prints ': healthy' docker events --since 1 --format '{{.Status}}' --filter container="$1" --filter event=health_status
}

# Writes nginx's list of containers. It counts when nginx reads it.
list() {
    local name address
    : >"$work/servers.conf" >"$work/servers-once.conf"
    for name in "$@"; do
        address=$(docker inspect --format "{{(index .NetworkSettings.Networks \"$id\").IPAddress}}" "$name")
        echo "server $address:8080;" >>"$work/servers.conf"
        echo "server $address:8080 max_fails=0;" >>"$work/servers-once.conf"
    done
    docker cp "$work/servers.conf" "$id-nginx:/etc/nginx/servers.conf" >/dev/null
    docker cp "$work/servers-once.conf" "$id-nginx:/etc/nginx/servers-once.conf" >/dev/null
}

# Has nginx read its list: SIGHUP, as `nginx -s reload` sends it.
reload() {
    docker kill --signal HUP "$id-nginx" >/dev/null
}

start_nginx() {
    docker create --label "$id" --network "$id" --name "$id-nginx" "$NGINX_IMAGE" nginx -g 'daemon off;' >/dev/null
    docker cp nginx.conf "$id-nginx:/etc/nginx/nginx.conf" >/dev/null
    list "$@"
    docker start "$id-nginx" >/dev/null
}

# Starts the load, and waits until requests are answered.
start_load() {
    docker run --detach --label "$id" --network "$id" --name "$id-load" "$IMAGE" node load.js "$id-nginx" >/dev/null
    until_prints loading docker logs --follow "$id-load"
}

# Stops a container, and writes down how long that took, in ms, and its exit code.
stop_app() {
    local began=${EPOCHREALTIME/./}
    docker stop "$1" >/dev/null
    echo "$(((${EPOCHREALTIME/./} - began) / 1000)) $(docker inspect --format '{{.State.ExitCode}}' "$1")" >>"$work/stops"
}

# Replaces one of the containers that serve, by its place.
replace() {
    local old=${serving[$1]}
    start_app
    until_ready "$new"
    serving[$1]=$new
    list "$old" "${serving[@]}"
    reload
    list "${serving[@]}"
    stop_app "$old" &
    stopping=$!
    sleep "$ENDPOINTS_DELAY" # what is modelled: balancers do not know yet
    reload
    wait "$stopping"
    stopping=
}

# Prints the row of a variant that has been run.
row() {
    local sent get post once servers why longest codes
    read -r _ sent _ get _ post _ once _ servers _ why < <(docker logs "$id-load" | tail -n 1)
    say "$1: $servers containers have answered; lost: $why"
    [ "$servers" = "$count" ] || { say "there were $count of them"; exit 1; }
    longest=$(cut -d ' ' -f 1 "$work/stops" | sort -n | tail -n 1)
    codes=$(cut -d ' ' -f 2 "$work/stops" | sort -nu | paste -sd /)
    printf '| %s | %d | %d | %d | %d | %d.%d | %d × %s |\n' "$what" "$sent" "$get" "$post" "$once" \
        $((longest / 1000)) $((longest % 1000 / 100)) "$(wc -l <"$work/stops")" "$codes"
}

# Runs a variant.
measure() {
    local round
    choose "$1"
    say "$1: $what"
    count=0
    : >"$work/stops"
    docker network create "$id" >/dev/null
    start_app
    serving=("$new")
    start_app
    serving+=("$new")
    for new in "${serving[@]}"; do until_ready "$new"; done
    start_nginx "${serving[@]}"
    start_load
    for ((round = 0; round < ROUNDS; round++)); do
        replace 0
        replace 1
    done
    docker stop -t 20 "$id-load" >/dev/null
    row "$1"
    remove
}

trap tidy_up EXIT
trap 'exit 130' INT TERM HUP

[ $# -gt 0 ] || set -- "${VARIANTS[@]}"
for variant in "$@"; do choose "$variant"; done
build
say "Node $(docker run --rm "$IMAGE" node --version), nginx learns of a stop after $ENDPOINTS_DELAY s"
echo '| | requests | GET lost | POST lost | lost without a second try | longest stop, s | stopped × exit code |'
echo '| --- | ---: | ---: | ---: | ---: | ---: | --- |'
for variant in "$@"; do measure "$variant"; done
