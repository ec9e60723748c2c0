#!/usr/bin/env bash
# A round with mosquitto's command line clients: mosquitto_round.sh PORT 3.1|3.1.1|5.0 PREFIX
set -euo pipefail
port=$1 version=$2 prefix=$3
# shellcheck source=.ci/interop.d/shell.sh
. "$(dirname "$0")/shell.sh"
declare -A names=([3.1]=mqttv31 [3.1.1]=mqttv311 [5.0]=mqttv5)
common=(-h localhost -p "$port" -V "${names[$version]}")
# LAYERS: tcp (the default) or tls; CHAIN: the certificate of localhost.
if [ "${LAYERS:-tcp}" = tls ]; then common+=(--cafile "$CHAIN"); fi
v5() { [ "$version" = 5.0 ]; }

publish() { timeout 30 mosquitto_pub "${common[@]}" "$@" || fail "mosquitto_pub $*: ended with $?"; }

# Starts a subscriber that ends by itself, and waits until it is subscribed, or has a message of its session.
listen() {
    local name=$1 format=$2
    shift 2
    # What an earlier one of this name wrote must not be taken for its own.
    rm -f "$folder/$name"
    stdbuf -oL mosquitto_sub "${common[@]}" -i "$prefix-$name" -W 30 -d -F "> $format" "$@" >"$folder/$name" 2>&1 &
    listener=$!
    listeners+=("$listener")
    until_true grep -qs -e 'Subscribed' -e '^> ' "$folder/$name" || fail "$name is not subscribed: $(cat "$folder/$name")"
}
# Waits for the subscriber NAME with this process id and compares what it got; with a fourth argument sorted by
# the first word alone.
expect() {
    local name=$1 pid=$2 expected=$3 got
    wait "$pid" || fail "$name ended with $? without '$expected': $(cat "$folder/$name")"
    forget "$pid"
    got=$(sed -n 's/^> //p' "$folder/$name")
    if [ -n "${4-}" ]; then got=$(sort -s -k 1,1 <<<"$got"); fi
    same "$name" "$expected" "$got"
}

qos_both_ways() {
    local wanted qos expected
    for wanted in 0 1 2; do
        listen "q$wanted" '%q %r %t %p' -q "$wanted" -t "$prefix/qos/$wanted/+" -C 4
        expected=
        for qos in 0 1 2; do
            publish -q "$qos" -t "$prefix/qos/$wanted/x" -m "sent $qos"
            expected+="$((qos < wanted ? qos : wanted)) 0 $prefix/qos/$wanted/x sent $qos"$'\n'
        done
        publish -q 2 -t "$prefix/qos/$wanted/y" -s <<<'the last'
        expect "q$wanted" "$listener" "${expected}$wanted 0 $prefix/qos/$wanted/y the last"
    done
}

many_in_order() {
    listen many '%p' -q 2 -t "$prefix/many" -C 300
    seq 300 | publish -q 2 -t "$prefix/many" -l
    expect many "$listener" "$(seq 300)"
}

properties_are_forwarded() {
    listen properties '%t|%p|%C|%D|%F|%P|%R|%S' -q 1 -t "$prefix/properties" -C 1 -D subscribe subscription-identifier 77
    publish -q 1 -t "$prefix/properties" -m all -D publish user-property b 1 -D publish user-property a 2 \
        -D publish response-topic "$prefix/answers" -D publish correlation-data 12ab \
        -D publish content-type text/plain -D publish payload-format-indicator 1
    expect properties "$listener" "$prefix/properties|all|text/plain|12ab|1|b:1 a:2|$prefix/answers|77"
    listen expiry '%E' -q 1 -t "$prefix/expiry" -C 1
    publish -q 1 -t "$prefix/expiry" -m x -D publish message-expiry-interval 600
    wait "$listener" || fail "no message with an expiry"
    forget "$listener"
    local left
    left=$(sed -n 's/^> //p' "$folder/expiry")
    [[ $left =~ ^[0-9]+$ ]] && [ "$left" -ge 1 ] && [ "$left" -le 600 ] || fail "expiry: expected 1 to 600, got '$left'"
    # mosquitto_pub repeats the topic with its alias; the subscriber sees the topic.
    listen alias '%t %p' -q 1 -t "$prefix/alias" -C 3
    printf '%s\n' one two three | publish -q 1 -t "$prefix/alias" -l -D publish topic-alias 5
    expect alias "$listener" "$(printf "$prefix/alias %s\n" one two three)"
}

