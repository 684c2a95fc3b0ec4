"""bench: what the kernels cost, measured: `python -m slm2c.bench`, or `make bench` and `make bench-check`.

Instructions are counted in QEMU, exactly, and are the same on every machine; nothing is timed.

suite.py    what is measured: the example student on each core, students of growing depth, long ones
measure.py  one model on one emulated board: whole runs, and each kernel call
peers.py    the same layers with CMSIS-NN, which the user has built
results.py  what was found, and its form in docs/performance.json
check.py    what grew since that file was written
render.py   docs/PERFORMANCE.md; plot.py its pictures
"""
