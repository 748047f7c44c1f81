import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createLocalJWKSet, exportJWK, exportSPKI, generateKeyPair, SignJWT, UnsecuredJWT } from 'jose';
import { authenticate } from './authentication.ts';
import { Problem, type ProblemType } from './problem.ts';

const rules = { issuer: 'https://identity.test/realms/somagent', audience: 'somagent-gateway' };
const { publicKey, privateKey } = await generateKeyPair('RS256', { extractable: true });
const stranger = await generateKeyPair('RS256');
const keys = createLocalJWKSet({ keys: [{ ...(await exportJWK(publicKey)), kid: 'k1', alg: 'RS256', use: 'sig' }] });
const now = () => Math.floor(Date.now() / 1000);

const claims = () => ({
  iss: rules.issuer,
  aud: [rules.audience],
  sub: 'service-account-acme',
  azp: 'acme-agent',
  tenant: 'acme',
  typ: 'Bearer',
  exp: now() + 60,
});

type Claims = Record<string, unknown>;
const sign = (changes: Claims = {}, header: { typ?: string; kid?: string } = {}, key = privateKey) =>
  new SignJWT({ ...claims(), ...changes })
    .setProtectedHeader({ alg: 'RS256', kid: 'k1', typ: 'JWT', ...header })
    .sign(key);

const withHeader = (token: string) => authenticate(`Bearer ${token}`, keys, rules);

async function refuses(token: string, type: ProblemType, detail: RegExp): Promise<void> {
  await assert.rejects(withHeader(token), (error: unknown) => {
    assert.ok(error instanceof Problem);
    assert.equal(error.type, type);
    assert.match(error.message, detail);
    assert.equal(error.message.includes(token), false);
    return true;
  });
}

test('a good token gives the caller', async () => {
  const caller = { tenant: 'acme', subject: 'service-account-acme', client: 'acme-agent' };
  assert.deepEqual(await withHeader(await sign()), caller);
  assert.deepEqual(await withHeader(await sign({}, { typ: 'at+jwt' })), caller);
  assert.deepEqual(await withHeader(await sign({ exp: now() - 3 })), caller, 'within the clock skew');
});

test('a missing or malformed header is told apart from a bad token', async () => {
  for (const header of [undefined, '', 'Basic YTpi', 'Bearer', 'Bearer a b']) {
    await assert.rejects(authenticate(header, keys, rules), { name: 'Problem', type: 'token-missing' });
  }
  await refuses('not-a-token', 'token-invalid', /not a signed JWT/);
});

const refusals: readonly [string, () => Promise<string>, ProblemType, RegExp][] = [
  ['expired', () => sign({ exp: now() - 30 }), 'token-invalid', /expired/],
  ['without expiry', () => sign({ exp: undefined }), 'token-invalid', /"exp"/],
  ['not yet valid', () => sign({ nbf: now() + 30 }), 'token-invalid', /"nbf"/],
  ['of another audience', () => sign({ aud: 'account' }), 'token-invalid', /"aud"/],
  ['of another issuer', () => sign({ iss: 'https://evil.test' }), 'token-invalid', /"iss"/],
  ['signed by a stranger', () => sign({}, {}, stranger.privateKey), 'token-invalid', /signature/],
  ['with an unknown key id', () => sign({}, { kid: 'k2' }), 'token-invalid', /key is unknown/],
  ['of another type', () => sign({}, { typ: 'logout+jwt' }), 'token-invalid', /type/],
  ['that is an ID token', () => sign({ typ: 'ID' }), 'token-invalid', /not an access token/],
  ['without a subject', () => sign({ sub: undefined }), 'token-invalid', /"sub"/],
  ['without a tenant', () => sign({ tenant: undefined }), 'tenant-missing', /tenant/],
  ['with a tenant that is a path', () => sign({ tenant: 'acme/../globex' }), 'tenant-missing', /tenant/],
  ['with a list of tenants', () => sign({ tenant: ['acme'] }), 'tenant-missing', /tenant/],
];

for (const [name, make, type, detail] of refusals) {
  test(`a token ${name} is refused`, async () => refuses(await make(), type, detail));
}

test('an unsigned token is refused', async () => {
  await refuses(new UnsecuredJWT(claims()).encode(), 'token-invalid', /algorithm|signed JWT/);
});

test('a token signed by HS256 with the public key as secret is refused', async () => {
  const secret = new TextEncoder().encode(await exportSPKI(publicKey));
  const token = await new SignJWT(claims()).setProtectedHeader({ alg: 'HS256', kid: 'k1', typ: 'JWT' }).sign(secret);
  await refuses(token, 'token-invalid', /algorithm/);
});

test('a token whose claims were changed is refused', async () => {
  const [header, , signature] = (await sign()).split('.');
  const forged = Buffer.from(JSON.stringify({ ...claims(), tenant: 'globex' })).toString('base64url');
  await refuses(`${header}.${forged}.${signature}`, 'token-invalid', /signature/);
});

test('when keys cannot be fetched the token is not blamed', async () => {
  const away = () => Promise.reject(new TypeError('fetch failed'));
  await assert.rejects(authenticate(`Bearer ${await sign()}`, away, rules), { type: 'identity-unavailable' });
});
