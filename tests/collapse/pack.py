#!/usr/bin/env python3
"""Packs monitor readings of the experiments, as their option `--readings` writes them, for tests/collapse.rs.

    tests/collapse/pack.py margins.jsonl speakers.jsonl images.jsonl uci.jsonl > tests/collapse/readings.json.gz

One object for each run: its name, classes, dim and rows of a reading, then target cosines and lengths of the mean prototype in
thousandths, reading by reading.
"""

import gzip
import json
import sys

runs = {}
for path in sys.argv[1:]:
    with open(path) as lines:
        for line in lines:
            reading = json.loads(line)
            run = runs.setdefault(reading["run"], {"classes": reading["classes"], "dim": reading["dim"], "readings": []})
            numbers = (1000 * reading["target_cosine"], 1000 * reading["mean_prototype"])
            run["readings"].append((reading["rows"], *map(round, numbers)))

packed = []
for name, run in sorted(runs.items()):
    rows, cosines, lengths = zip(*run["readings"])
    packed.append({"run": name, "classes": run["classes"], "dim": run["dim"], "rows": rows, "cosines": cosines, "lengths": lengths})

text = "[\n" + ",\n".join(json.dumps(run, ensure_ascii=False, separators=(",", ":")) for run in packed) + "\n]\n"
# the same bytes whenever it is made
sys.stdout.buffer.write(gzip.compress(text.encode(), 9, mtime=0))
