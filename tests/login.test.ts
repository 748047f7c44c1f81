/** A person signs in by `soma login` on the running platform, works, signs out, and is out. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { getCACertificates, setDefaultCACertificates } from 'node:tls';
import { fileURLToPath } from 'node:url';
import { Browser, signIn } from '@somagent/bootstrap/testing/browser.ts';
import { authorityPem, secretOf } from './support/session-api.ts';

const main = fileURLToPath(new URL('../cli/main.ts', import.meta.url));
let state: string;

/** The address that the command tells the person to open. */
const addressOf = (said: string): string => /(https:\S+\/auth\?\S+)/.exec(said)?.[1] ?? '';

/** Runs soma; `meanwhile` gets what it has said to the person so far, until it ends. */
async function soma(args: readonly string[], meanwhile?: (said: string) => Promise<void>) {
  const { PATH, HOME } = process.env;
  const env = { PATH, HOME, XDG_STATE_HOME: state, SOMA_CA_FILE: join(state, 'ca.crt') };
  const child = spawn(process.execPath, [main, ...args], { env });
  let [stdout, stderr] = ['', ''];
  let helped: Promise<void> | undefined;
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    stdout += text;
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
    if (meanwhile !== undefined && /https:\S+\/auth\?\S+\n/.test(stderr)) helped ??= meanwhile(stderr);
  });
  const [code] = await once(child, 'close');
  await helped;
  return { code, stdout, stderr };
}

async function loginAs(username: string) {
  return soma(['login', '--no-browser'], async (said) => {
    const { password } = await secretOf(`keycloak-user-${username}`);
    const browser = new Browser();
    const page = await browser.open(addressOf(said));
    await signIn(browser, page, username, password);
  });
}

describe('a person', { timeout: 180_000 }, () => {
  before(async () => {
    state = mkdtempSync(join(tmpdir(), 'soma-person-'));
    writeFileSync(join(state, 'ca.crt'), await authorityPem());
    setDefaultCACertificates([...getCACertificates('default'), await authorityPem()]);
  });
  after(() => rmSync(state, { recursive: true, force: true }));

  it('signs in, and a session is then opened in that name', async () => {
    const login = await loginAs('globex-member-1');
    assert.equal(login.code, 0, login.stderr);
    const { username, tenant, roles, teams } = JSON.parse((await soma(['whoami', '--json'])).stdout);
    assert.deepEqual([username, tenant, roles, teams], ['globex-member-1', 'globex', ['member'], ['blue']]);
    const started = await soma(['session', 'start', '--json']);
    assert.equal(started.code, 0, started.stderr);
    const session = JSON.parse(started.stdout);
    assert.match(session.workflowId, /^session\/globex\//);
    assert.equal((await soma(['session', 'close', session.id])).code, 0);
  });

  it('may still act as the agent of the stack', async () => {
    const started = await soma(['session', 'start', '--json', '--agent']);
    assert.equal(started.code, 0, started.stderr);
    const session = JSON.parse(started.stdout);
    assert.match(session.workflowId, /^session\/acme\//);
    assert.equal((await soma(['session', 'close', session.id, '--agent'])).code, 0);
  });

  it('is out after logout', async () => {
    const out = await soma(['logout']);
    assert.deepEqual([out.code, out.stdout], [0, 'globex-member-1 is signed out\n']);
    assert.equal((await soma(['whoami'])).code, 4);
  });
});
