#!/usr/bin/env python3
"""No mocks, no imitation, no bypass: real servers, real data.

Verifies an export of the audit log. It shares no code with the service: Python 3.11, its standard library, and Ed25519
of the package `cryptography`. Read it before you trust it: for that it is short.

    verify.py --log KEY --witness KEY --checkpoint FILE [--known FILE] EXPORT

KEY is a verifier key `<name>+<id>+<key>` from the operator and from the witness, not from the export. --checkpoint is a
witnessed checkpoint that you fetched before the export: it shows whether the end is missing. --known keeps the hashes of
what was verified (32 bytes each): next time a changed entry is named exactly, not only the checkpoint that it lies under.

Lines of an export, JSON with the fields in this order:
    {"kind":"log","origin":NAME,"version":1}                     the first line
    {"kind":"entry","index":N,"hash":BASE64,"leaf":TEXT}         hash = SHA-256(0x00, UTF-8 of TEXT)
    {"kind":"hash","index":N,"hash":BASE64}                      an entry that the reader of the export may not see
    {"kind":"checkpoint","previous":M,"note":NOTE}               seals the entries from M to its size
Sources: RFC 9162 section 2.1; c2sp.org/signed-note, /tlog-checkpoint, /tlog-cosignature. Exit code 1: something is not
proven, the first bad index is on standard output; 2: it could not be checked.
"""
import argparse, base64, hashlib, json, os, sys
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

FIELDS = {"log": ["kind", "origin", "version"], "entry": ["kind", "index", "hash", "leaf"],
          "hash": ["kind", "index", "hash"], "checkpoint": ["kind", "previous", "note"]}


class Bad(Exception):
    """The log is not what was witnessed; `first` is the first index that nothing proves, `last` where that ends."""
    def __init__(self, first, last, reason):
        super().__init__(reason)
        self.first, self.last = first, last


class Unusable(Exception):
    """A key or the fetched checkpoint can't be used: nothing can be said about the log."""


def unbase64(text, length=None):
    """Bytes of base64, in its one proper spelling."""
    data = base64.b64decode(text, validate=True)
    if base64.b64encode(data).decode() != text or (length is not None and len(data) != length):
        raise ValueError("not proper base64")
    return data


class Key:
    """A verifier key: type 1 signs the note, type 4 is a witness that signs the note with a time."""
    def __init__(self, text, kind):
        self.name, key_id, encoded = text.strip().split("+", 2)
        data = unbase64(encoded, 33)
        self.id = hashlib.sha256(self.name.encode() + b"\n" + data).digest()[:4]
        if data[0] != kind or self.id.hex() != key_id:
            raise ValueError(f"the key of {self.name} is of another kind, or its id is not the one of its bytes")
        self.kind, self.key = kind, Ed25519PublicKey.from_public_bytes(data[1:])

    def check(self, text, line):
        """Raises unless the line is this key's signature of the text."""
        dash, name, encoded = line.split(" ")
        data = unbase64(encoded)
        if dash != "\u2014" or name != self.name or data[:4] != self.id:
            raise ValueError(f"the signature of {self.name} is missing")
        signature, message = data[4:], text.encode()
        if self.kind == 4:
            time, signature = int.from_bytes(signature[:8], "big"), signature[8:]
            message = f"cosignature/v1\ntime {time}\n".encode() + message
        try:
            self.key.verify(signature, message)
        except InvalidSignature:
            raise ValueError(f"the signature of {self.name} is wrong") from None


def read_checkpoint(note, log, witness):
    """Size and root of a checkpoint that log and witness signed, and nobody else."""
    text, _, signatures = note.partition("\n\n")
    lines, text = signatures.split("\n"), text + "\n"
    if len(lines) != 3 or lines[2] != "":
        raise ValueError("it has to have the signatures of the log and the witness, one line each")
    log.check(text, lines[0])
    witness.check(text, lines[1])
    origin, size, root = text[:-1].split("\n")
    if origin != log.name or str(int(size)) != size:
        raise ValueError(f"it is of {origin}, not of {log.name}")
    return int(size), unbase64(root, 32)


class Tree:
    """The roots of the perfect subtrees so far, as (leaves, hash)."""
    def __init__(self):
        self.size, self.parts = 0, []

    def append(self, leaf_hash):
        part = (1, leaf_hash)
        while self.parts and self.parts[-1][0] == part[0]:
            left = self.parts.pop()
            part = (2 * part[0], hashlib.sha256(b"\x01" + left[1] + part[1]).digest())
        self.parts.append(part)
        self.size += 1

    def root(self):
        parts = [part[1] for part in self.parts] or [hashlib.sha256().digest()]
        result = parts.pop()
        while parts:
            result = hashlib.sha256(b"\x01" + parts.pop() + result).digest()
        return result


