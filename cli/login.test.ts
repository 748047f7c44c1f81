/** `soma login` against a real Keycloak with the platform's own realm of dev. The browser is played by hand. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { getCACertificates, setDefaultCACertificates } from 'node:tls';
import { Browser, type Page, signIn } from '@somagent/bootstrap/testing/browser.ts';
import { startKeycloak, type TestKeycloak } from '@somagent/bootstrap/testing/keycloak.ts';
import { RealmFiles, withSecrets } from '@somagent/bootstrap/testing/realm.ts';
import { createRemoteJWKSet, decodeJwt, jwtVerify } from 'jose';
import { platformRealm } from '../stacks/realm.ts';
import type { Login } from './login-store.ts';

const main = join(import.meta.dirname, 'main.ts');
const realm = withSecrets(platformRealm('dev', { tenants: ['acme', 'globex'], probeClients: false }));

let keycloak: TestKeycloak;
let files: RealmFiles;
let state: string;
let listener: Server;
/** Logout tokens that Keycloak has sent. */
const notices: string[] = [];

const issuer = () => `${keycloak.url}/realms/${realm.name}`;
const folder = () => join(state, 'somagent', 'logins');
const loginFile = () => join(folder(), readdirSync(folder()).find((name) => name.endsWith('.json')) ?? 'none');
const stored = (): Login => JSON.parse(readFileSync(loginFile(), 'utf8'));

/** Receives back-channel logouts, over TLS with a certificate that Keycloak can trust only by its own truststore. */
async function listen(): Promise<string> {
  const pem = (name: string) => readFileSync(join(keycloak.tlsDirectory, name));
  listener = createServer({ cert: pem('tls.crt'), key: pem('tls.key') }, async (request, response) => {
    const chunks = await request.toArray();
    notices.push(new URLSearchParams(Buffer.concat(chunks).toString()).get('logout_token') ?? '');
    response.writeHead(204).end();
  });
  await once(listener.listen(0, '127.0.0.1'), 'listening');
  const address = listener.address();
  assert.ok(address !== null && typeof address === 'object');
  return `https://localhost:${address.port}/logout`;
}

before(
  async () => {
    keycloak = await startKeycloak();
    setDefaultCACertificates([...getCACertificates('default'), keycloak.ca]);
    state = mkdtempSync(join(tmpdir(), 'soma-login-'));
    files = new RealmFiles(keycloak);
    const { code, text } = await files.run(realm, 'apply', { LOGOUT_URL: await listen() });
    assert.equal(code, 0, text);
  },
  { timeout: 600_000 },
);
after(async () => {
  listener?.close();
  listener?.closeAllConnections();
  if (state !== undefined) rmSync(state, { recursive: true });
  await keycloak?.stop();
});

/** A running command and what it has said so far. */
interface Command {
  readonly child: ChildProcess;
  readonly ended: Promise<number | null>;
  out: string;
  err: string;
}

function soma(...args: readonly string[]): Command {
  const target = ['--issuer', issuer(), '--gateway', 'https://127.0.0.1:1', '--ca-file', keycloak.caFile];
  const env = { PATH: process.env.PATH ?? '', XDG_STATE_HOME: state, SOMA_PATIENCE: '10' };
  const child = spawn(process.execPath, [main, ...args, ...target], { env });
  const command: Command = { child, out: '', err: '', ended: once(child, 'close').then(([code]) => code) };
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    command.out += text;
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    command.err += text;
  });
  return command;
}

/** The address that a command tells the person to open: the last one that matches. */
async function told(command: Command, pattern: RegExp): Promise<string> {
  for (;;) {
    const found = pattern.exec(command.err)?.[1];
    if (found !== undefined) return found;
    const next = await Promise.race([once(command.child.stderr ?? command.child, 'data'), command.ended]);
    if (!Array.isArray(next)) throw new Error(`ended with ${next}: ${command.err}`);
  }
}

const authorization = /(https:\/\/\S+\/auth\?\S+)/;

async function loginAs(username: string): Promise<{ command: Command; page: Page }> {
  const command = soma('login', '--no-browser');
  const browser = new Browser();
  const page = await signIn(
    browser,
    await browser.open(await told(command, authorization)),
    username,
    files.secret(username),
  );
  return { command, page };
}

