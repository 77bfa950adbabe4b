"""Writes tests/golden/bad_ranges/NN.txt: range files that must be refused as malformed."""

from pathlib import Path

HEAD = "TRT-8601-EntropyCalibration2\n"
BAD = [
    # no header
    "", "x", "TRT", "\n", "input: 3f800000\n",
    # lines of the wrong form: seven digits, nine, no blank, no number, no name, no digit
    HEAD + "input: 3f80000\n", HEAD + "input: 3f8000000\n", HEAD + "input:3f800000\n",
    HEAD + "input\n", HEAD + ": 3f800000\n", HEAD + "input: 3f80000g\n", HEAD + "a\0b: 3f800000\n",
    # infinities, NaN, a negative scale, a name twice
    HEAD + "input: 7f800000\n", HEAD + "input: ff800000\n", HEAD + "input: 7fc00000\n",
    HEAD + "input: bf800000\n", HEAD + "a: 3f800000\nb: 3f800000\na: 3f800000\n",
    # JSON that is none, or no ranges
    "{", '{"a": [1]}', '{"a": [2, 1]}', '{"a": ["x", 1]}', '{"a": {"lowest": 1}}',
    '{"a": [1, 1e999]}', '{"a": [NaN, 1]}', '{"a": [0, 1], "a": [0, 1]}',
    '{"CLS": "TensorsData", "data": []}', '{"a": ' * 5000, '{"a": [0, 1]} x',
    '{"\\ud800": [0, 1]}', '{"a\\u0000b": [0, 1]}',
]  # fmt: skip

folder = Path(__file__).parent / "bad_ranges"
folder.mkdir(exist_ok=True)
for number, text in enumerate(BAD):
    (folder / f"{number:02d}.txt").write_bytes(text.encode())
