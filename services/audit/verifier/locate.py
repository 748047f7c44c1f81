#!/usr/bin/env python3
"""No mocks, no imitation, no bypass: real servers, real data.

Names the first bad entry of an export exactly where `verify.py` can only name a range, because somebody rewrote entries,
hashes and roots alike. It needs inclusion proofs of the log as it was witnessed: kept by whoever fetched some, or asked
for now. A proof that does not lead to the witnessed root is thrown away, so nobody can mislead it: not even the log.

    locate.py --log KEY --witness KEY --checkpoint FILE [--proofs FILE] [--url URL --ca FILE --token FILE] EXPORT

--checkpoint is a witnessed checkpoint, as for verify.py. --proofs has answers of /v1/audit/proofs/inclusion at its size,
one a line. --url is the audit service: what is missing is asked there, at most one proof for each level of the tree.
Each proof holds the true hashes of all subtrees beside its path. The leftmost that the export does not give holds the
first bad entry; a proof of the first entry in there is the next question, until one entry is left.
Exit code 1: it differs, and where; 0: it does not; 2: it could not be compared.
"""
import argparse, hashlib, json, ssl, sys, urllib.error, urllib.request
from pathlib import Path

from verify import Key, read_checkpoint, unbase64


def join(left, right):
    return hashlib.sha256(b"\x01" + left + right).digest()


def split(first, end):
    """Where a subtree divides: the largest power of two below its size (RFC 9162, section 2.1.1)."""
    return first + (1 << (end - first - 1).bit_length() - 1)


def leaf_hashes(lines):
    """Of each entry of an export as it stands there; None for one that can't be read."""
    hashes = []
    for raw in lines:
        try:
            content = json.loads(raw)
            if content["kind"] == "entry":
                hashes.append(hashlib.sha256(b"\x00" + content["leaf"].encode()).digest())
            elif content["kind"] == "hash":
                hashes.append(unbase64(content["hash"], 32))
        except (ValueError, TypeError, KeyError, AttributeError):
            hashes.append(None)
    return hashes


class Witnessed:
    """What is proven of the log: true hashes of subtrees, by the range of their leaves."""
    def __init__(self, size, root):
        self.size, self.true = size, {(0, size): root}

    def learn(self, proof):
        """Takes the hashes of a proof; False if it does not lead to the witnessed root."""
        try:
            path, index = [unbase64(text, 32) for text in proof["hashes"]], proof["index"]
            found = {}
            root = self._climb(0, self.size, index, path, unbase64(proof["leafHash"], 32), found)
        except (ValueError, TypeError, KeyError, IndexError, AttributeError):
            return False
        if path or proof.get("size") != self.size or root != self.true[0, self.size]:
            return False
        self.true.update(found)
        return True

    def _climb(self, first, end, index, path, leaf, found):
        if not first <= index < end:
            raise ValueError("no such entry")
        if end - first == 1:
            found[first, end] = leaf
            return leaf
        middle, beside = split(first, end), path.pop()
        lower = (first, middle) if index < middle else (middle, end)
        other = (middle, end) if index < middle else (first, middle)
        found[other] = beside
        inner = self._climb(*lower, index, path, leaf, found)
        found[first, end] = join(inner, beside) if index < middle else join(beside, inner)
        return found[first, end]


def computed(hashes, first, end, memory):
    """The hash of a subtree of the export; None where an entry of it is missing."""
    if (first, end) not in memory:
        if end - first == 1:
            memory[first, end] = hashes[first] if first < len(hashes) else None
        else:
            parts = [computed(hashes, *part, memory) for part in ((first, split(first, end)), (split(first, end), end))]
            memory[first, end] = None if None in parts else join(*parts)
    return memory[first, end]


def locate(hashes, witnessed, ask):
    """First and last index that the first bad entry can have, or None; `ask(index)` gives a proof or None."""
    memory, true = {}, witnessed.true
    first, end = 0, witnessed.size
    if computed(hashes, first, end, memory) == true[first, end]:
        return None if len(hashes) == end else (end, len(hashes) - 1)
    while end - first > 1:
        middle = split(first, end)
        if (first, middle) not in true:  # Both halves are proven by a proof of any entry of either.
            proof = ask(first)
            if proof is None or not witnessed.learn(proof) or (first, middle) not in true:
                return first, end - 1
        left = computed(hashes, first, middle, memory) == true[first, middle]
        first, end = (middle, end) if left else (first, middle)
    return first, first


def asker(given, size):
    """Asks the audit service for a proof; None when it has none to give."""
    def ask(index):
        if given.url is None:
            return None
        request = urllib.request.Request(f"{given.url}/v1/audit/proofs/inclusion?index={index}&size={size}")
        request.add_header("authorization", f"Bearer {Path(given.token).read_text().strip()}")
        try:
            with urllib.request.urlopen(request, context=ssl.create_default_context(cafile=given.ca)) as answer:
                return json.load(answer)
        except urllib.error.HTTPError:
            return None
    return ask


def main():
    parser = argparse.ArgumentParser(description="Names the first entry of an export that was not witnessed.")
    for name in ("--log", "--witness", "--checkpoint", "--proofs", "--url", "--ca", "--token", "export"):
        parser.add_argument(name, **({"required": True} if name in ("--log", "--witness", "--checkpoint") else {}))
    given = parser.parse_args()
    try:
        note = Path(given.checkpoint).read_bytes().decode()
        witnessed = Witnessed(*read_checkpoint(note, Key(given.log, 1), Key(given.witness, 4)))
        proofs = Path(given.proofs).read_text().splitlines() if given.proofs else []
        refused = [number for number, line in enumerate(proofs, 1) if not witnessed.learn(json.loads(line))]
        with open(given.export, "rb") as lines:
            found = locate(leaf_hashes(lines), witnessed, asker(given, witnessed.size))
    except (OSError, ValueError, TypeError, AttributeError) as error:
        print(f"cannot be compared: {error}", file=sys.stderr)
        return 2
    for number in refused:
        print(f"line {number} of the proofs does not lead to the witnessed root", file=sys.stderr)
    if found is None:
        print(f"the first {witnessed.size} entries are those that were witnessed")
        return 0
    first, last = found
    exact = first == last
    more = "" if exact else f" (somewhere from {first} to {last}; a proof of entry {first} at size {witnessed.size} says more)"
    print(f"first bad index: {first}{more}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
