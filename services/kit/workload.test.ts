import assert from 'node:assert/strict';
import { generateKeyPairSync } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { CoreV1Api } from '@kubernetes/client-node';
import { decodeJwt, decodeProtectedHeader, SignJWT, UnsecuredJWT } from 'jose';
import { startApiServer, type TestApiServer } from '../bootstrap/testing/api-server.ts';
import { waitFor } from '../bootstrap/wait.ts';
import { createLogger } from './log.ts';
import { WorkloadKeysUnavailable, WorkloadRefused, WorkloadVerifier, workloadToken } from './workload.ts';

const log = createLogger({ service: 'test', level: 'silent' });
let server: TestApiServer;
let directory = '';
let core: CoreV1Api;
let verifier: WorkloadVerifier;

/** A token as the kubelet asks for it. */
async function tokenOf(name: string, audiences: string[], namespace = 'default'): Promise<string> {
  const spec = { audiences, expirationSeconds: 600 };
  const { status } = await core.createNamespacedServiceAccountToken({ name, namespace, body: { spec } });
  return status?.token ?? '';
}

function verifierFor(callers: readonly string[], url: string): WorkloadVerifier {
  return new WorkloadVerifier({ audience: 'somagent-identity', callers, url, directory, log });
}

before(async () => {
  server = await startApiServer();
  core = server.admin.makeApiClient(CoreV1Api);
  directory = await mkdtemp(join(tmpdir(), 'somagent-workload-'));
  for (const name of ['gateway', 'stranger', 'identity']) {
    await core.createNamespacedServiceAccount({ namespace: 'default', body: { metadata: { name } } });
  }
  const cluster = server.admin.getCurrentCluster();
  await writeFile(join(directory, 'ca.crt'), Buffer.from(cluster?.caData ?? '', 'base64'));
  await writeFile(join(directory, 'token'), `${await tokenOf('identity', [])}\n`);
  verifier = verifierFor(['system:serviceaccount:default:gateway'], cluster?.server ?? '');
  await verifier.start();
  // The server creates its own roles, the one that shows the keys among them, shortly after it is ready.
  const dependency = { name: 'keys of the cluster', address: 'the API server', fix: 'read its log' };
  await waitFor(dependency, async () => assert.equal(verifier.known, true), { seconds: 20 });
});

after(async () => {
  verifier.stop();
  await server.stop();
  await rm(directory, { recursive: true, force: true });
});

async function refused(token: string, status: number, why: RegExp): Promise<void> {
  await assert.rejects(verifier.verify(`Bearer ${token}`), (error: unknown) => {
    assert.ok(error instanceof WorkloadRefused, String(error));
    assert.equal(error.status, status);
    assert.match(error.message, why);
    assert.equal(error.message.includes(token), false);
    return true;
  });
}

test('a token of the API server for this audience says who calls', async () => {
  assert.equal(verifier.known, true);
  assert.deepEqual(await verifier.verify(`Bearer ${await tokenOf('gateway', ['somagent-identity'])}`), {
    subject: 'system:serviceaccount:default:gateway',
    namespace: 'default',
    serviceAccount: 'gateway',
    pod: null,
  });
});

test('a token for another server is refused', async () => {
  await refused(await tokenOf('gateway', ['somagent-audit']), 401, /"aud"/);
  await refused(await tokenOf('gateway', []), 401, /"aud"/);
});

test('a workload that is not on the list is known and may not call', async () => {
  await refused(await tokenOf('stranger', ['somagent-identity']), 403, /default:stranger may not call/);
});

test('no token, half a token and no JWT are refused', async () => {
  for (const header of [undefined, '', 'Bearer', 'Basic YTpi']) {
    await assert.rejects(verifier.verify(header), { name: 'WorkloadRefused', status: 401 });
  }
  await refused('a.b.c', 401, /not a signed JWT|algorithm/);
});

test('a forged one is refused: another key, no signature, changed claims', async () => {
  const good = await tokenOf('gateway', ['somagent-identity']);
  const claims = decodeJwt(good);
  const { kid } = decodeProtectedHeader(good);
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  const forged = new SignJWT(claims).setProtectedHeader({ alg: 'RS256', ...(kid && { kid }) });
  await refused(await forged.sign(privateKey), 401, /signature|key|algorithm/);
  await refused(new UnsecuredJWT(claims).encode().replace(/\.$/, '.x'), 401, /algorithm|signed JWT/);
  const [header, , signature] = good.split('.');
  const changed = { ...claims, sub: 'system:serviceaccount:default:other' };
  const body = Buffer.from(JSON.stringify(changed)).toString('base64url');
  await refused(`${header}.${body}.${signature}`, 401, /signature/);
});

test('while the API server has never answered the token is not blamed', async () => {
  const blind = verifierFor(['system:serviceaccount:default:gateway'], 'https://127.0.0.1:1');
  await blind.start();
  blind.stop();
  assert.equal(blind.known, false);
  await assert.rejects(
    blind.verify(`Bearer ${await tokenOf('gateway', ['somagent-identity'])}`),
    WorkloadKeysUnavailable,
  );
});

test('the token of this pod is read anew for each use', async () => {
  const file = join(directory, 'rotating');
  await writeFile(file, 'one\n');
  assert.equal(workloadToken(file), 'one');
  await writeFile(file, 'two\n');
  assert.equal(workloadToken(file), 'two');
});
