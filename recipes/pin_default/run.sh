#!/bin/sh
# Train the shipped PIN: sh recipes/pin_default/run.sh WORK [STEPS]. WORK is the folder of recipes/default_vlm/run.sh.
set -eu
work=${1:?usage: run.sh WORK [STEPS]}
wherein train pin --out "$work/pin" --steps "${2:-600}" --images 3000 --seed 0 \
    --objects "$work/extra_bank" --backgrounds "$work/backgrounds" --resume
home=$(dirname "$0")/../../src/wherein/methods/pin/weights/default
mkdir -p "$home"
cp "$work/pin/adapter_config.json" "$work/pin/adapter_model.safetensors" "$work/pin/README.md" "$home/"
