import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { describe, it } from 'node:test';

const main = join(import.meta.dirname, 'main.ts');

function soma(...args: readonly string[]) {
  const env = { PATH: process.env.PATH ?? '', SOMA_CLIENT_SECRET: 'x', SOMA_PATIENCE: '0' };
  const { stdout, stderr, status } = spawnSync(process.execPath, [main, ...args], { encoding: 'utf8', env });
  return { stdout, stderr, status };
}

const gone = 'https://127.0.0.1:40999';
const somewhere = ['--gateway', gone, '--issuer', `${gone}/realms/r`, '--client', 'a', '--accounts', gone];

describe('soma for administrators', () => {
  it('asks for a reason before it stops anything', () => {
    for (const args of [['halt'], ['resume'], ['tenant', 'suspend', 'acme'], ['user', 'suspend', 'mary']]) {
      const { stderr, status } = soma(...args, ...somewhere);
      assert.equal(status, 2, args.join(' '));
      assert.match(stderr, /required option '--reason <text>' not specified/);
    }
  });

  it('makes no key without scopes', () => {
    const { stderr, status } = soma('key', 'create', 'ci', '--owner', 'mary', ...somewhere);
    assert.equal(status, 2);
    assert.match(stderr, /required option '--scope <capability>' not specified/);
  });

  it('says what cannot be reached', () => {
    const { stderr, status } = soma('halt', '--reason', 'x', ...somewhere);
    assert.equal(status, 3);
    assert.match(stderr, /cannot be reached: connect ECONNREFUSED/);
  });

  it('says that nobody told it where the identity service is', () => {
    const known = ['--gateway', gone, '--issuer', `${gone}/realms/r`, '--client', 'a', '--stack', 'none'];
    const { stderr, status } = soma('tenant', 'list', ...known);
    assert.equal(status, 2);
    assert.match(stderr, /does not say where its identity service is\n next: .*--accounts <url> or SOMA_ACCOUNTS_URL/);
  });
});
