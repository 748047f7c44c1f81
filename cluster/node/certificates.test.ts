import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { ensureCertificates } from './certificates.ts';

test('certificates are signed by their authority, kept while valid, and mended when damaged', async (context) => {
  const state = mkdtempSync(join(tmpdir(), 'pki-'));
  context.after(() => rmSync(state, { recursive: true }));
  const pki = await ensureCertificates(state);
  const read = (name: Parameters<typeof pki.certificate>[0]) =>
    new X509Certificate(readFileSync(pki.certificate(name)));

  assert.equal(read('apiserver').verify(read('ca').publicKey), true);
  assert.equal(read('apiserver').verify(read('etcd-ca').publicKey), false);
  assert.equal(read('apiserver').checkHost('localhost'), 'localhost');
  assert.equal(read('apiserver').checkIP('10.96.0.1'), '10.96.0.1');
  assert.match(read('kubelet').subject, /CN=system:node:soma/);
  assert.match(read('kubelet').subject, /O=system:nodes/);
  assert.equal(statSync(pki.key('ca')).mode & 0o777, 0o600);

  const before = readFileSync(pki.certificate('admin'), 'utf8');
  const encryption = readFileSync(pki.encryptionConfiguration, 'utf8');
  writeFileSync(pki.certificate('scheduler'), 'half writ');
  await ensureCertificates(state);
  assert.equal(readFileSync(pki.certificate('admin'), 'utf8'), before);
  assert.equal(readFileSync(pki.encryptionConfiguration, 'utf8'), encryption);
  assert.equal(read('scheduler').verify(read('ca').publicKey), true);
});

test('a new authority renews what the old one signed', async (context) => {
  const state = mkdtempSync(join(tmpdir(), 'pki-'));
  context.after(() => rmSync(state, { recursive: true }));
  const pki = await ensureCertificates(state);
  rmSync(pki.certificate('ca'));
  await ensureCertificates(state);
  const authority = new X509Certificate(readFileSync(pki.certificate('ca')));
  assert.equal(new X509Certificate(readFileSync(pki.certificate('admin'))).verify(authority.publicKey), true);
});
