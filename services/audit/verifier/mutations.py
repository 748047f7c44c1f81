"""No mocks, no imitation, no bypass: real servers, real data.

Bends an export of a real log in every way that the issue names and asks the verifier each time. Each mutation has to be
found, and the first bad index named: exactly, where the export itself gives it away; where an attacker has rewritten
everything that the export says (entries, hashes, even the log's own signatures, with its stolen key), the entries under
the first checkpoint that the witness does not confirm, and exactly with the hashes of an earlier verification.

    mutations.py FOLDER --count N [--seed S]        FOLDER comes from testing/sample.ts
"""
import argparse
import base64
import hashlib
import io
import json
import random
import sys
import time
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

import verify as verifier

KINDS = ("flip", "drop", "reorder", "truncate", "rewrite", "rewrite-and-rehash", "rewrite-and-resign", "fork")


class Remembered:
    """A public key that is asked about the same signature once: most of an export is the same in each mutation."""

    def __init__(self, key):
        self.key, self.answers = key, {}

    def verify(self, signature, message):
        asked = bytes(signature), bytes(message)
        if asked not in self.answers:
            try:
                self.key.verify(signature, message)
                self.answers[asked] = True
            except InvalidSignature:
                self.answers[asked] = False
        if not self.answers[asked]:
            raise InvalidSignature


class Sample:
    """An export as lines, and for each line the first and last index that a change of it puts in doubt."""

    def __init__(self, folder):
        self.lines = (folder / "export.ndjson").read_bytes().splitlines(keepends=True)
        keys = json.loads((folder / "keys.json").read_text())
        self.log, self.witness = verifier.Key(keys["log"], 1), verifier.Key(keys["witness"], 4)
        for key in (self.log, self.witness):
            key.key = Remembered(key.key)
        self.fetched = (folder / "checkpoint.txt").read_bytes().decode()
        # The log's own key, as of an attacker who has stolen it; the witness's he can't have.
        self.stolen = load_pem_private_key((folder / "log-private.pem").read_bytes(), None)
        self.content = [json.loads(line) for line in self.lines]
        self.size, self.known = verifier.verify(self.lines, self.log, self.witness, self.fetched)
        self.bounds, self.segments, index, sealed = [], {}, 0, 0
        for content in self.content:
            if content["kind"] == "checkpoint":
                self.bounds.append((sealed, index - 1))
                self.segments.update(dict.fromkeys(range(sealed, index), (sealed, index - 1)))
                sealed = index
            else:
                self.bounds.append((index, index))
                index += content["kind"] != "log"
        self.leaves = [place for place, content in enumerate(self.content) if content["kind"] in ("entry", "hash")]
        self.places = frozenset(self.leaves)

    def ask(self, lines, known=b""):
        """What the verifier says: None when it finds nothing, else (first, last)."""
        try:
            verifier.verify(lines, self.log, self.witness, self.fetched, known)
            return None
        except verifier.Bad as bad:
            return bad.first, bad.last


def dump(content):
    return (json.dumps(content, ensure_ascii=False, separators=(",", ":")) + "\n").encode()


