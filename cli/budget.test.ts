import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { describe, it } from 'node:test';

const main = join(import.meta.dirname, 'main.ts');
const gone = 'https://127.0.0.1:40998';

function soma(...args: readonly string[]) {
  const env = { PATH: process.env.PATH ?? '', SOMA_CLIENT_SECRET: 'x', SOMA_PATIENCE: '0' };
  const target = ['--gateway', gone, '--issuer', `${gone}/realms/r`, '--client', 'a'];
  const { stderr, status } = spawnSync(process.execPath, [main, ...args, ...target], { encoding: 'utf8', env });
  return { stderr, status };
}

describe('soma budget, model and chat', () => {
  it('sets no budget without a limit, nor with one that is no number', () => {
    const none = soma('budget', 'set', 'tenant', 'acme', 'month');
    assert.equal(none.status, 1);
    assert.match(none.stderr, /limits nothing\n next: give --tokens <count>, --dollars <amount> or both/);
    for (const limit of ['-1', 'many', '']) {
      const { stderr, status } = soma('budget', 'set', 'tenant', 'acme', 'month', '--tokens', limit);
      assert.equal(status, 2, limit);
      assert.match(stderr, /give a number of at least 0/);
    }
  });

  it('needs scope, id and period', () => {
    const { stderr, status } = soma('budget', 'remove', 'team');
    assert.equal(status, 2);
    assert.match(stderr, /missing required argument 'id'/);
  });

  it('says what cannot be reached', () => {
    for (const args of [
      ['budget', 'list'],
      ['model', 'list'],
      ['chat', 'Hello?'],
    ]) {
      const { stderr, status } = soma(...args);
      assert.equal(status, 3, args.join(' '));
      assert.match(stderr, /cannot be reached: connect ECONNREFUSED/);
    }
  });
});
