#!/bin/sh
# Train the shipped PIN: sh recipes/pin_default/run.sh WORK [STEPS].
# First: python recipes/default_vlm/build_bank.py --work WORK (not the run.sh beside it, which replaces the model's weights).
set -eu
work=${1:?usage: run.sh WORK [STEPS]}
wherein train pin --out "$work/pin" --steps "${2:-600}" --images 3000 --batch 24 --seed 0 \
    --objects "$work/extra_bank" --backgrounds "$work/backgrounds" --resume
home=$(dirname "$0")/../../src/wherein/methods/pin/weights/default
mkdir -p "$home"
cp "$work/pin/adapter_config.json" "$work/pin/adapter_model.safetensors" "$work/pin/README.md" "$home/"
