#!/bin/sh
# Rebuild the default VLM's own weights and the object bank from the registries:
# sh recipes/default_vlm/run.sh WORK [OPTIONS of train.py]
set -eu
work=${1:?usage: run.sh WORK [OPTIONS of train.py]}
shift
home=$(dirname "$0")
python "$home/build_bank.py" --work "$work"
python "$home/build_vocabulary.py" --extra "$work/extra_bank"
python "$home/train.py" --work "$work" --extra "$work/extra_bank" --backgrounds "$work/backgrounds" \
    --out "$home/../../src/wherein/vlm/weights/default.safetensors" "$@"
python "$home/measure.py" --backgrounds "$work/backgrounds"
