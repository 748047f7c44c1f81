import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { describe, it } from 'node:test';

const main = join(import.meta.dirname, 'main.ts');

function soma(args: readonly string[], env: Record<string, string> = {}) {
  const { stdout, stderr, status } = spawnSync(process.execPath, [main, ...args], {
    encoding: 'utf8',
    env: { PATH: process.env.PATH ?? '', ...env },
  });
  return { stdout, stderr, status };
}

describe('soma', () => {
  it('lists its commands', () => {
    const { stdout, status } = soma(['--help']);
    assert.equal(status, 0);
    for (const command of ['up', 'down', 'status', 'logs', 'login', 'logout', 'whoami', 'session', 'completion']) {
      assert.match(stdout, new RegExp(`^ {2}${command}\\b`, 'm'));
    }
  });

  it('suggests the command that was meant', () => {
    const { stderr, status } = soma(['session', 'lst']);
    assert.equal(status, 2);
    assert.match(stderr, /unknown command 'lst'\n\(Did you mean list\?\)/);
  });

  it('names an option with a wrong value', () => {
    const { stderr, status } = soma(['logs', 'gateway', '--tail', 'many']);
    assert.equal(status, 2);
    assert.match(stderr, /option '--tail <lines>' argument 'many' is invalid\. give a whole number of at least 1/);
  });

  it('says without a stack trace that nothing answers, and what to do', () => {
    const target = [
      '--gateway',
      'https://127.0.0.1:40999',
      '--issuer',
      'https://127.0.0.1:40999/realms/r',
      '--client',
      'a',
    ];
    const args = ['session', 'list', ...target];
    const { stderr, status } = soma(args, { SOMA_CLIENT_SECRET: 'x', SOMA_PATIENCE: '0' });
    assert.equal(status, 3);
    assert.equal(
      stderr,
      'error: Keycloak at https://127.0.0.1:40999/realms/r cannot be reached: ' +
        'connect ECONNREFUSED 127.0.0.1:40999\n next: soma status shows what is down; soma up brings it back\n',
    );
  });

  it('completes commands and options', () => {
    assert.match(soma(['complete', '--', 'session', '']).stdout, /^start\tstart a session/m);
    assert.match(soma(['complete', '--', 'session', 'start', '--que']).stdout, /^--question\t/m);
    for (const shell of ['bash', 'zsh', 'fish']) assert.match(soma(['completion', shell]).stdout, /soma complete --/);
  });
});
