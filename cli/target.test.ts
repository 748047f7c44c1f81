import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import type { Cluster } from './cluster.ts';
import { exitCodes } from './failure.ts';
import { LoginStore } from './login-store.ts';
import { isPerson, resolveTarget } from './target.ts';

/** A cluster that must not be asked: the case under test gives everything by other means. */
const noCluster = async (): Promise<Cluster> => {
  throw new Error('the cluster was asked');
};

describe('resolveTarget', () => {
  let root: string;
  let empty: string;
  let files: string;

  before(() => {
    root = mkdtempSync(join(tmpdir(), 'soma-target-'));
    empty = join(root, 'empty');
    files = join(root, 'files');
    for (const folder of [empty, files, join(root, '.soma')]) mkdirSync(folder);
    writeFileSync(join(files, 'secret'), 'from a file\n');
    writeFileSync(join(files, 'ca.crt'), 'a certificate\n');
    const outputs = {
      gatewayUrl: 'https://localhost:8443/',
      issuerUrl: 'https://localhost:8444/realms/somagent',
      clients: ['acme-agent', 'globex-agent'],
      regions: { local: {}, other: {} },
    };
    writeFileSync(join(root, '.soma', 'outputs.dev.json'), JSON.stringify(outputs));
    writeFileSync(join(root, '.soma', 'outputs.broken.json'), '{"gatewayUrl": 5}');
  });

  after(() => rmSync(root, { recursive: true }));

  const env = { SOMA_CLIENT_SECRET: 'from the environment', SOMA_CA_FILE: '' };
  const caFile = () => join(files, 'ca.crt');

  it('takes addresses and the first client from the outputs', async () => {
    const options = { stack: 'dev', caFile: caFile() };
    assert.deepEqual(await resolveTarget(options, { root, env, cluster: noCluster }), {
      gatewayUrl: 'https://localhost:8443',
      issuerUrl: 'https://localhost:8444/realms/somagent',
      ca: 'a certificate',
      patience: 20,
      identity: { clientId: 'acme-agent', clientSecret: 'from the environment' },
    });
  });

  it('prefers a flag to the environment, and the environment to the outputs', async () => {
    const options = {
      stack: 'dev',
      caFile: caFile(),
      gateway: 'https://flag',
      clientSecretFile: join(files, 'secret'),
    };
    const more = {
      ...env,
      SOMA_GATEWAY_URL: 'https://env',
      SOMA_ISSUER_URL: 'https://env/issuer',
      SOMA_CLIENT_ID: 'env-agent',
    };
    const target = await resolveTarget(options, { root, env: more, cluster: noCluster });
    assert.deepEqual(
      [target.gatewayUrl, target.issuerUrl, target.identity],
      ['https://flag', 'https://env/issuer', { clientId: 'env-agent', clientSecret: 'from a file' }],
    );
  });

  it('acts for the person who is signed in, unless a client is named or the agent is asked for', async () => {
    const person = { ...env, XDG_STATE_HOME: join(root, 'state') };
    new LoginStore(person).write({
      issuer: 'https://localhost:8444/realms/somagent',
      username: 'ada',
      accessToken: 'a',
      refreshToken: 'r',
      expiresAt: 0,
    });
    const identityOf = async (options: object, more: object = {}) =>
      (
        await resolveTarget(
          { stack: 'dev', caFile: caFile(), ...options },
          { root, env: { ...person, ...more }, cluster: noCluster },
        )
      ).identity;
    assert.equal(isPerson(await identityOf({})), true);
    assert.equal(isPerson(await identityOf({ issuer: 'https://elsewhere/realms/somagent' })), false);
    const agent = { clientId: 'acme-agent', clientSecret: 'from the environment' };
    assert.deepEqual(await identityOf({ agent: true }), agent);
    assert.deepEqual(await identityOf({ client: 'acme-agent' }), agent);
    assert.deepEqual(await identityOf({}, { SOMA_CLIENT_ID: 'acme-agent' }), agent);
  });

  it('says what to run when nothing is known, and which stacks are', async () => {
    await assert.rejects(resolveTarget({ stack: 'dev' }, { root: empty, env, cluster: noCluster }), {
      message: 'nothing is known about stack dev: no .soma/outputs.dev.json, --gateway or --issuer',
      next: 'soma up --stack dev',
      exitCode: exitCodes.usage,
    });
    await assert.rejects(resolveTarget({ stack: 'staging' }, { root, env, cluster: noCluster }), {
      next: 'soma up --stack staging, or name another stack: --stack broken | dev',
    });
  });

  it('names a region that the stack does not have', async () => {
    await assert.rejects(resolveTarget({ stack: 'dev', region: 'mars' }, { root, env, cluster: noCluster }), {
      message: 'no region "mars" in stack dev',
      next: 'use one of: local, other',
    });
  });

  it('names the field of outputs that cannot be read', async () => {
    await assert.rejects(resolveTarget({ stack: 'broken' }, { root, env, cluster: noCluster }), {
      message: /outputs\.broken\.json cannot be read: .*expected string, received number[\s\S]*at gatewayUrl/,
    });
  });

  it('names a file that cannot be read, and its flag', async () => {
    const options = { stack: 'dev', caFile: caFile(), clientSecretFile: join(root, 'absent') };
    await assert.rejects(resolveTarget(options, { root, env, cluster: noCluster }), {
      message: /^--client-secret-file: cannot read .*absent: ENOENT/,
      exitCode: exitCodes.usage,
    });
  });
});
