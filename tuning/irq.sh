#!/bin/sh
# Puts each interrupt of a network card on a core of its own, one core after the other.
#   tuning/irq.sh CARD [CORES]        such as: tuning/irq.sh eth0 0-7
#   tuning/irq.sh --show CARD         where they are, and how many each core has had
# SYS=DIR takes a copied tree in place of the machine. It holds until the next boot; irqbalance undoes it, so stop that
# first: systemctl disable --now irqbalance.
#
# Not tried on a card with several queues, so there is no figure: the machine of the tests has one queue. What it writes
# is tested on copied trees.
set -eu

root=${SYS:-}
usage() { sed -n '2,4p' "$0" | sed 's/^# *//' >&2; exit 2; }

# The numbers of a card's interrupts: by its name, or by that of its virtio device.
numbers() {
    device=$(basename "$(readlink -f "$root/sys/class/net/$1/device" || true)")
    awk -v card="$1" -v device="$device" '
        { number = $1; sub(":", "", number); name = $NF }
        number !~ /^[0-9]+$/ { next }
        {
            found = 0
            count = split(name, parts, /[-@:]/)
            for (i = 1; i <= count; i++) if (parts[i] == card) found = 1
            if (device ~ /^virtio/ && (index(name, device "-input") == 1 || index(name, device "-output") == 1)) found = 1
            if (found) print number
        }' "$root/proc/interrupts"
}

# The numbers of a list such as 0-2,5.
cores() {
    echo "$1" | tr ',' '\n' | while IFS=- read -r first last; do
        i=$first
        while [ "$i" -le "${last:-$first}" ]; do
            echo "$i"
            i=$((i + 1))
        done
    done
}

[ $# -ge 1 ] || usage
if [ "$1" = --show ]; then
    [ $# -eq 2 ] || usage
    for number in $(numbers "$2"); do
        printf '%s on cores %s:' "$number" "$(cat "$root/proc/irq/$number/smp_affinity_list")"
        awk -v number="$number:" '$1 == number { for (i = 2; i <= NF && $i ~ /^[0-9]+$/; i++) printf " %s", $i }' \
            "$root/proc/interrupts"
        echo
    done
    exit 0
fi

card=$1
all=$(cores "${2:-$(cat "$root/sys/devices/system/cpu/online")}")
found=$(numbers "$card")
[ -n "$found" ] || { echo "irq.sh: no interrupts of $card in $root/proc/interrupts" >&2; exit 1; }
rest=$all
status=0
for number in $found; do
    [ -n "$rest" ] || rest=$all
    core=$(echo "$rest" | head -n 1)
    rest=$(echo "$rest" | tail -n +2)
    if echo "$core" >"$root/proc/irq/$number/smp_affinity_list"; then
        echo "$number -> core $core"
    else
        echo "irq.sh: interrupt $number stays where it is" >&2
        status=1
    fi
done
exit $status
