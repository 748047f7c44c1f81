/** Tokens that must not open any route: exact status and problem type, on every declared route. */
import assert from 'node:assert/strict';
import { createHmac, createPublicKey, generateKeyPairSync, sign } from 'node:crypto';
import { before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { routes } from '@somagent/gateway/routes.ts';
import { kubectl } from './support/kubectl.ts';
import { address, call, issuerKeys, requestToken, tokenOf } from './support/session-api.ts';

type Json = Record<string, unknown>;
const encode = (value: Json): string => Buffer.from(JSON.stringify(value)).toString('base64url');
const decode = (part: string | undefined): Json => JSON.parse(Buffer.from(part ?? '', 'base64url').toString()) as Json;

let good = '';
let brief = '';
let header: Json = {};
let claims: Json = {};
let signature = '';
before(async () => {
  [good, brief] = await Promise.all([tokenOf('acme-agent'), tokenOf('brief-agent')]);
  const parts = good.split('.');
  header = decode(parts[0]);
  claims = decode(parts[1]);
  signature = parts[2] ?? '';
});

async function refused(token: string | undefined, status: number, type: string): Promise<void> {
  const answer = await call('/v1/sessions', token === undefined ? {} : { token });
  assert.equal(answer.status, status, JSON.stringify(answer.body));
  assert.equal(answer.body.type, `urn:somagent:problem:${type}`);
  assert.equal(answer.headers['content-type'], 'application/problem+json');
  if (status === 401) assert.match(String(answer.headers['www-authenticate']), /^Bearer/);
  if (token !== undefined) assert.equal(JSON.stringify(answer.body).includes(token), false);
}

const stranger = generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey;
const signedBy = (changes: Json, head: Json = header): string => {
  const signed = `${encode(head)}.${encode({ ...claims, ...changes })}`;
  return `${signed}.${sign('sha256', Buffer.from(signed), stranger).toString('base64url')}`;
};

test('the good token is accepted: the refusals below mean something', async () => {
  assert.equal((await call('/v1/sessions', { token: good })).status, 200);
});

test('no token', () => refused(undefined, 401, 'token-missing'));
test('a token that is none', () => refused('let.me.in', 401, 'token-invalid'));
test('a token for another audience', async () => refused(await tokenOf('foreign-agent'), 401, 'token-invalid'));
test('a token of the issuer without a tenant', async () =>
  refused(await tokenOf('untenanted-agent'), 403, 'tenant-missing'));

test('a token of the issuer that has expired, and was good until then', { timeout: 90_000 }, async () => {
  assert.equal((await call('/v1/sessions', { token: brief })).status, 200);
  const { exp } = decode(brief.split('.')[1]);
  const clockSkewSeconds = 5;
  await sleep(Math.max(0, Number(exp) * 1000 - Date.now()) + (clockSkewSeconds + 1) * 1000);
  await refused(brief, 401, 'token-invalid');
});

test('a token signed by a stranger under a known key id', () => refused(signedBy({}), 401, 'token-invalid'));
test('a token with an unknown key id', () => refused(signedBy({}, { ...header, kid: 'nobody' }), 401, 'token-invalid'));
test('a token without a tenant, signed by a stranger', () =>
  refused(signedBy({ tenant: undefined }), 401, 'token-invalid'));

test('a token whose tenant was changed', () =>
  refused(`${encode(header)}.${encode({ ...claims, tenant: 'globex' })}.${signature}`, 401, 'token-invalid'));

test('a token whose expiry was moved', () =>
  refused(
    `${encode(header)}.${encode({ ...claims, exp: Number(claims.exp) + 3600 })}.${signature}`,
    401,
    'token-invalid',
  ));

test('an unsigned token, alg none', async () => {
  for (const alg of ['none', 'None', 'NONE']) {
    await refused(`${encode({ ...header, alg })}.${encode(claims)}.`, 401, 'token-invalid');
  }
});

test('a token signed by HS256 with the public key as the secret', async () => {
  const { keys } = await issuerKeys();
  const key = keys.find(({ kid }) => kid === header.kid);
  assert.ok(key);
  const pem = createPublicKey({ key, format: 'jwk' }).export({ type: 'spki', format: 'pem' });
  const signed = `${encode({ ...header, alg: 'HS256' })}.${encode(claims)}`;
  await refused(`${signed}.${createHmac('sha256', pem).update(signed).digest('base64url')}`, 401, 'token-invalid');
});

test('no declared route answers without a token', async () => {
  for (const { method, path } of Object.values(routes)) {
    const concrete = path.replace('{id}', '00000000-0000-4000-8000-000000000000');
    const answer = await call(concrete, { method: method.toUpperCase() });
    assert.equal(answer.status, 401, `${method} ${path}`);
    assert.equal(refusalOf(answer.body), 'token-missing', `${method} ${path}`);
  }
});

/** Why a request was refused: as a problem, or in the words of OpenAI's API. */
function refusalOf({ type, error }: Record<string, unknown>): string | undefined {
  if ((error as { readonly code?: string } | undefined)?.code === 'invalid_api_key') return 'token-missing';
  return typeof type === 'string' ? type.replace('urn:somagent:problem:', '') : undefined;
}

/** Signs in at Keycloak as a pod: with a token of the cluster for a ServiceAccount of our services. */
async function signInAs(serviceAccount: string, audience: string): Promise<string> {
  const assertion = await kubectl(
    ...['create', 'token', serviceAccount, '-n', 'local-services', '--audience', audience, '--duration', '10m'],
  );
  const form = new URLSearchParams({
    grant_type: 'client_credentials',
    client_assertion_type: 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer',
    client_assertion: assertion.trim(),
  });
  return outcomeOf(form);
}

/** Status of the answer, and Keycloak's word for the error. */
async function outcomeOf(form: URLSearchParams): Promise<string> {
  const { status, text } = await requestToken(form.toString());
  return `${status} ${JSON.parse(text).error ?? 'token'}`;
}

test('Keycloak admits the pod of the identity service by its token for the realm, and nothing else', async () => {
  const realm = address('SOMA_ISSUER_URL', 'issuerUrl');
  const refused = /^40[01] (invalid_client|unauthorized_client)$/;
  assert.equal(await signInAs('identity', realm), '200 token');
  assert.match(await signInAs('identity', 'somagent-identity'), refused, 'a token for another server');
  assert.match(await signInAs('gateway', realm), refused, 'a pod that is no client of the realm');
  const secret = await outcomeOf(
    new URLSearchParams({ grant_type: 'client_credentials', client_id: 'somagent-identity', client_secret: 'any' }),
  );
  assert.match(secret, refused, 'a secret, which it does not have');
});
