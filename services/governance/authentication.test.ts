import assert from 'node:assert/strict';
import { test } from 'node:test';
import { WorkloadKeysUnavailable, WorkloadRefused } from '@somagent/kit';
import { createLocalJWKSet, exportJWK, exportSPKI, generateKeyPair, SignJWT, UnsecuredJWT } from 'jose';
import { authenticate, TokenVerifier } from './authentication.ts';
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

const tokens = new TokenVerifier({ keys, rules });
const withHeader = async (token: string) => authenticate(`Bearer ${token}`, { tokens });

async function refuses(token: string, type: ProblemType, detail: RegExp): Promise<void> {
  await assert.rejects(withHeader(token), (error: unknown) => {
    assert.ok(error instanceof Problem);
    assert.equal(error.type, type);
    assert.match(error.message, detail);
    assert.equal(error.message.includes(token), false);
    return true;
  });
}

const caller = {
  kind: 'user',
  tenant: 'acme',
  subject: 'service-account-acme',
  client: 'acme-agent',
  roles: [],
  teams: [],
  scopes: null,
  revocable: {},
};

test('a good token gives the caller', async () => {
  assert.deepEqual(await withHeader(await sign()), caller);
  assert.deepEqual(await withHeader(await sign({}, { typ: 'at+jwt' })), caller);
  assert.deepEqual(await withHeader(await sign({ exp: now() - 3 })), caller, 'within the clock skew');
});

test('roles, teams, kind and the names for a revocation come from the token', async () => {
  const claimed = {
    roles: ['agent', 7],
    teams: ['blue'],
    preferred_username: 'service-account-acme-agent',
    sid: 's1',
    jti: 'j1',
  };
  assert.deepEqual(await withHeader(await sign(claimed)), {
    ...caller,
    kind: 'service-account',
    roles: ['agent'],
    teams: ['blue'],
    revocable: { sid: 's1', jti: 'j1' },
  });
  assert.deepEqual((await withHeader(await sign({ roles: 'operator' }))).roles, [], 'a role is in a list or nowhere');
});

test('an operator needs no tenant, and nobody else may call himself the platform', async () => {
  const { tenant } = await withHeader(await sign({ tenant: undefined, roles: ['operator'] }));
  assert.equal(tenant, 'platform');
  await refuses(await sign({ tenant: 'platform', roles: ['operator'] }), 'tenant-missing', /tenant/);
});

test('a verified token is remembered by hash, and only until it expires', async () => {
  const token = await sign({ exp: now() - 4 });
  assert.equal(tokens.recall(token), undefined);
  const first = await tokens.verify(token);
  assert.equal(tokens.recall(token), first);
  assert.equal(tokens.recall(`${token.slice(0, -2)}AA`), undefined, 'another signature is another token');
  const expired = Date.now() + 1100;
  while (Date.now() < expired) await new Promise(setImmediate);
  assert.equal(tokens.recall(token), undefined);
  await refuses(token, 'token-invalid', /expired/);
});

test('the memory of tokens has a limit', async () => {
  const small = new TokenVerifier({ keys, rules, capacity: 2 });
  const [first = '', second = '', third = ''] = await Promise.all([sign({ n: 1 }), sign({ n: 2 }), sign({ n: 3 })]);
  for (const token of [first, second, third]) await small.verify(token);
  assert.equal(small.recall(first), undefined);
  assert.ok(small.recall(second) && small.recall(third));
});

test('a missing or malformed header is told apart from a bad token', async () => {
  for (const header of [undefined, '', 'Basic YTpi', 'Bearer', 'Bearer a b']) {
    assert.throws(() => authenticate(header, { tokens }), { name: 'Problem', type: 'token-missing' });
  }
  await refuses('not-a-token', 'token-invalid', /not a signed JWT/);
  await refuses('a'.repeat(8193), 'token-invalid', /longer than 8192/);
});

test('an API key is refused where there are none, when it is malformed and when nobody knows it', async () => {
  const key = `soma_${'a'.repeat(22)}_${'b'.repeat(43)}`;
  await refuses(key, 'token-invalid', /not admitted/);
  const asked: string[] = [];
  const apiKeys = {
    verify: async (asks: string) => {
      asked.push(asks);
      return null;
    },
  };
  for (const token of [key, 'soma_short', `${key}c`]) {
    await assert.rejects(async () => authenticate(`Bearer ${token}`, { tokens, apiKeys }), { type: 'token-invalid' });
  }
  assert.deepEqual(asked, [key], 'a malformed key is nobody asked about');
});

test('a token that says it is a workload is verified as one, or refused where none is admitted', async () => {
  const subject = 'system:serviceaccount:local-services:audit';
  const token = await sign({ sub: subject, iss: 'https://kubernetes.default.svc' });
  await refuses(token, 'token-invalid', /"iss"/);
  const workloads = {
    verify: async (header: string | undefined) => {
      assert.equal(header, `Bearer ${token}`);
      return { subject, namespace: 'local-services', serviceAccount: 'audit', pod: null };
    },
  };
  const who = await authenticate(`Bearer ${token}`, { tokens, workloads });
  assert.deepEqual([who.kind, who.tenant, who.subject, who.roles], ['workload', 'platform', subject, []]);
  for (const [thrown, type] of [
    [new WorkloadRefused('it has expired'), 'token-invalid'],
    [new WorkloadRefused('it may not call', 403), 'forbidden'],
    [new WorkloadKeysUnavailable('away'), 'identity-unavailable'],
  ] as const) {
    const refusing = { verify: () => Promise.reject(thrown) };
    await assert.rejects(async () => authenticate(`Bearer ${token}`, { tokens, workloads: refusing }), { type });
  }
});

/** The last letter of a signature of 256 bytes carries 4 bits that nobody reads: changed, the bytes are the same. */
function relettered(token: string): string {
  const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';
  const other = `${token.slice(0, -1)}${alphabet[alphabet.indexOf(token.at(-1) ?? '') ^ 1]}`;
  const bytes = (text: string) => Buffer.from(text.slice(text.lastIndexOf('.') + 1), 'base64url');
  assert.deepEqual(bytes(other), bytes(token));
  return other;
}

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
  ['of a workload, by the issuer', () => sign({ sub: 'system:serviceaccount:a:b' }), 'token-invalid', /workload/],
  ['with the same signature in other letters', async () => relettered(await sign()), 'token-invalid', /base64url/],
  ['with a padded signature', async () => `${await sign()}==`, 'token-invalid', /base64url/],
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
  const verifier = new TokenVerifier({ keys: away, rules });
  await assert.rejects(verifier.verify(await sign()), { type: 'identity-unavailable' });
});
