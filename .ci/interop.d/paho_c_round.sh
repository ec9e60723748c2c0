#!/usr/bin/env bash
# A round with the example programs of the paho C client, asynchronous and synchronous:
# paho_c_round.sh PORT 3.1|3.1.1|5.0 PREFIX
# They always start clean, so no session can be resumed with them.
set -euo pipefail
port=$1 version=$2 prefix=$3
# shellcheck source=.ci/interop.d/shell.sh
. "$(dirname "$0")/shell.sh"
declare -A names=([3.1]=31 [3.1.1]=311 [5.0]=5)
common=(-h 127.0.0.1 -p "$port" -V "${names[$version]}")
v5() { [ "$version" = 5.0 ]; }

# publish PROGRAM ARGUMENTS: ends when the message was acknowledged.
publish() {
    local program=$1
    shift
    timeout 30 "$program" "${common[@]}" -i "$prefix-pub" "$@" >"$folder/pub" 2>&1 ||
        fail "$program $*: ended with $?: $(cat "$folder/pub")"
}

# listen PROGRAM NAME ARGUMENTS: a subscriber with a trace of its packets; returns once it is subscribed.
listen() {
    local program=$1 name=$2
    shift 2
    # What an earlier one of this name wrote must not be taken for its own.
    rm -f "$folder/$name" "$folder/$name.trace"
    stdbuf -oL "$program" "${common[@]}" -i "$prefix-$name" --trace protocol "$@" \
        >"$folder/$name" 2>"$folder/$name.trace" &
    listener=$!
    listeners+=("$listener")
    until_true grep -qsi 'SUBACK' "$folder/$name" "$folder/$name.trace" ||
        fail "$name is not subscribed: $(cat "$folder/$name" "$folder/$name.trace")"
}

# Waits until NAME has a line that matches.
has() { until_true grep -qs -e "$2" "$folder/$1" || fail "$1: expected '$2', got '$(cat "$folder/$1" "$folder/$1.trace")'"; }

# Ends a subscriber in order.
end() {
    kill -TERM "$1"
    wait "$1" || fail "a subscriber ended with $?"
    forget "$1"
}

qos_both_ways() {
    local program wanted qos
    for program in c cs; do
        for wanted in 0 1 2; do
            local topic="$prefix/$program/$wanted"
            listen "paho_${program}_sub" "$program$wanted" -q "$wanted" -t "$topic"
            for qos in 0 1 2; do publish "paho_${program}_pub" -q "$qos" -t "$topic" -m "sent $qos"; done
            has "$program$wanted" 'sent 2'
            same "$topic" "$(printf 'sent %s\n' 0 1 2)" "$(grep -oE 'sent [012]$' "$folder/$program$wanted")"
            end "$listener"
        done
    done
}

properties_are_forwarded() {
    listen paho_c_sub properties -v -q 2 -t "$prefix/properties"
    publish paho_c_pub -q 2 -t "$prefix/properties" -m all --user-property name value --message-expiry 600
    has properties 'all'
    has properties 'name'
    has properties 'value'
    has properties 'MESSAGE_EXPIRY_INTERVAL'
    end "$listener"
}

will_of_a_client_that_dies() {
    local watcher
    listen paho_cs_sub watcher -q 2 -t "$prefix/will"
    watcher=$listener
    listen paho_c_sub dying -q 0 -t "$prefix/none" --will-topic "$prefix/will" --will-payload gone --will-qos 2
    die "$listener"
    has watcher 'gone'
    listen paho_c_sub polite -q 0 -t "$prefix/none" --will-topic "$prefix/will" --will-payload 'not said' --will-qos 2
    end "$listener"
    publish paho_c_pub -q 1 -t "$prefix/will" -m 'after it'
    has watcher 'after it'
    if grep -q 'not said' "$folder/watcher"; then fail "the will of a client that disconnected: expected none, got one"; fi
    end "$watcher"
}

retained() {
    publish paho_c_pub -q 1 -r -t "$prefix/retained" -m old
    publish paho_cs_pub -q 2 -r -t "$prefix/retained" -m new
    listen paho_c_sub late -q 1 -t "$prefix/retained"
    has late 'new'
    if grep -q 'old' "$folder/late"; then fail "retained: expected 'new' alone, got: $(cat "$folder/late")"; fi
    publish paho_c_pub -q 1 -r -t "$prefix/retained" -n
    listen paho_cs_sub later -q 1 -t "$prefix/retained"
    publish paho_c_pub -q 1 -t "$prefix/retained" -m live
    has later 'live'
    if grep -q 'new' "$folder/later"; then fail "cleared: expected 'live' alone, got: $(cat "$folder/later")"; fi
    end "$listener"
}

shared() {
    local n one two
    listen paho_c_sub m1 -q 1 -t "\$share/$prefix/$prefix/shared"
    one=$listener
    listen paho_cs_sub m2 -q 1 -t "\$share/$prefix/$prefix/shared"
    two=$listener
    for n in 1 2 3 4 5 6; do publish paho_c_pub -q 1 -t "$prefix/shared" -m "number $n"; done
    all() { cat "$folder/m1" "$folder/m2" | grep -oE 'number [0-9]$' | sort; }
    have() { [ "$(all | wc -l)" -ge 6 ]; }
    until_true have || fail "shared: expected 6 messages, got $(all)"
    same shared "$(printf 'number %s\n' 1 2 3 4 5 6)" "$(all)"
    end "$one"
    end "$two"
}

steps=(qos_both_ways will_of_a_client_that_dies retained shared)
if v5; then steps+=(properties_are_forwarded); fi
for step in "${steps[@]}"; do
    "$step"
    printf '%s ' "$step"
done
echo
