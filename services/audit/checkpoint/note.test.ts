import assert from 'node:assert/strict';
import { createPublicKey, generateKeyPairSync } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { makeKey } from '../testing/keys.ts';
import { checkpointText, parseCheckpoint } from './checkpoint.ts';
import { readSigner, readVerifier } from './keys.ts';
import { cosignText, isSignedBy, keyId, NoteError, parseNote, signText, verifierKey } from './note.ts';

const root = Buffer.alloc(32, 7);
const text = checkpointText({ origin: 'audit.example/log', size: 42, root });
const log = makeKey('audit.example/log', 'log');
const witness = makeKey('witness.example/w1', 'witness');

test("a note of Go's own checksum database verifies: key identifier, signature and root are read as C2SP has them", () => {
  // Source: golang.org/x/mod/sumdb/note, package example.
  const [name, id, encoded] = ['PeterNeumann', 'c74f20a3', 'ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW'];
  const raw = Buffer.from(encoded as string, 'base64').subarray(1);
  const key = createPublicKey({ key: { kty: 'OKP', crv: 'Ed25519', x: raw.toString('base64url') }, format: 'jwk' });
  assert.equal(keyId(name as string, 'log', key).toString('hex'), id);
  const note = parseNote(
    'If you think cryptography is the answer to your problem,\n' +
      "then you don't know what your problem is.\n\n" +
      '\u2014 PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n',
  );
  const verifier = { name: 'PeterNeumann', kind: 'log', key, id: keyId('PeterNeumann', 'log', key) } as const;
  assert.equal(isSignedBy(note, verifier), true);
  assert.equal(isSignedBy({ ...note, text: note.text.replace('answer', 'Answer') }, verifier), false);
  assert.equal(verifierKey(verifier), `${name}+${id}+${encoded}`);
});

test('a checkpoint is read back as it was written, with the signatures of log and witness', () => {
  const note = parseNote(`${text}\n${signText(text, log.signer)}${cosignText(text, witness.signer, new Date(1e12))}`);
  assert.deepEqual(parseCheckpoint(note.text), { origin: 'audit.example/log', size: 42, root });
  assert.equal(isSignedBy(note, log.verifier), true);
  assert.equal(isSignedBy(note, witness.verifier), true);
  assert.equal(note.signatures[1]?.bytes.readBigUInt64BE(), 1_000_000_000n);
  assert.equal(isSignedBy(note, makeKey('audit.example/log', 'log').verifier), false);
});

test('one changed bit anywhere in text or signatures is noticed', () => {
  const whole = Buffer.from(`${text}\n${signText(text, log.signer)}${cosignText(text, witness.signer, new Date())}`);
  const holds = (bytes: Buffer) => {
    try {
      const note = parseNote(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
      parseCheckpoint(note.text);
      return isSignedBy(note, log.verifier) && isSignedBy(note, witness.verifier);
    } catch {
      return false;
    }
  };
  assert.equal(holds(whole), true);
  for (let bit = 0; bit < whole.length * 8; bit += 1) {
    const changed = Buffer.from(whole);
    changed[bit >> 3] = (changed[bit >> 3] as number) ^ (1 << (bit & 7));
    // The last base64 digit before padding carries bits that mean nothing.
    if (holds(changed)) assert.deepEqual(parseNote(changed.toString()), parseNote(whole.toString()));
  }
});

test('a text that is no note or no checkpoint is refused with the reason', () => {
  assert.throws(() => parseNote('text\n'), /empty line/);
  assert.throws(() => parseNote('text\n\n\u2014 name AAAAAAAA'), /end with a newline/);
  assert.throws(() => parseNote('text\n\nname AAAAAAAA\n'), /no signature/);
  assert.throws(() => parseNote('text\n\n\u2014 name AAAA\n'), /too short/);
  for (const wrong of ['', 'o\n-1\nAA==\n', 'o\n01\nAA==\n', 'o\n1\nAA==\n', `o\n1e3\n${root.toString('base64')}\n`]) {
    assert.throws(() => parseCheckpoint(wrong), NoteError, JSON.stringify(wrong));
  }
});

test('a key file that is missing, of another kind or no key is named, its content is not', (context) => {
  const folder = mkdtempSync(join(tmpdir(), 'somagent-audit-keys-'));
  context.after(() => rmSync(folder, { recursive: true }));
  const file = join(folder, 'key.pem');
  assert.throws(() => readSigner('n', 'log', file), /key\.pem is not there: mount an Ed25519 key/);
  writeFileSync(file, 'secret rubbish');
  assert.throws(
    () => readSigner('n', 'log', file),
    (error: Error) => !error.message.includes('secret rubbish'),
  );
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  writeFileSync(file, privateKey.export({ type: 'pkcs8', format: 'pem' }));
  assert.throws(() => readSigner('n', 'log', file), /holds a key of type ec/);
  assert.throws(() => readVerifier('n', 'log', file), /holds a key of type ec/);
});
