#!/bin/sh
# Fetches NVIDIA's assembler of PTX, with which the tests prove that every kernel assembles, to .ptx-tools/ (about 40 MB).
# Needs python3 with venv, and the network once; without it the tests of ptxas are skipped, and say so.
#   scripts/ptxas.sh                    prints where ptxas is
#   scripts/ptxas.sh FILE.ptx [ARCH]    assembles a file for sm_80 or ARCH, and prints what it takes
set -eu
cd "$(dirname "$0")/.."
tools=.ptx-tools
if [ ! -x "$tools/ptxas" ]; then
    python3 -m venv "$tools"
    # 13.0 takes PTX up to 9.0, as driver 580 does; newer ones would hide errors of the version.
    "$tools/bin/pip" install -q --no-deps nvidia-cuda-nvcc==13.0.88
    at=$("$tools/bin/python" -c 'import sysconfig, os; print(os.path.join(sysconfig.get_paths()["purelib"], "nvidia/cu13/bin/ptxas"))')
    ln -s "$at" "$tools/ptxas"
fi
if [ $# -eq 0 ]; then
    echo "$PWD/$tools/ptxas"
else
    "$tools/ptxas" -v -arch="${2:-sm_80}" "$1" -o /dev/null
fi
