import { spawn } from 'node:child_process';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import * as oidc from 'openid-client';
import { CliFailure, exitCodes } from './failure.ts';
import { asking, type Issuer, refusalOf } from './issuer.ts';

/** How a person is asked to sign in. */
export interface Prompt {
  /** Tells where to go; shown on standard error, so that a result on standard output stays clean. */
  readonly say: (text: string) => void;
  /** Whether a browser is opened, too. */
  readonly browser: boolean;
}

export type Tokens = oidc.TokenEndpointResponse & oidc.TokenEndpointResponseHelpers;

/** How long a person has to sign in, milliseconds; Keycloak's own page waits no longer. */
const longestMs = 15 * 60_000;
const scope = 'openid';

/** Authorization code with PKCE; the code comes to a port of this machine (RFC 8252 §7.3). */
export async function loginByCode(issuer: Issuer, config: oidc.Configuration, prompt: Prompt): Promise<Tokens> {
  const pkceCodeVerifier = oidc.randomPKCECodeVerifier();
  const expectedState = oidc.randomState();
  const expectedNonce = oidc.randomNonce();
  const challenge = await oidc.calculatePKCECodeChallenge(pkceCodeVerifier);
  await using listener = await listen(expectedState, issuer.signal);
  const url = oidc.buildAuthorizationUrl(config, {
    redirect_uri: listener.redirectUri,
    scope,
    state: expectedState,
    nonce: expectedNonce,
    code_challenge: challenge,
    code_challenge_method: 'S256',
  });
  prompt.say(`sign in here:\n  ${url.href}\n`);
  if (prompt.browser) openBrowser(url.href);
  const answer = await listener.answer;
  const checks = { pkceCodeVerifier, expectedState, expectedNonce, idTokenExpected: true };
  return refusing(() => asking(issuer, () => oidc.authorizationCodeGrant(config, answer, checks)));
}

/** Device code: the person signs in on another machine (RFC 8628). PKCE binds the code to this process, too. */
export async function loginByDevice(issuer: Issuer, config: oidc.Configuration, prompt: Prompt): Promise<Tokens> {
  const verifier = oidc.randomPKCECodeVerifier();
  const challenge = await oidc.calculatePKCECodeChallenge(verifier);
  const request = { scope, code_challenge: challenge, code_challenge_method: 'S256' };
  const device = await refusing(() => asking(issuer, () => oidc.initiateDeviceAuthorization(config, request)));
  prompt.say(`on any device, open\n  ${device.verification_uri}\nand enter the code ${device.user_code}\n`);
  if (device.verification_uri_complete !== undefined) prompt.say(`or open\n  ${device.verification_uri_complete}\n`);
  const { signal } = issuer;
  return refusing(() => oidc.pollDeviceAuthorizationGrant(config, device, { code_verifier: verifier }, { signal }));
}

async function refusing<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof CliFailure || (error instanceof Error && error.name === 'AbortError')) throw error;
    throw new CliFailure(`Keycloak did not let you in: ${refusalOf(error)}`, 'soma login', exitCodes.refused);
  }
}

interface Listener extends AsyncDisposable {
  readonly redirectUri: string;
  /** The address to which the browser came back. */
  readonly answer: Promise<URL>;
}

/** Waits on a free port of the loopback interface for the browser to come back with our own state. */
async function listen(state: string, signal: AbortSignal): Promise<Listener> {
  const server = createServer();
  await new Promise<void>((resolve, reject) => server.once('error', reject).listen(0, '127.0.0.1', resolve));
  const bound = server.address();
  if (bound === null || typeof bound === 'string') throw new Error('no port on 127.0.0.1');
  const redirectUri = `http://127.0.0.1:${bound.port}/callback`;
  const { promise, resolve, reject } = Promise.withResolvers<URL>();
  // Nobody may wait for it yet when the time is over.
  promise.catch(() => undefined);
  const late = new CliFailure(`nobody signed in within ${longestMs / 60_000} minutes`, 'soma login', exitCodes.refused);
  const timer = setTimeout(() => reject(late), longestMs);
  signal.addEventListener('abort', () => reject(signal.reason), { once: true });
  server.on('request', (request, response) => {
    const url = arrived(request, redirectUri, state);
    reply(response, url);
    if (url !== undefined) resolve(url);
  });
  return {
    redirectUri,
    answer: promise,
    async [Symbol.asyncDispose]() {
      clearTimeout(timer);
      // The page is on its way to the browser.
      server.closeIdleConnections();
      await new Promise((done) => server.close(done));
    },
  };
}

/** The address, when it is an answer to our own question; any other page may know the port, but not the state. */
function arrived(request: IncomingMessage, redirectUri: string, state: string): URL | undefined {
  const url = new URL(request.url ?? '/', redirectUri);
  const isOurs = request.method === 'GET' && url.pathname === '/callback' && url.searchParams.get('state') === state;
  return isOurs ? url : undefined;
}

function reply(response: ServerResponse, url: URL | undefined): void {
  const refused = url?.searchParams.has('error') ?? false;
  const text = refused ? 'The sign-in was refused; the terminal says why.' : 'You are signed in. Close this window.';
  const headers = {
    'content-type': 'text/plain; charset=utf-8',
    'cache-control': 'no-store',
    'referrer-policy': 'no-referrer',
    connection: 'close',
  };
  response.writeHead(url === undefined ? 404 : 200, headers).end(url === undefined ? 'There is nothing here.' : text);
}

/** Best effort: the address is printed anyhow. */
function openBrowser(url: string): void {
  const programs: Readonly<Record<string, string>> = { darwin: 'open' };
  const child = spawn(programs[process.platform] ?? 'xdg-open', [url], { stdio: 'ignore', detached: true });
  child.once('error', () => undefined);
  child.unref();
}
