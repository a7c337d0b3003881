#!/usr/bin/env python3
"""Prints the files of a directory that match the patterns: glob.py DIRECTORY PATTERN...

Meson does not look for files on purpose. Tests, fuzzers, benches and examples are found by name all
the same, because adding one should mean writing one file; tools/build sees to it that Meson
looks again when the list changes.
"""

import pathlib
import sys

directory = pathlib.Path(sys.argv[1])
for pattern in sys.argv[2:]:
    for path in sorted(directory.glob(pattern)):
        print(path.relative_to(directory).as_posix())