request_and_response() {
    listen responder '%R' -q 1 -t "$prefix/request" -C 1
    timeout 30 mosquitto_rr "${common[@]}" -i "$prefix-rr" -q 1 -t "$prefix/request" -e "$prefix/response" -m question \
        >"$folder/rr" 2>&1 &
    local asker=$!
    listeners+=("$asker")
    expect responder "$listener" "$prefix/response"
    publish -q 1 -t "$prefix/response" -m answer
    wait "$asker" || fail "mosquitto_rr ended with $?: $(cat "$folder/rr")"
    forget "$asker"
    same response answer "$(cat "$folder/rr")"
}

will_of_a_client_that_dies() {
    local watcher extra=()
    listen watcher '%q %r %t %p' -q 2 -t "$prefix/will" -C 1
    watcher=$listener
    if v5; then extra=(-D will user-property why dead); fi
    listen dying '%p' -t "$prefix/none" --will-topic "$prefix/will" --will-payload gone --will-qos 2 --will-retain \
        "${extra[@]}"
    die "$listener"
    expect watcher "$watcher" "2 0 $prefix/will gone"
    listen late '%q %r %t %p' -q 1 -t "$prefix/will" -C 1
    expect late "$listener" "1 1 $prefix/will gone"
    publish -q 1 -r -t "$prefix/will" -n
}

retained() {
    publish -q 1 -r -t "$prefix/retained/x" -m old
    publish -q 2 -r -t "$prefix/retained/x" -m new
    publish -q 0 -r -t "$prefix/retained/y" -m other
    listen late '%q %r %t %p' -q 2 -t "$prefix/retained/x" -C 1
    expect late "$listener" "2 1 $prefix/retained/x new"
    publish -q 1 -r -t "$prefix/retained/x" -n
    listen rest '%q %r %t %p' -q 2 -t "$prefix/retained/+" -C 2
    publish -q 1 -t "$prefix/retained/x" -m live
    expect rest "$listener" "0 1 $prefix/retained/y other
1 0 $prefix/retained/x live"
    publish -q 0 -r -t "$prefix/retained/y" -n
    listen none '%r %t %p' -q 1 -t "$prefix/retained/#" -C 1
    publish -q 1 -t "$prefix/retained/z" -m live
    expect none "$listener" "0 $prefix/retained/z live"
}

resume() {
    local lasting=(-c -q 2 -t "$prefix/resume")
    timeout 30 mosquitto_sub "${common[@]}" -i "$prefix-resumed" "${lasting[@]}" -E || fail "not subscribed"
    publish -q 1 -t "$prefix/resume" -m first
    seq 2 40 | publish -q 2 -t "$prefix/resume" -l
    publish -q 1 -t "$prefix/resume" -m last
    listen resumed '%q %p' "${lasting[@]}" -C 41
    # QoS 2 messages are handed out at their PUBREL: the order holds within each quality of service.
    expect resumed "$listener" "1 first
1 last
$(seq 2 40 | sed 's/^/2 /')" by_qos
    # A clean session ends what was kept.
    timeout 30 mosquitto_sub "${common[@]}" -i "$prefix-resumed" -q 2 -t "$prefix/other" -E || fail "not subscribed"
    publish -q 1 -t "$prefix/resume" -m lost
    listen resumed '%q %p' "${lasting[@]}" -C 1
    publish -q 2 -t "$prefix/resume" -m 'after it'
    expect resumed "$listener" "2 after it"
    timeout 30 mosquitto_sub "${common[@]}" -i "$prefix-resumed" -q 2 -t "$prefix/other" -E || fail "not subscribed"
}

shared() {
    local one two
    listen m1 '%p' -q 1 -t "\$share/$prefix/$prefix/shared/+"
    one=$listener
    listen m2 '%p' -q 1 -t "\$share/$prefix/$prefix/shared/+"
    two=$listener
    seq 40 | publish -q 1 -t "$prefix/shared/x" -l
    have() { [ "$(cat "$folder/m1" "$folder/m2" | grep -c '^> ')" -ge 40 ]; }
    until_true have || fail "shared: expected 40 messages, got $(cat "$folder/m1" "$folder/m2" | grep -c '^> ')"
    grep -q '^> ' "$folder/m1" && grep -q '^> ' "$folder/m2" || fail "shared: expected some for both members, got none"
    same shared "$(seq 40 | sort)" "$(cat "$folder/m1" "$folder/m2" | sed -n 's/^> //p' | sort)"
    die "$one"
    die "$two"
}

steps=(qos_both_ways many_in_order will_of_a_client_that_dies retained resume shared)
if v5; then steps+=(properties_are_forwarded request_and_response); fi
for step in "${steps[@]}"; do
    "$step"
    printf '%s ' "$step"
done
echo
