"""Reads CSV, JSON, NDJSON and WAV with nothing but Python's standard library, and says as JSON what it read.

python3 read_formats.py FORMAT < file. Fails where a file is not whole.
"""

import csv
import io
import json
import struct
import sys
import wave


def read_csv(data):
    rows = list(csv.reader(io.StringIO(data.decode("utf-8"), newline="")))
    samples = [row for row in rows[1:] if "/" not in row[0]]
    gaps = [row[0].split("/") for row in rows[1:] if "/" in row[0]]
    return {"head": rows[0], "rows": samples, "gaps": gaps}


def read_json(data):
    # Numbers as the text they are, so that nothing is compared through a float.
    document = json.loads(data, parse_float=str, parse_int=str)
    assert int(document["samples"]) == len(document["rows"]), "rows are missing"
    return {
        "head": document["columns"],
        "rows": document["rows"],
        "gaps": [[gap["from"], gap["to"]] for gap in document["gaps"]],
    }


def read_ndjson(data):
    lines = [json.loads(line, parse_float=str, parse_int=str) for line in data.decode("utf-8").splitlines()]
    rows = [list(line.values()) for line in lines if "position" in line]
    assert int(lines[-1]["end"]["samples"]) == len(rows), "rows are missing"
    head = list(next((line for line in lines if "position" in line), {}))
    return {"head": head, "rows": rows, "gaps": [[line["gap"]["from"], line["gap"]["to"]] for line in lines if "gap" in line]}


PCM = bytes.fromhex("0100000000001000800000aa00389b71")


def read_wav(data):
    assert data[:4] == b"RIFF" and data[8:12] == b"WAVE", "no WAV"
    assert struct.unpack_from("<I", data, 4)[0] == len(data) - 8, "its length is not the one it says"
    at, comment, tag = 12, None, None
    while at < len(data):
        name, size = data[at : at + 4], struct.unpack_from("<I", data, at + 4)[0]
        if name == b"fmt ":
            tag = struct.unpack_from("<H", data, at + 8)[0]
            if tag == 0xFFFE:
                # What wave does itself from Python 3.12 on: look whether the extensible format is PCM.
                assert data[at + 32 : at + 48] == PCM, "no PCM"
                data = data[: at + 8] + struct.pack("<H", 1) + data[at + 10 :]
        if name == b"LIST":
            inner = at + 12
            while inner < at + 8 + size:
                length = struct.unpack_from("<I", data, inner + 4)[0]
                if data[inner : inner + 4] == b"ICMT":
                    comment = json.loads(data[inner + 8 : inner + 8 + length].rstrip(b"\0"))
                inner += 8 + length + length % 2
        at += 8 + size + size % 2
    with wave.open(io.BytesIO(data)) as file:
        width, channels = file.getsampwidth(), file.getnchannels()
        raw = file.readframes(file.getnframes())
        assert len(raw) == file.getnframes() * channels * width, "samples are missing"
        counts = [
            raw[i] - 128 if width == 1 else int.from_bytes(raw[i : i + width], "little", signed=True)
            for i in range(0, len(raw), width)
        ]
        return {
            "tag": tag,
            "bits": 8 * width,
            "channels": channels,
            "rate": file.getframerate(),
            "counts": counts,
            "session": comment,
        }


READERS = {"csv": read_csv, "json": read_json, "ndjson": read_ndjson, "wav": read_wav}

if __name__ == "__main__":
    json.dump(READERS[sys.argv[1]](sys.stdin.buffer.read()), sys.stdout)
