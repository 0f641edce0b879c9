#!/usr/bin/env python3
"""Renders synthetic speakers with espeak-ng and writes their features: how voices.csv.gz was made.

    apt-get install espeak-ng
    python3 examples/data/voices.py examples/data/voices.csv.gz

Every voice variant that sounds different from the ones before it is a speaker: 98 of 101 in espeak-ng 1.51. It says 16 times four digits, each time
with another rate, pitch and level of noise. An utterance becomes 60 numbers: mean and standard deviation of 20 mel cepstra
over its frames, and the standard deviation of their slope over time. Needs numpy and nothing else; the same seed, the same
espeak-ng and the same voice files give the same numbers.
"""

import argparse
import gzip
import hashlib
import re
import subprocess
import sys
from pathlib import Path

import numpy as np

SEED = 2026
UTTERANCES = 16
DIGITS = "zero one two three four five six seven eight nine".split()
DIGITS_OF_AN_UTTERANCE = 4
LANGUAGE = "en-us"
# faster speech of the same speaker
NO_VOICES = {"fast"}
# words per minute, espeak-ng's pitch (0 to 99, 50 is the voice's own), and signal to noise in dB
RATES, PITCHES, NOISES = (140, 210), (30, 70), (10.0, 25.0)

FRAME, STEP = 0.025, 0.010  # seconds
BANDS, CEPSTRA = 26, 20
LOWEST, HIGHEST = 60.0, 8000.0  # Hz
# the file has whole numbers: thousandths
UNIT = 1000


def voices():
    """espeak-ng's version, and the names of all variants, sorted."""
    version = subprocess.run(["espeak-ng", "--version"], capture_output=True, text=True, check=True).stdout
    folder = re.search(r"Data at: (.+)", version)
    if folder is None:
        sys.exit("espeak-ng --version does not say where its data is")
    return version.strip(), sorted(f.name for f in (Path(folder[1].strip()) / "voices" / "!v").iterdir())


def speak(voice, text, rate=175, pitch=50):
    """The samples of a text, and how many make a second."""
    command = ["espeak-ng", "-v", f"{LANGUAGE}+{voice}", "-s", str(rate), "-p", str(pitch), "--stdout", text]
    wave = subprocess.run(command, capture_output=True, check=True).stdout
    if wave[:4] != b"RIFF" or wave[36:40] != b"data":
        sys.exit(f"espeak-ng gave no plain WAV file for the voice {voice}")
    return np.frombuffer(wave[44:], "<i2").astype(float), int.from_bytes(wave[24:28], "little")


def mel_bands(length, rate):
    """Triangles over the bins of a spectrum, evenly spaced in mel: [BANDS, bins]."""
    mel = lambda hertz: 1127.0 * np.log1p(hertz / 700.0)
    corners = 700.0 * np.expm1(np.linspace(mel(LOWEST), mel(HIGHEST), BANDS + 2) / 1127.0)
    bins = np.arange(length // 2 + 1) * rate / length
    left, middle, right = corners[:-2, None], corners[1:-1, None], corners[2:, None]
    return np.maximum(0.0, np.minimum((bins - left) / (middle - left), (right - bins) / (right - middle)))


def cepstra(samples, rate):
    """Mel cepstra 0 to CEPSTRA - 1 of every frame: [frames, CEPSTRA]."""
    size, step = round(FRAME * rate), round(STEP * rate)
    starts = np.arange(0, len(samples) - size + 1, step)
    frames = samples[starts[:, None] + np.arange(size)] * np.hamming(size)
    length = 1 << (size - 1).bit_length()
    power = np.abs(np.fft.rfft(frames, length)) ** 2
    bands = np.log(power @ mel_bands(length, rate).T + 1e-12)
    waves = np.cos(np.pi / BANDS * np.outer(np.arange(CEPSTRA), np.arange(BANDS) + 0.5))
    return bands @ waves.T * np.sqrt(2.0 / BANDS)


def features(samples, rate):
    """60 numbers of an utterance."""
    c = cepstra(samples, rate)
    slopes = (c[2:] - c[:-2]) / 2.0
    return np.concatenate([c.mean(0), c.std(0), slopes.std(0)])


def utterance(voice, rng):
    """An utterance with everything drawn; its level is brought to 1 first, so that loudness tells nothing."""
    text = " ".join(DIGITS[i] for i in rng.integers(10, size=DIGITS_OF_AN_UTTERANCE))
    rate, pitch = int(rng.integers(*RATES)), int(rng.integers(*PITCHES))
    samples, frequency = speak(voice, text, rate, pitch)
    samples /= np.sqrt(np.mean(samples**2))
    noise = 10.0 ** (-rng.uniform(*NOISES) / 20.0)
    return features(samples + noise * rng.standard_normal(len(samples)), frequency)


def main():
    parser = argparse.ArgumentParser(description="Renders synthetic speakers and writes their features.")
    parser.add_argument("out", type=Path, help="the .csv.gz file to write")
    out = parser.parse_args().out

    version, names = voices()
    heard, speakers = set(), []
    for name in names:
        sound = speak(name, " ".join(DIGITS))[0].tobytes()
        if sound in heard or name in NO_VOICES:
            print(f"left out: {name}", file=sys.stderr)
        else:
            heard.add(sound)
            speakers.append(name)

    lines = []
    for i, name in enumerate(speakers):
        for number in range(UTTERANCES):
            row = features_in_units(utterance(name, np.random.default_rng([SEED, i, number])))
            lines.append(",".join([*map(str, row), name.replace(" ", "_")]))
        if (i + 1) % 10 == 0:
            print(f"{i + 1} of {len(speakers)} voices", file=sys.stderr)
    text = ("\n".join(lines) + "\n").encode()
    packed = gzip.compress(text, 9, mtime=0)
    out.write_bytes(packed)
    print(f"{version}, numpy {np.__version__}: {len(lines)} utterances of {len(speakers)} voices", file=sys.stderr)
    print(f"unpacked  {hashlib.sha256(text).hexdigest()}\npacked    {hashlib.sha256(packed).hexdigest()}")


def features_in_units(values):
    """Whole thousandths, so that the last bits of a sum do not show."""
    return np.rint(values * UNIT).astype(int)


if __name__ == "__main__":
    main()
