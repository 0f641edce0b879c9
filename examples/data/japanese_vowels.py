#!/usr/bin/env python3
"""Brings JapaneseVowels to one line per utterance: how japanese_vowels.csv.gz was made.

    pip download --no-deps aeon==1.6.0 && unzip aeon-1.6.0-*.whl 'aeon/datasets/data/JapaneseVowels/*'
    python3 examples/data/japanese_vowels.py aeon/datasets/data/JapaneseVowels examples/data/japanese_vowels.csv.gz

An utterance is 7 to 29 frames of 12 cepstra. It becomes 36 numbers as in voices.py: mean and standard deviation of each
cepstrum, and the standard deviation of its slope. Needs numpy and nothing else.
"""

import argparse
import gzip
import hashlib
from pathlib import Path

import numpy as np

# the file has whole numbers: ten-thousandths
UNIT = 10_000


def utterances(path):
    """Speaker and cepstra [12, frames] of each line after @data."""
    data = path.read_text().split("@data\n", 1)[1]
    for line in data.splitlines():
        if line.strip():
            *channels, speaker = line.split(":")
            rows = [[float(value) for value in channel.split(",")] for channel in channels]
            # shorter utterances are filled with NaN at the end in some editions
            cepstra = np.array(rows)
            yield int(speaker), cepstra[:, ~np.isnan(cepstra).any(0)]


def features(cepstra):
    slopes = (cepstra[:, 2:] - cepstra[:, :-2]) / 2.0
    return np.concatenate([cepstra.mean(1), cepstra.std(1), slopes.std(1)])


def main():
    parser = argparse.ArgumentParser(description="Brings JapaneseVowels to one line per utterance.")
    parser.add_argument("folder", type=Path, help="with JapaneseVowels_TRAIN.ts and JapaneseVowels_TEST.ts")
    parser.add_argument("out", type=Path, help="the .csv.gz file to write")
    args = parser.parse_args()
    lines = []
    for part in ["train", "test"]:
        for speaker, cepstra in utterances(args.folder / f"JapaneseVowels_{part.upper()}.ts"):
            row = np.rint(features(cepstra) * UNIT).astype(int)
            lines.append(",".join([*map(str, row), str(speaker - 1), part]))
    text = ("\n".join(lines) + "\n").encode()
    packed = gzip.compress(text, 9, mtime=0)
    args.out.write_bytes(packed)
    print(f"{len(lines)} utterances\nunpacked  {hashlib.sha256(text).hexdigest()}")
    print(f"packed    {hashlib.sha256(packed).hexdigest()}")


if __name__ == "__main__":
    main()
