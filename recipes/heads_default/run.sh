#!/bin/sh
# Find the heads of the built-in model; what comes out is src/wherein/methods/heads/found/default.json.
set -e
mkdir -p "$1"
wherein heads find --out "$1/heads.json" --by agreement --pool 600 --trials 5 --seed 0
