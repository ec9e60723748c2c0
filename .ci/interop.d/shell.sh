# What the rounds in bash share. Sourced with: port, version, prefix.
# shellcheck shell=bash

folder=$(mktemp -d)
# Subscribers that run, by their process ids.
listeners=()

finish() {
    local pid
    for pid in "${listeners[@]}"; do kill -KILL "$pid" 2>/dev/null || true; done
    rm -rf "$folder"
}
trap finish EXIT

fail() { echo "$*" >&2; exit 1; }

same() { [ "$2" = "$3" ] || fail "$1: expected '$2', got '$3'"; }

# Waits until a command succeeds, for 30 s at most.
until_true() {
    local i
    for ((i = 0; i < 600; i++)); do
        if "$@"; then return 0; fi
        sleep 0.05
    done
    return 1
}

forget() {
    local kept=() pid
    for pid in "${listeners[@]}"; do [ "$pid" = "$1" ] || kept+=("$pid"); done
    listeners=("${kept[@]}")
}

# Ends a client without a DISCONNECT.
die() {
    kill -KILL "$1"
    wait "$1" 2>/dev/null || true
    forget "$1"
}
