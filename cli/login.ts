import * as oidc from 'openid-client';
import { z } from 'zod';
import { CliFailure, exitCodes } from './failure.ts';
import { asking, cliClient, discover, type Issuer, refusalOf } from './issuer.ts';
import { loginByCode, loginByDevice, type Tokens } from './login-flow.ts';
import type { Login, LoginStore } from './login-store.ts';
import { formatTable } from './print.ts';

/** What the login commands need of their surroundings. */
export interface LoginContext {
  readonly issuer: () => Promise<Issuer>;
  readonly store: LoginStore;
  readonly json: boolean;
  readonly write: (text: string) => void;
  /** Writes to standard error. */
  readonly say: (text: string) => void;
}

/** A token that ends this soon is not used any more, milliseconds. */
const renewBeforeMs = 15_000;

const claimsSchema = z.looseObject({
  preferred_username: z.string(),
  tenant: z.string().optional(),
  roles: z.array(z.string()).default([]),
  teams: z.array(z.string()).default([]),
  exp: z.number(),
  sid: z.string().optional(),
});

/** What an access token says. It is not verified here: whoever is asked with it does that. */
function claimsOf(token: string): z.output<typeof claimsSchema> {
  return claimsSchema.parse(JSON.parse(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString()));
}

function loginOf(issuer: Issuer, tokens: Tokens): Login {
  const { access_token: accessToken, refresh_token: refreshToken } = tokens;
  if (refreshToken === undefined) throw new CliFailure('Keycloak gave no refresh token', 'soma up repairs the realm');
  const { preferred_username: username, exp } = claimsOf(accessToken);
  return { issuer: issuer.url, username, accessToken, refreshToken, expiresAt: exp * 1000 };
}

/** Signs a person in and keeps the tokens for the commands that follow. */
export async function login(
  context: LoginContext,
  options: { readonly device: boolean; readonly browser: boolean },
): Promise<void> {
  const issuer = await context.issuer();
  const config = await discover(issuer);
  const flow = options.device ? loginByDevice : loginByCode;
  const tokens = await flow(issuer, config, { say: context.say, browser: options.browser });
  const signedIn = loginOf(issuer, tokens);
  await context.store.locked(issuer.url, async () => context.store.write(signedIn));
  show(context, signedIn);
}

/** Ends the person's session at Keycloak and forgets the tokens. What ends there cannot be used anywhere. */
export async function logout(context: LoginContext): Promise<void> {
  const issuer = await context.issuer();
  await context.store.locked(issuer.url, async () => {
    const stored = context.store.read(issuer.url);
    if (stored === undefined) {
      context.write(context.json ? '{"loggedOut":null}\n' : `nobody was signed in at ${issuer.url}\n`);
      return;
    }
    await endSession(issuer, stored);
    context.store.remove(issuer.url);
    const { username } = stored;
    context.write(context.json ? `${JSON.stringify({ loggedOut: username })}\n` : `${username} is signed out\n`);
  });
}

async function endSession(issuer: Issuer, { accessToken, refreshToken }: Login): Promise<void> {
  const config = await discover(issuer);
  // An access token lives on until it ends (RFC 7009): it is revoked by itself, before the session that it belongs to.
  await asking(issuer, () => oidc.tokenRevocation(config, accessToken, { token_type_hint: 'access_token' })).catch(
    ignoreRefusal,
  );
  const { end_session_endpoint: url } = config.serverMetadata();
  if (url === undefined) throw new CliFailure(`${issuer.url} has no end_session_endpoint`, 'check --issuer');
  const body = new URLSearchParams({ client_id: cliClient, refresh_token: refreshToken });
  await asking(issuer, async () => {
    const response = await fetch(url, { method: 'POST', body, signal: issuer.signal });
    // 400: the session has ended already.
    if (!response.ok && response.status !== 400) throw new Error('the session was not ended', { cause: response });
  });
}

/** A token that Keycloak does not accept any more needs no revocation. */
function ignoreRefusal(error: unknown): void {
  if (error instanceof CliFailure) throw error;
}

/** Shows who is signed in; asks Keycloak whether the session still lives when the token is about to end. */
export async function whoAmI(context: LoginContext): Promise<void> {
  const issuer = await context.issuer();
  const stored = await currentLogin(issuer, context.store);
  if (stored === undefined) {
    throw new CliFailure(`nobody is signed in at ${issuer.url}`, 'soma login', exitCodes.refused);
  }
  show(context, stored);
}

function show({ json, write }: LoginContext, { issuer, username, accessToken }: Login): void {
  const { tenant = null, roles, teams, exp } = claimsOf(accessToken);
  const expires = new Date(exp * 1000).toISOString();
  if (json) {
    write(`${JSON.stringify({ username, tenant, roles, teams, issuer, expires })}\n`);
    return;
  }
  const words = (names: readonly string[]) => (names.length === 0 ? '-' : names.join(', '));
  const row = [username, tenant ?? '-', words(roles), words(teams), expires];
  write(formatTable(['USER', 'TENANT', 'ROLES', 'TEAMS', 'TOKEN UNTIL'], [row]));
}

/** The login at an issuer with a token that is good for a while, renewed where that is due. */
export async function currentLogin(issuer: Issuer, store: LoginStore): Promise<Login | undefined> {
  const isFresh = (login: Login | undefined) => login !== undefined && login.expiresAt - Date.now() > renewBeforeMs;
  const stored = store.read(issuer.url);
  if (stored === undefined || isFresh(stored)) return stored;
  return store.locked(issuer.url, async () => {
    // Another command may have renewed it meanwhile.
    const now = store.read(issuer.url);
    if (now === undefined || isFresh(now)) return now;
    const renewed = loginOf(issuer, await renew(issuer, store, now));
    store.write(renewed);
    return renewed;
  });
}

async function renew(issuer: Issuer, store: LoginStore, { refreshToken, username }: Login): Promise<Tokens> {
  const config = await discover(issuer);
  try {
    return await asking(issuer, () => oidc.refreshTokenGrant(config, refreshToken));
  } catch (error) {
    if (error instanceof CliFailure) throw error;
    store.remove(issuer.url);
    const next = 'soma login, or --agent to act as the agent of the tenant';
    throw new CliFailure(`the login of ${username} has ended: ${refusalOf(error)}`, next, exitCodes.refused);
  }
}