def flip(sample, dice):
    """One bit anywhere, line breaks too."""
    place = dice.randrange(len(sample.lines))
    line = bytearray(sample.lines[place])
    bit = dice.randrange(8 * len(line))
    line[bit // 8] ^= 1 << bit % 8
    lines = as_file(b"".join([*sample.lines[:place], bytes(line), *sample.lines[place + 1:]]))
    first, last = sample.bounds[place]
    # A checkpoint that can't be read is noticed where the next entry should be.
    return lines, [(first, last)] if sample.content[place]["kind"] != "checkpoint" else [(first, last), (last + 1,) * 2]


def as_file(data):
    """The lines that reading a file gives: they end with a line feed and with nothing else."""
    return list(io.BytesIO(data))


def drop(sample, dice):
    """A line is missing."""
    place = dice.randrange(len(sample.lines))
    first, last = sample.bounds[place]
    if sample.content[place]["kind"] == "checkpoint":
        # The next checkpoint misses it.
        rest = [bounds for bounds, content in zip(sample.bounds, sample.content) if content["kind"] == "checkpoint"]
        last = next((after for before, after in rest if before == last + 1), last)
    return sample.lines[:place] + sample.lines[place + 1:], [(first, last)]


def reorder(sample, dice):
    """Two leaves change places."""
    one, two = sorted(dice.sample(sample.leaves, 2))
    lines = list(sample.lines)
    lines[one], lines[two] = lines[two], lines[one]
    return lines, [sample.bounds[one]]


def truncate(sample, dice):
    """The end is missing: what no checkpoint seals any more is lost with it."""
    place = dice.randrange(len(sample.lines))
    return sample.lines[:place], [(lost(sample, place), sample.size - 1)]


def lost(sample, place):
    """The first index that the first lines no longer prove."""
    sealed = count = 0
    for content in sample.content[:place]:
        count += content["kind"] in ("entry", "hash")
        sealed = count if content["kind"] == "checkpoint" else sealed
    return sealed


def rewritten(content, dice):
    """The leaf with another content, and the hash that belongs to it."""
    leaf = (content.get("leaf") or "{}").replace("allow", "allowed", 1) + " " * dice.randrange(1, 9)
    hashed = base64.b64encode(hashlib.sha256(b"\x00" + leaf.encode()).digest()).decode()
    return {**content, "hash": hashed, **({"leaf": leaf} if "leaf" in content else {})}


def rewrite(sample, dice):
    """An entry's bytes change, or its hash, or both; the checkpoints stay."""
    place = dice.choice(sample.leaves)
    old, new = sample.content[place], rewritten(sample.content[place], dice)
    kept = dice.choice(("hash", "leaf", None)) if "leaf" in old else None
    changed = new if kept is None else {**new, kept: old[kept]}
    return replace(sample, {place: changed}), [range_of(sample, place) if kept is None else sample.bounds[place]]


def index_of(sample, place):
    return sample.content[place]["index"]


def replace(sample, changes):
    return [dump(changes[place]) if place in changes else line for place, line in enumerate(sample.lines)]


def rewrite_and_rehash(sample, dice):
    """An entry and its hash change, and every later checkpoint gets the root that belongs to them."""
    place = dice.choice(sample.leaves)
    return forge(sample, {place: rewritten(sample.content[place], dice)}, None), [range_of(sample, place)]


def rewrite_and_resign(sample, dice):
    """The same, signed again with the stolen key of the log; the line of the witness is left, dropped or made up."""
    place = dice.choice(sample.leaves)
    sign = lambda text: signed(sample, text, dice)
    return forge(sample, {place: rewritten(sample.content[place], dice)}, sign), [range_of(sample, place)]


def fork(sample, dice):
    """From an entry on everything is another history, signed with the stolen key."""
    first = dice.choice(sample.leaves)
    changes = {place: rewritten(sample.content[place], dice) for place in sample.leaves if place >= first}
    return forge(sample, changes, lambda text: signed(sample, text, dice)), [range_of(sample, first)]


def range_of(sample, place):
    return sample.segments[index_of(sample, place)]


def forge(sample, changes, sign):
    """The export with other leaves and with checkpoints whose roots fit them."""
    lines, tree, changed = [], verifier.Tree(), False
    for place, content in enumerate(sample.content):
        content = changes.get(place, content)
        changed |= place in changes
        if content["kind"] in ("entry", "hash"):
            tree.append(base64.b64decode(content["hash"]))
        elif content["kind"] == "checkpoint" and changed:
            text, _, signatures = content["note"].partition("\n\n")
            origin, size, _ = text.split("\n")
            text = f"{origin}\n{size}\n{base64.b64encode(tree.root()).decode()}\n"
            note = text + "\n" + (signatures if sign is None else sign(text)(signatures))
            content = {**content, "note": note}
        lines.append(dump(content))
    return lines


def signed(sample, text, dice):
    """Signatures below a forged checkpoint: a right one of the log, and for the witness what an attacker can have."""
    own = sample.stolen.sign(text.encode())
    line = f"\u2014 {sample.log.name} {base64.b64encode(sample.log.id + own).decode()}\n"
    false = Ed25519PrivateKey.generate().sign(b"cosignature/v1\ntime 1\n" + text.encode())
    made_up = base64.b64encode(sample.witness.id + (1).to_bytes(8, "big") + false).decode()
    way = dice.randrange(3)
    kept = (lambda old: old.split("\n")[1] + "\n", lambda old: "", lambda old: f"\u2014 {sample.witness.name} {made_up}\n")[way]
    return lambda old: line + kept(old)


MUTATORS = dict(zip(KINDS, (flip, drop, reorder, truncate, rewrite, rewrite_and_rehash, rewrite_and_resign, fork)))


def judge(sample, kind, lines, expected):
    """What is wrong with the verdicts, or None; and whether the index was exact with the export alone."""
    said = sample.ask(lines)
    if said not in expected:
        return f"named {said}, it is {expected}" if said else "not found", False
    if kind in ("truncate", "rewrite", "rewrite-and-rehash", "rewrite-and-resign", "fork"):
        truth = first_difference(sample, lines)
        again = sample.ask(lines, sample.known)
        if again is None or again[0] != truth:
            return f"with known hashes named {again}, it is {truth}", False
    return None, said[0] == said[1]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    sample, dice = Sample(given.folder), random.Random(given.seed)
    wrong, began, done = [], time.monotonic(), 0
    counts = {kind: {"mutations": 0, "exactAlone": 0} for kind in KINDS}
    while done < given.count:
        kind = KINDS[done % len(KINDS)]
        lines, expected = MUTATORS[kind](sample, dice)
        if lines == sample.lines:
            continue
        done += 1
        problem, exact = judge(sample, kind, lines, expected)
        counts[kind]["mutations"] += 1
        counts[kind]["exactAlone"] += exact
        if problem is not None:
            wrong.append(f"mutation {done} ({kind}, seed {given.seed}): {problem}")
    seconds = round(time.monotonic() - began, 1)
    print(json.dumps({"entries": sample.size, "checkpoints": len(sample.lines) - len(sample.leaves) - 1,
                      "mutations": done, "seconds": seconds, "wrong": len(wrong), "kinds": counts}))
    for line in wrong[:20]:
        print(line, file=sys.stderr)
    return 1 if wrong else 0


def first_difference(sample, lines):
    """The first leaf that is not what it was."""
    kept = zip(sample.lines, lines)
    place = next((place for place, (old, new) in enumerate(kept) if old != new and place in sample.places), len(lines))
    return next((index_of(sample, each) for each in sample.leaves if each >= place), sample.size)


if __name__ == "__main__":
    sys.exit(main())