describe('soma login', { timeout: 120_000 }, () => {
  it('signs a person in by a code with PKCE and keeps the tokens from all others', async () => {
    const { command, page } = await loginAs('acme-admin-1');
    assert.deepEqual([page.status, page.text], [200, 'You are signed in. Close this window.']);
    assert.equal(await command.ended, 0, command.err);
    assert.match(command.out, /^acme-admin-1 {2}acme {4}tenant-admin {2}- /m);
    assert.deepEqual([statSync(loginFile()).mode & 0o777, statSync(folder()).mode & 0o777], [0o600, 0o700]);
    const { accessToken, refreshToken } = stored();
    for (const secret of [accessToken, refreshToken]) assert.equal((command.out + command.err).includes(secret), false);
    const { aud, tenant, roles, preferred_username: name, sid } = decodeJwt(accessToken);
    assert.deepEqual([aud, tenant, roles, name], ['somagent-gateway', 'acme', ['tenant-admin'], 'acme-admin-1']);
    assert.equal(typeof sid, 'string');
  });

  it('asks for a challenge by S256 and sends the code to this machine only', async () => {
    const command = soma('login', '--no-browser');
    const url = new URL(await told(command, authorization));
    assert.equal(url.searchParams.get('code_challenge_method'), 'S256');
    const redirect = new URL(url.searchParams.get('redirect_uri') ?? '');
    assert.deepEqual([redirect.protocol, redirect.hostname, redirect.pathname], ['http:', '127.0.0.1', '/callback']);
    // A page that guesses the port does not know the state: it is not listened to, and the person may still come.
    for (const forged of ['?code=x', '?code=x&state=guess', '?error=access_denied&state=guess']) {
      assert.equal((await fetch(redirect.href + forged)).status, 404);
    }
    assert.equal(command.child.exitCode, null);
    command.child.kill('SIGINT');
    assert.equal(await command.ended, 130);
  });

  it('does not let a person in with a wrong password, and says so when the person gives up', async () => {
    const command = soma('login', '--no-browser');
    const url = new URL(await told(command, authorization));
    const browser = new Browser();
    const page = await signIn(browser, await browser.open(url.href), 'acme-admin-1', 'a wrong password, long enough');
    assert.match(page.text, /Invalid username or password/);
    const { redirect_uri: callback, state: known = '' } = Object.fromEntries(url.searchParams);
    const answer = new URLSearchParams({ error: 'access_denied', state: known, iss: issuer() });
    assert.equal((await fetch(`${callback}?${answer}`)).status, 200);
    assert.equal(await command.ended, 4);
    assert.match(command.err, /error: Keycloak did not let you in: access_denied\n next: soma login\n$/);
  });

  it('says who it is, and renews a token that has ended, once for two commands at the same time', async () => {
    const before = stored();
    writeFileSync(loginFile(), JSON.stringify({ ...before, expiresAt: 0 }));
    const both = [soma('whoami', '--json'), soma('whoami', '--json')];
    for (const command of both) {
      assert.equal(await command.ended, 0, command.err);
      const { username, tenant, roles, teams } = JSON.parse(command.out);
      assert.deepEqual([username, tenant, roles, teams], ['acme-admin-1', 'acme', ['tenant-admin'], []]);
    }
    assert.notEqual(stored().accessToken, before.accessToken);
    assert.notEqual(stored().refreshToken, before.refreshToken);
    assert.equal(statSync(loginFile()).mode & 0o777, 0o600);
  });

  it('is ended by logout everywhere: at Keycloak, on this machine, and at the listener of logouts', async () => {
    const { accessToken, refreshToken } = stored();
    notices.length = 0;
    const command = soma('logout');
    assert.equal(await command.ended, 0, command.err);
    assert.equal(command.out, 'acme-admin-1 is signed out\n');
    assert.deepEqual(readdirSync(folder()), []);
    const body = new URLSearchParams({
      grant_type: 'refresh_token',
      client_id: 'somagent-cli',
      refresh_token: refreshToken,
    });
    const renewed = await fetch(`${issuer()}/protocol/openid-connect/token`, { method: 'POST', body });
    assert.deepEqual([renewed.status, ((await renewed.json()) as { error: string }).error], [400, 'invalid_grant']);
    assert.equal(notices.length, 1);
    const keys = createRemoteJWKSet(new URL(`${issuer()}/protocol/openid-connect/certs`));
    const { payload } = await jwtVerify(notices[0] ?? '', keys, { issuer: issuer(), audience: 'somagent-cli' });
    assert.equal(payload.sid, decodeJwt(accessToken).sid);
    const again = soma('whoami');
    assert.equal(await again.ended, 4);
    assert.match(again.err, /^error: nobody is signed in at .*\n next: soma login\n$/);
  });

  it('signs a person in on another device, by a code', async () => {
    const command = soma('login', '--device');
    const browser = new Browser();
    const start = await browser.open(await told(command, /(https:\/\/\S+user_code=\S+)/));
    const consent = await signIn(browser, start, 'globex-member-2', files.secret('globex-member-2'));
    assert.match(consent.text, /name="accept"/);
    const done = await browser.submit(consent, { accept: 'Yes' });
    assert.equal(done.status, 200);
    assert.equal(await command.ended, 0, command.err);
    assert.match(command.out, /^globex-member-2 {2}globex {2}member {2}green /m);
  });

  it('takes a refresh token once only: a stolen copy ends the login, and the command says what to do', async () => {
    const copy = stored();
    writeFileSync(loginFile(), JSON.stringify({ ...copy, expiresAt: 0 }));
    assert.equal(await soma('whoami').ended, 0);
    writeFileSync(loginFile(), JSON.stringify({ ...copy, expiresAt: 0 }));
    const command = soma('whoami');
    assert.equal(await command.ended, 4);
    assert.match(
      command.err,
      /^error: the login of globex-member-2 has ended: .*reuse.*\(400\)\n next: soma login, or --agent/i,
    );
    assert.deepEqual(readdirSync(folder()), []);
  });

  it('says that the person refused', async () => {
    const command = soma('login', '--device');
    const browser = new Browser();
    const start = await browser.open(await told(command, /(https:\/\/\S+user_code=\S+)/));
    const consent = await signIn(browser, start, 'operator-1', files.secret('operator-1'));
    await browser.submit(consent, { cancel: 'No' });
    assert.equal(await command.ended, 4, command.err);
    assert.match(command.err, /error: Keycloak did not let you in: /);
  });
});
