import { createPublicKey, generateKeyPairSync, type KeyObject, randomUUID, sign } from 'node:crypto';
import { getCACertificates, setDefaultCACertificates } from 'node:tls';
import KeycloakAdminClient from '@keycloak/keycloak-admin-client';
import { Browser, signIn } from '@somagent/bootstrap/testing/browser.ts';
import * as oidc from 'openid-client';
import { address, authorityPem, call, issuerKeys, secretOf, tokenOf } from '../support/session-api.ts';
import { eventually } from '../support/wait.ts';

export type Json = Readonly<Record<string, unknown>>;

/** Base64url of a value's JSON, or of a text as it is. */
export const encode = (value: unknown): string =>
  Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)).toString('base64url');
export const decode = (part: string | undefined): Json => JSON.parse(Buffer.from(part ?? '', 'base64url').toString());

/** Tokens of a person, from a real login. */
export interface Person {
  readonly access: string;
  readonly id: string;
  readonly refresh: string;
}

/** What attacks are made from. */
export interface World {
  readonly gateway: string;
  readonly ca: string;
  /** Good tokens of an agent of either tenant. */
  readonly good: string;
  readonly other: string;
  /** Genuine tokens that must not open anything: for another audience, without a tenant, of another realm. */
  readonly foreign: string;
  readonly untenanted: string;
  readonly master: string;
  readonly person: Person;
  /** Header and claims of the good token, and the public key that verifies it. */
  readonly header: Json;
  readonly claims: Json;
  readonly publicKey: KeyObject;
  /** A token by the issuer's own hand: signed with a key that the realm publishes while these tests run. */
  readonly issue: (changes: Json, header?: Json) => string;
  /** The same, from texts: JSON that no serializer would write. */
  readonly issueText: (header: string, payload: string) => string;
  /** Id of the key that signs these. */
  readonly kid: string;
  readonly privateKey: KeyObject;
  /** A session of each tenant. */
  readonly session: string;
  readonly otherSession: string;
  /** Takes away what was made for the attacks. */
  readonly dispose: () => Promise<void>;
}

const keyName = 'key-of-the-attack-tests';
const keyProvider = 'org.keycloak.keys.KeyProvider';

/** Signs a text by RS256. */
export function signRs256(text: string, key: KeyObject): string {
  return sign('sha256', Buffer.from(text), key).toString('base64url');
}

/** Signs in, opens sessions, and lets the realm publish a key whose private half is in this process only. */
export async function createWorld(): Promise<World> {
  const ca = await authorityPem();
  setDefaultCACertificates([...getCACertificates('default'), ca]);
  const [good, other, foreign, untenanted] = await Promise.all(
    ['acme-agent', 'globex-agent', 'foreign-agent', 'untenanted-agent'].map(tokenOf),
  );
  const header = decode(good?.split('.')[0]);
  const claims = decode(good?.split('.')[1]);
  const { keys } = await issuerKeys();
  const jwk = keys.find(({ kid }) => kid === header.kid);
  if (
    good === undefined ||
    other === undefined ||
    foreign === undefined ||
    untenanted === undefined ||
    jwk === undefined
  ) {
    throw new Error('the issuer does not publish the key of its own token');
  }
  const realm = await issuerOfMaster();
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  const { kid, remove } = await publishKey(realm.admin, privateKey);
  const issueText = (head: string, payload: string): string => {
    const text = `${encode(head)}.${encode(payload)}`;
    return `${text}.${signRs256(text, privateKey)}`;
  };
  const now = Math.floor(Date.now() / 1000);
  const issue = (changes: Json, head: Json = {}): string =>
    issueText(
      JSON.stringify({ alg: 'RS256', typ: 'JWT', kid, ...head }),
      JSON.stringify({ ...claims, jti: randomUUID(), iat: now, exp: now + 1800, ...changes }),
    );
  await eventually('the new key is known to the gateway', 60, async () => {
    const { status } = await call('/v1/sessions', { token: issue({}) });
    return status === 200 ? true : undefined;
  });
  const [session, otherSession] = await Promise.all([openSession(good), openSession(other)]);
  return {
    gateway: address('SOMA_GATEWAY_URL', 'gatewayUrl'),
    ca,
    good,
    other,
    foreign,
    untenanted,
    master: realm.token,
    person: await loginAs('acme-member-1'),
    header,
    claims,
    publicKey: createPublicKey({ key: jwk, format: 'jwk' }),
    issue,
    issueText,
    kid,
    privateKey,
    session,
    otherSession,
    dispose: async () => {
      await remove();
      await Promise.all([
        call(`/v1/sessions/${session}`, { method: 'DELETE', token: good }),
        call(`/v1/sessions/${otherSession}`, { method: 'DELETE', token: other }),
      ]);
    },
  };
}

