import { constants, sign } from 'node:crypto';
import { byToken } from './attack.ts';
import { encode, type World } from './world.ts';

const now = (): number => Math.floor(Date.now() / 1000);
/** How far two clocks may differ, seconds: beyond it a time counts. */
const skew = 5;
/** A request takes its time, too. */
const margin = 3;

/** Claims as a text, with more text before their end: what a serializer would not write. */
const withText = ({ claims }: World, more: string): string =>
  `${JSON.stringify({ ...claims, exp: now() + 600, tenant: undefined }).slice(0, -1)},${more}}`;
const headOf = (kid: string, more = ''): string => `{"alg":"RS256","typ":"JWT","kid":"${kid}"${more}}`;

/** Tokens that the issuer itself has signed: only what they say is wrong. Each is good but for one claim. */
export const wrongClaims = byToken(401, 'token-invalid', {
  'ended, beyond the clock skew': ({ issue }) => issue({ exp: now() - skew - 1 }),
  'ended in 1970': ({ issue }) => issue({ exp: 0 }),
  'without an end': ({ issue }) => issue({ exp: undefined }),
  'with an end in words': ({ issue }) => issue({ exp: String(now() + 600) }),
  'with an end that is null': ({ issue }) => issue({ exp: null }),
  'not yet valid, beyond the clock skew': ({ issue }) => issue({ nbf: now() + skew + margin }),
  'not valid before words': ({ issue }) => issue({ nbf: 'tomorrow' }),
  'without an audience': ({ issue }) => issue({ aud: undefined }),
  'for nobody': ({ issue }) => issue({ aud: [] }),
  'for a name that begins like ours': ({ issue }) => issue({ aud: 'somagent-gateway-evil' }),
  'for our name in capitals': ({ issue }) => issue({ aud: 'SOMAGENT-GATEWAY' }),
  'for an object': ({ issue }) => issue({ aud: { 'somagent-gateway': true } }),
  'for a workload': ({ issue }) => issue({ aud: 'somagent-identity' }),
  'of no issuer': ({ issue }) => issue({ iss: undefined }),
  'of an issuer with a slash more': ({ issue, claims }) => issue({ iss: `${claims.iss}/` }),
  'of an issuer without TLS': ({ issue, claims }) => issue({ iss: String(claims.iss).replace('https:', 'http:') }),
  'of another realm of the same server': ({ issue, claims }) =>
    issue({ iss: String(claims.iss).replace(/[^/]+$/, 'master') }),
  'of a list of issuers': ({ issue, claims }) => issue({ iss: [claims.iss] }),
  'of nobody': ({ issue }) => issue({ sub: undefined }),
  'of an empty subject': ({ issue }) => issue({ sub: '' }),
  'of a subject that is a number': ({ issue }) => issue({ sub: 1 }),
  'of a pod of the platform': ({ issue }) => issue({ sub: 'system:serviceaccount:local-services:orchestrator' }),
  'an ID token by its claim': ({ issue }) => issue({ typ: 'ID' }),
  'a refresh token by its claim': ({ issue }) => issue({ typ: 'Refresh' }),
  'an offline token by its claim': ({ issue }) => issue({ typ: 'Offline' }),
  'a logout token by its claim': ({ issue }) => issue({ typ: 'Logout' }),
  'a logout token by its header': ({ issue }) => issue({}, { typ: 'logout+jwt' }),
  'a proof of possession by its header': ({ issue }) => issue({}, { typ: 'dpop+jwt' }),
  'a security event by its header': ({ issue }) => issue({}, { typ: 'secevent+jwt' }),
  'with a critical extension': ({ issue }) =>
    issue({}, { crit: ['https://example.com/x'], 'https://example.com/x': true }),
  'with a payload that is not encoded': ({ issue }) => issue({}, { crit: ['b64'], b64: false }),
  'a text instead of claims': ({ issueText, kid }) => issueText(headOf(kid), '"claims"'),
  'a list instead of claims': ({ issueText, kid, claims }) => issueText(headOf(kid), JSON.stringify([claims])),
  'claims that are no JSON': ({ issueText, kid }) => issueText(headOf(kid), '{tenant:acme}'),
  'claims in a token in the token': ({ issueText, kid, good }) => issueText(headOf(kid, ',"cty":"JWT"'), good),
  'by PS256 with a key for RS256': ({ kid, claims, privateKey }) => {
    const text = `${encode({ alg: 'PS256', kid })}.${encode({ ...claims, exp: now() + 600 })}`;
    const key = { key: privateKey, padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: 32 };
    return `${text}.${sign('sha256', Buffer.from(text), key).toString('base64url')}`;
  },
  'by RS512, which is not admitted': ({ kid, claims, privateKey }) => {
    const text = `${encode({ alg: 'RS512', kid })}.${encode({ ...claims, exp: now() + 600 })}`;
    return `${text}.${sign('sha512', Buffer.from(text), privateKey).toString('base64url')}`;
  },
  'longer than any token of ours, though genuine': ({ issue }) => issue({ padding: 'x'.repeat(9000) }),
});

/** Tokens that the issuer has signed, of a tenant that cannot be. */
export const wrongTenants = byToken(403, 'tenant-missing', {
  'no tenant': ({ issue }) => issue({ tenant: undefined }),
  'an empty tenant': ({ issue }) => issue({ tenant: '' }),
  'a tenant that is a path': ({ issue }) => issue({ tenant: 'acme/../globex' }),
  'a tenant in capitals': ({ issue }) => issue({ tenant: 'ACME' }),
  'a tenant with a null byte': ({ issue }) => issue({ tenant: 'acme\u0000globex' }),
  'a tenant with SQL': ({ issue }) => issue({ tenant: "acme' or 'a'='a" }),
  'a tenant with a line end': ({ issue }) => issue({ tenant: 'acme\n' }),
  'a tenant too long for a name': ({ issue }) => issue({ tenant: 'a'.repeat(64) }),
  'two tenants in a list': ({ issue }) => issue({ tenant: ['acme', 'globex'] }),
  'a tenant that is an object': ({ issue }) => issue({ tenant: { toString: 'acme' } }),
  'the platform as a tenant': ({ issue }) => issue({ tenant: 'platform' }),
  'a tenant given twice, the wrong one last': (world) =>
    world.issueText(headOf(world.kid), withText(world, '"tenant":"acme","tenant":"../globex"')),
  'a tenant by the prototype': (world) =>
    world.issueText(
      headOf(world.kid),
      withText(world, '"__proto__":{"tenant":"globex"},"constructor":{"prototype":{"tenant":"globex"}}'),
    ),
});
