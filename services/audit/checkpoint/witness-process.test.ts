import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { type AddressInfo, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { createAuthority, issueCertificate } from '@somagent/bootstrap/secrets/certificates.ts';
import { waitFor } from '@somagent/bootstrap/wait.ts';
import { fetchTrusting } from '@somagent/kit';
import { CompactRange, consistencyRanges, leafHash, nodeKey, proofFrom } from '../merkle/index.ts';
import { makeKey } from '../testing/keys.ts';
import { checkpointText } from './checkpoint.ts';
import { isSignedBy, parseNote, signText } from './note.ts';
import { addCheckpointBody } from './witness.ts';

const origin = 'audit.example/log';
const log = makeKey(origin, 'log');
const key = makeKey('witness.example/w1', 'witness');
const program = fileURLToPath(new URL('../main.ts', import.meta.url));
let folder: string;
let port: number;
let health: number;
let child: ChildProcess;
let output = '';

before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'somagent-witness-process-'));
  await mkdir(join(folder, 'state'));
  const authority = await createAuthority('test authority');
  const usages = ['server' as const];
  const names = { commonName: 'witness', dnsNames: ['localhost'], ipAddresses: ['127.0.0.1'], usages };
  const leaf = await issueCertificate(authority, names);
  const files = { 'tls.crt': leaf.certificate, 'tls.key': leaf.key, 'ca.crt': authority.certificate };
  for (const [name, text] of Object.entries(files)) await writeFile(join(folder, name), text, { mode: 0o600 });
  [port, health] = await freePorts();
});
after(async () => {
  child?.kill('SIGKILL');
  await rm(folder, { recursive: true, force: true });
});

/** Two ports that are free at the same time. */
async function freePorts(): Promise<[number, number]> {
  const probes = [createServer(), createServer()] as const;
  await Promise.all(probes.map((probe) => once(probe.listen(0, '127.0.0.1'), 'listening')));
  const [one, two] = probes.map((probe) => (probe.address() as AddressInfo).port);
  await Promise.all(probes.map((probe) => new Promise((done) => probe.close(done))));
  return [one ?? 0, two ?? 0];
}

const environment = () => ({
  PATH: process.env.PATH,
  PORT: String(port),
  HEALTH_PORT: String(health),
  TLS_DIR: folder,
  LOG_ORIGIN: origin,
  WITNESS_NAME: 'witness.example/w1',
  LOG_PUBLIC_KEY_FILE: log.publicFile,
  WITNESS_KEY_FILE: key.privateFile,
  STATE_DIR: join(folder, 'state'),
});

async function start(): Promise<void> {
  child = spawn(process.execPath, [program, 'witness'], { env: environment(), stdio: ['ignore', 'pipe', 'inherit'] });
  child.stdout?.on('data', (chunk: Buffer) => {
    output += chunk.toString();
  });
  const dependency = { name: 'witness', address: `127.0.0.1:${port}`, fix: output };
  await waitFor(dependency, () => fetchTrusting(join(folder, 'ca.crt'))(`https://127.0.0.1:${port}/`), { seconds: 60 });
}

async function ask(size: number, older: number): Promise<{ readonly status: number; readonly note: string }> {
  const range = new CompactRange();
  const nodes = new Map<string, Buffer>();
  for (let index = 0; index < size; index += 1) {
    range.append(leafHash(Buffer.from(String(index))), (node, hash) => nodes.set(nodeKey(node), hash));
  }
  const text = checkpointText({ origin, size, root: range.root() });
  const proof = proofFrom(consistencyRanges(older, size), nodes);
  const response = await fetchTrusting(join(folder, 'ca.crt'))(`https://127.0.0.1:${port}/add-checkpoint`, {
    method: 'POST',
    body: addCheckpointBody(older, proof, `${text}\n${signText(text, log.signer)}`),
  });
  return { status: response.status, note: `${text}\n${await response.text()}` };
}

test('the witness as a process keeps its promise over SIGKILL, and ends in order on SIGTERM', async () => {
  await start();
  const first = await ask(7, 0);
  assert.ok(first.status === 200 && isSignedBy(parseNote(first.note), key.verifier));
  child.kill('SIGKILL');
  await once(child, 'close');
  await start();
  assert.equal((await ask(5, 0)).status, 409);
  assert.equal((await ask(9, 7)).status, 200);
  assert.equal((await fetch(`http://127.0.0.1:${health}/readyz`)).status, 200);
  await writeFile(join(folder, 'state/head.json'), 'rubbish');
  assert.equal((await ask(12, 9)).status, 500);
  assert.equal((await fetch(`http://127.0.0.1:${health}/readyz`)).status, 503);
  child.kill('SIGTERM');
  assert.deepEqual(await once(child, 'close'), [0, null], output);
  assert.doesNotMatch(output, new RegExp((await readFile(key.privateFile, 'utf8')).split('\n')[1] ?? 'no key'));
  assert.match(output, /witness\.example\/w1\+[0-9a-f]{8}\+/);
});
