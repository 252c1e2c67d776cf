#!/bin/sh
# Train PIN's baselines on the built-in model, then its table 1: sh recipes/reproduce_pin/run.sh WORK DATA...
# First: python recipes/default_vlm/build_bank.py --work WORK (not the run.sh beside it, which replaces the model's weights).
# Each has the composites, the steps and the objective of the PIN in the package.
set -eu
usage="usage: run.sh WORK DATA..."
work=${1:?$usage}
shift
: "${1:?$usage}"
for data in "$@"; do
    [ -e "$data" ] || { echo "error: there is no data set $data" >&2; exit 2; }  # now, not after hours of training
done
here=$(dirname "$0")/../../src/wherein/methods
for row in coop:1e-2 vpt:1e-3 lora:1e-3; do
    method=${row%%:*}
    wherein train "$method" --out "$work/trained/$method" --rate "${row##*:}" --steps 600 --images 3000 --seed 0 \
        --objects "$work/extra_bank" --backgrounds "$work/backgrounds" --cache "$work/pin/cache" --resume
    home=$here/$method/weights/default
    mkdir -p "$home"
    cp "$work/trained/$method/adapter_config.json" "$work/trained/$method/adapter_model.safetensors" \
        "$work/trained/$method/README.md" "$home/"
done
wherein reproduce pin --table 1 --model default --out "$work/reproduced" --data "$@"