def read_line(raw):
    """The content of a line that is spelled in the one way in which exports spell it."""
    content = json.loads(raw.decode())
    if list(content) != FIELDS.get(content.get("kind")):
        raise ValueError("it is of no known kind or has other fields")
    if (json.dumps(content, ensure_ascii=False, separators=(",", ":")) + "\n").encode() != raw:
        raise ValueError("it is not spelled as exports are")
    return content


def leaf_of(content, expected):
    """The hash of a leaf's line."""
    if type(content["index"]) is not int or content["index"] != expected:
        raise ValueError(f"entry {expected} is missing here, {content['index']} is in its place")
    leaf_hash = unbase64(content["hash"], 32)
    if content["kind"] == "entry" and hashlib.sha256(b"\x00" + content["leaf"].encode()).digest() != leaf_hash:
        raise ValueError("its bytes do not have its hash")
    return leaf_hash


def verify(lines, log, witness, fetched, known=b""):
    """Checks every line. Returns (size, hashes of all leaves); raises Bad, or Unusable for the fetched checkpoint."""
    try:
        anchor_size, anchor_root = read_checkpoint(fetched, log, witness)
    except (ValueError, TypeError, AttributeError) as error:
        raise Unusable(f"the fetched checkpoint: {error}") from None
    tree, hashes, sealed, begun = Tree(), bytearray(), 0, False
    for raw in lines:
        first, last = tree.size, tree.size  # what is in doubt when this line is wrong
        try:
            content = read_line(raw)
            if begun != (content["kind"] != "log"):
                raise ValueError("the line `log` has to be the first and the only one")
            if content["kind"] == "log":
                begun = True
                if content["origin"] != log.name or content["version"] != 1:
                    raise ValueError(f"it is an export of {content['origin']}, not of {log.name}")
            elif content["kind"] == "checkpoint":
                first, last = sealed, max(sealed, tree.size - 1)
                size, root = read_checkpoint(content["note"], log, witness)
                if size > tree.size:
                    first, last = tree.size, size - 1
                if (size, root) != (tree.size, tree.root()):
                    raise ValueError("the entries are not those that were witnessed")
                if content["previous"] != sealed or type(content["previous"]) is not int or tree.size == sealed:
                    raise ValueError("a checkpoint before it is missing")
                sealed = tree.size
            else:
                leaf_hash = leaf_of(content, tree.size)
                if known[32 * tree.size:32 * tree.size + 32] not in (b"", leaf_hash):
                    raise ValueError("it is not what was verified before")
                tree.append(leaf_hash)
                hashes += leaf_hash
                if tree.size == anchor_size and tree.root() != anchor_root:
                    first, last = sealed, tree.size - 1
                    raise ValueError("the entries are not those of the fetched checkpoint")
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise Bad(first, last, str(error)) from None
    end = max(anchor_size, len(known) // 32, tree.size)
    if not begun or sealed < end:  # What neither a checkpoint nor an earlier verification proves is as good as missing.
        raise Bad(max(sealed, min(tree.size, len(known) // 32)), end - 1, "the end of the log is missing")
    return tree.size, bytes(hashes)


def main():
    parser = argparse.ArgumentParser(description="Verifies an export of the audit log.")
    for name in ("--log", "--witness", "--checkpoint", "--known", "export"):
        parser.add_argument(name, **({} if name in ("--known", "export") else {"required": True}))
    given = parser.parse_args()
    try:
        log, witness = Key(given.log, 1), Key(given.witness, 4)
        fetched = Path(given.checkpoint).read_bytes().decode()
        known = Path(given.known).read_bytes() if given.known and Path(given.known).exists() else b""
        with open(given.export, "rb") as lines:
            size, hashes = verify(lines, log, witness, fetched, known)
    except (OSError, ValueError, Unusable) as error:
        print(f"cannot be checked: {error}", file=sys.stderr)
        return 2
    except Bad as bad:
        where = "" if bad.first == bad.last else f" (somewhere from {bad.first} to {bad.last})"
        print(f"first bad index: {bad.first}{where}: {bad}")
        return 1
    if given.known:
        Path(given.known + ".new").write_bytes(hashes)
        os.replace(given.known + ".new", given.known)
    print(f"{size} entries are what {log.name} signed and {witness.name} witnessed")


if __name__ == "__main__":
    sys.exit(main())