async function openSession(token: string): Promise<string> {
  const { status, body } = await call<{ id: string }>('/v1/sessions', { method: 'POST', token, body: {} });
  if (status !== 201) throw new Error(`no session: status ${status} ${JSON.stringify(body)}`);
  return body.id;
}

/** The administrator of Keycloak: its token is genuine, and of another realm. */
async function issuerOfMaster(): Promise<{ readonly admin: KeycloakAdminClient; readonly token: string }> {
  const { username, password } = await secretOf('keycloak-admin', 'local-identity');
  const { origin } = new URL(address('SOMA_ISSUER_URL', 'issuerUrl'));
  const admin = new KeycloakAdminClient({ baseUrl: origin, realmName: 'master' });
  await admin.auth({ grantType: 'client_credentials', clientId: username, clientSecret: password });
  return { admin, token: String(await admin.getAccessToken()) };
}

async function publishKey(admin: KeycloakAdminClient, key: KeyObject) {
  const realm = address('SOMA_ISSUER_URL', 'issuerUrl').split('/').at(-1) ?? '';
  const left = await admin.components.find({ realm, type: keyProvider, name: keyName });
  for (const { id } of left) await admin.components.del({ realm, id: id ?? '' });
  const before = new Set((await issuerKeys()).keys.map(({ kid }) => kid));
  const { id } = await admin.components.create({
    realm,
    name: keyName,
    providerId: 'rsa',
    providerType: keyProvider,
    config: {
      privateKey: [String(key.export({ type: 'pkcs8', format: 'pem' }))],
      enabled: ['true'],
      active: ['false'],
      priority: ['-1'],
      algorithm: ['RS256'],
    },
  });
  const kid = (await issuerKeys()).keys.find((known) => !before.has(known.kid))?.kid;
  if (kid === undefined) throw new Error('the realm does not publish the new key');
  // Its token lives for a minute only, shorter than the tests.
  const remove = async () => (await issuerOfMaster()).admin.components.del({ realm, id });
  return { kid, remove };
}

/** Signs a person in as `soma login` does, with a browser played by hand. */
export async function loginAs(username: string): Promise<Person> {
  setDefaultCACertificates([...getCACertificates('default'), await authorityPem()]);
  const issuer = new URL(address('SOMA_ISSUER_URL', 'issuerUrl'));
  const config = await oidc.discovery(issuer, 'somagent-cli', undefined, oidc.None());
  const verifier = oidc.randomPKCECodeVerifier();
  const challenge = await oidc.calculatePKCECodeChallenge(verifier);
  const device = await oidc.initiateDeviceAuthorization(config, {
    scope: 'openid',
    code_challenge: challenge,
    code_challenge_method: 'S256',
  });
  const browser = new Browser();
  const { password } = await secretOf(`keycloak-user-${username}`);
  const page = await browser.open(device.verification_uri_complete ?? device.verification_uri);
  await browser.submit(await signIn(browser, page, username, password), { accept: 'Yes' });
  const tokens = await oidc.pollDeviceAuthorizationGrant(
    config,
    device,
    { code_verifier: verifier },
    // Who is refused never gets to approve, and the token would be asked for until the code expires.
    { signal: AbortSignal.timeout(20_000) },
  );
  return { access: tokens.access_token, id: tokens.id_token ?? '', refresh: tokens.refresh_token ?? '' };
}

/** Ends a person's session at Keycloak, as `soma logout` does. */
export async function logout({ refresh }: Person): Promise<void> {
  const body = new URLSearchParams({ client_id: 'somagent-cli', refresh_token: refresh });
  const url = `${address('SOMA_ISSUER_URL', 'issuerUrl')}/protocol/openid-connect/logout`;
  const { status } = await fetch(url, { method: 'POST', body });
  if (status !== 204) throw new Error(`logout: status ${status}`);
}
