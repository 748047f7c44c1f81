"""No mocks, no imitation, no bypass: real servers, real data.

Rewrites an export of a real log as somebody would who holds the database and the log's own key: entries, hashes and all
roots fit each other again. At every index of the log one entry is rewritten, one removed, two swapped, the log forked,
and cut off. `locate.py` has to name the first bad index: exactly, with the proofs that the service itself gave while the
log was whole; as a range that holds it without any.

    locations.py FOLDER        FOLDER comes from testing/sample.ts
"""
import base64
import json
import random
import sys
from math import ceil, log2
from pathlib import Path

import locate
from mutations import Sample, dump, rewritten


def rewrite(leaves, index, dice):
    return [*leaves[:index], rewritten(leaves[index], dice), *leaves[index + 1:]]


def remove(leaves, index, dice):
    return leaves[:index] + leaves[index + 1:]


def swap(leaves, index, dice):
    other = dice.choice([place for place in range(len(leaves)) if place != index])
    changed = list(leaves)
    changed[index], changed[other] = changed[other], changed[index]
    return changed


def fork(leaves, index, dice):
    return leaves[:index] + [rewritten(leaf, dice) for leaf in leaves[index:]]


def truncate(leaves, index, dice):
    return leaves[:index]


KINDS = {"rewrite": rewrite, "remove": remove, "swap": swap, "fork": fork, "truncate": truncate}


def lines_of(leaves):
    """An export of these leaves, numbered anew: what its checkpoints say does not matter here."""
    return [dump({**leaf, "index": index}) for index, leaf in enumerate(leaves)]


def main():
    folder = Path(sys.argv[1])
    sample, dice = Sample(folder), random.Random(2026)
    leaves = [sample.content[place] for place in sample.leaves]
    proofs = {proof["index"]: proof for proof in map(json.loads, (folder / "proofs.ndjson").read_text().splitlines())}
    size, root = locate.read_checkpoint(sample.fetched, sample.log, sample.witness)
    honest = locate.leaf_hashes(lines_of(leaves))
    report = {kind: {"planted": 0, "mostAsked": 0} for kind in KINDS}
    wrong = []
    for kind, bend in KINDS.items():
        for index in range(size):
            hashes = locate.leaf_hashes(lines_of(bend(leaves, index, dice)))
            pairs = zip(honest, [*hashes, *[None] * (size - len(hashes))])
            truth = next(place for place, (old, new) in enumerate(pairs) if old != new)
            asked = []
            ask = lambda at: asked.append(at) or proofs[at]
            found = locate.locate(hashes, locate.Witnessed(size, root), ask)
            alone = locate.locate(hashes, locate.Witnessed(size, root), lambda at: None)
            liar = lambda at: {**proofs[at], "leafHash": base64.b64encode(bytes(32)).decode()}
            deceived = locate.locate(hashes, locate.Witnessed(size, root), liar)
            if found != (truth, truth) or len(asked) > ceil(log2(size)):
                wrong.append(f"{kind} at {index}: named {found} after {len(asked)} proofs, it is {truth}")
            if alone is None or not alone[0] <= truth <= alone[1] or deceived != alone:
                wrong.append(f"{kind} at {index}: without a true proof named {alone} and {deceived}, it is {truth}")
            report[kind]["planted"] += 1
            report[kind]["mostAsked"] = max(report[kind]["mostAsked"], len(asked))
    print(json.dumps({"entries": size, "wrong": len(wrong), "kinds": report}))
    for line in wrong[:20]:
        print(line, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
