import { createCipheriv, createHmac, generateKeyPairSync, sign } from 'node:crypto';
import { deflateRawSync } from 'node:zlib';
import { byRequest, byToken } from './attack.ts';
import { encode, type Json, signRs256, type World } from './world.ts';

const stranger = generateKeyPairSync('rsa', { modulusLength: 2048 });
const strangerEc = generateKeyPairSync('ec', { namedCurve: 'P-256' });

const parts = (token: string): [string, string, string] => {
  const [header = '', payload = '', signature = ''] = token.split('.');
  return [header, payload, signature];
};

/** The good claims under another header and a stranger's signature. */
const forged = ({ header, claims }: World, head: Json, changes: Json = {}): string => {
  const text = `${encode({ ...header, ...head })}.${encode({ ...claims, ...changes })}`;
  return `${text}.${signRs256(text, stranger.privateKey)}`;
};

/** The good claims, signed by HMAC with a secret that everybody knows. */
const symmetric = ({ header, claims }: World, secret: string | Buffer, head: Json = {}, alg = 'HS256'): string => {
  const text = `${encode({ ...header, alg, ...head })}.${encode(claims)}`;
  return `${text}.${createHmac(`sha${alg.slice(2)}`, secret)
    .update(text)
    .digest('base64url')}`;
};

const unsigned = ({ header, claims }: World, alg: string, signature = ''): string =>
  `${encode({ ...header, alg })}.${encode(claims)}.${signature}`;

const withSignature = ({ good }: World, change: (signature: string) => string): string => {
  const [header, payload, signature] = parts(good);
  return `${header}.${payload}.${change(signature)}`;
};

const withPayload = ({ good, claims }: World, changes: Json): string => {
  const [header, , signature] = parts(good);
  return `${header}.${encode({ ...claims, ...changes })}.${signature}`;
};

const pem = ({ publicKey }: World): string => String(publicKey.export({ type: 'spki', format: 'pem' }));
const strangerJwk = { ...stranger.publicKey.export({ format: 'jwk' }), alg: 'RS256', use: 'sig' };

/** The next letter of the alphabet of base64url: the same bytes, where only bits that nobody reads differ. */
const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';
const nextLetter = (letter: string): string => alphabet[(alphabet.indexOf(letter) ^ 1) & 63] ?? 'A';

function swapKey(head: string, raw: string): (world: World) => string {
  return ({ header, claims }) => {
    const text = `${encode(head.replace('KID', String(header.kid)))}.${encode(claims)}`;
    return `${text}.${raw === '' ? signRs256(text, stranger.privateKey) : raw}`;
  };
}

/** Tokens that the issuer never made. */
export const forgedTokens = byToken(401, 'token-invalid', {
  'alg none': (world) => unsigned(world, 'none'),
  'alg None': (world) => unsigned(world, 'None'),
  'alg NONE': (world) => unsigned(world, 'NONE'),
  'alg none with the signature of a good token': (world) => unsigned(world, 'none', parts(world.good)[2]),
  'an empty alg': (world) => unsigned(world, ''),
  'no signature under RS256': (world) => unsigned(world, 'RS256'),
  'HS256 with the public key in PEM as the secret': (world) => symmetric(world, pem(world)),
  'HS256 with the public key in DER as the secret': (world) =>
    symmetric(world, world.publicKey.export({ type: 'spki', format: 'der' })),
  'HS256 with the modulus as the secret': (world) =>
    symmetric(world, String(world.publicKey.export({ format: 'jwk' }).n)),
  'HS256 with an empty secret': (world) => symmetric(world, ''),
  'HS512 with the public key as the secret': (world) => symmetric(world, pem(world), {}, 'HS512'),
  'a stranger under a known key id': (world) => forged(world, {}),
  'a stranger by ES256 under a known key id': ({ header, claims }) => {
    const text = `${encode({ ...header, alg: 'ES256' })}.${encode(claims)}`;
    return `${text}.${sign('sha256', Buffer.from(text), { key: strangerEc.privateKey, dsaEncoding: 'ieee-p1363' }).toString('base64url')}`;
  },
  'RS1, which is SHA-1': ({ header, claims }) => {
    const text = `${encode({ ...header, alg: 'RS1' })}.${encode(claims)}`;
    return `${text}.${sign('sha1', Buffer.from(text), stranger.privateKey).toString('base64url')}`;
  },
  'kid: unknown': (world) => forged(world, { kid: 'nobody' }),
  'kid: absent': (world) => forged(world, { kid: undefined }),
  'kid: empty': (world) => forged(world, { kid: '' }),
  'kid: a path to an empty file': (world) => symmetric(world, '', { kid: '../../../../../../dev/null' }),
  'kid: a path to the certificate of the authority': (world) =>
    symmetric(world, world.ca, { kid: '/secrets/ca/ca.crt' }),
  'kid: SQL': (world) => symmetric(world, 'key', { kid: "nobody' UNION SELECT 'key" }),
  'kid: an address': (world) => forged(world, { kid: 'https://attacker.example/jwks.json' }),
  'kid: a command': (world) => forged(world, { kid: '$(id)|id;`id`' }),
  'kid: __proto__': (world) => forged(world, { kid: '__proto__' }),
  'kid: not a text': (world) => forged(world, { kid: { $ne: '' } }),
  'kid: given twice, the known one last': swapKey('{"alg":"RS256","kid":"nobody","kid":"KID"}', ''),
  'kid: given twice, the known one first': swapKey('{"alg":"RS256","kid":"KID","kid":"nobody"}', ''),
  'alg: given twice, none last': swapKey('{"alg":"RS256","alg":"none","kid":"KID"}', 'AA'),
  'jku: keys of the attacker': (world) => forged(world, { jku: 'https://attacker.example/jwks.json' }),
  'jwk: the key comes along': (world) => forged(world, { jwk: strangerJwk }),
  'jwk: the key comes along, without a key id': (world) => forged(world, { jwk: strangerJwk, kid: undefined }),
  'x5u: a certificate of the attacker': (world) => forged(world, { x5u: 'https://attacker.example/cert.pem' }),
  'x5c: a certificate that signs itself': (world) => forged(world, { x5c: [strangerJwk.n] }),
  'crit: an extension that nobody knows': (world) => forged(world, { crit: ['exp'], exp: 1 }),
  'b64: an unencoded payload': (world) => forged(world, { crit: ['b64'], b64: false }),
  'zip: a compressed payload': ({ header, claims }) => {
    const text = `${encode({ ...header, zip: 'DEF' })}.${deflateRawSync(JSON.stringify(claims)).toString('base64url')}`;
    return `${text}.${signRs256(text, stranger.privateKey)}`;
  },
  'the tenant changed': (world) => withPayload(world, { tenant: 'globex' }),
  'the roles raised': (world) => withPayload(world, { roles: ['operator', 'tenant-admin'] }),
  'the end moved': (world) => withPayload(world, { exp: Number(world.claims.exp) + 86_400 }),
  'one bit of the signature flipped': (world) =>
    withSignature(world, (signature) => `${nextLetter(signature[0] ?? '')}${signature.slice(1)}`),
  'a signature of the same bytes in other letters': (world) =>
    withSignature(world, (signature) => `${signature.slice(0, -1)}${nextLetter(signature.at(-1) ?? '')}`),
  'a padded signature': (world) => withSignature(world, (signature) => `${signature}==`),
  'a truncated signature': (world) => withSignature(world, (signature) => signature.slice(0, -8)),
  'a lengthened signature': (world) => withSignature(world, (signature) => `${signature}AAAA`),
  'a signature in the letters of plain base64': (world) =>
    withSignature(world, (signature) =>
      signature
        .replaceAll('-', '+')
        .replaceAll('_', '/')
        .replace(/^(?!.*[+/])./, '+'),
    ),
  'the signature of another token': (world) => withSignature(world, () => parts(world.other)[2]),
  'two parts': ({ good }) => parts(good).slice(0, 2).join('.'),
  'four parts': ({ good }) => `${good}.AAAA`,
  'an encrypted token of five parts': ({ claims }) => {
    const cipher = createCipheriv('aes-256-gcm', Buffer.alloc(32, 1), Buffer.alloc(12, 1));
    const text = Buffer.concat([cipher.update(JSON.stringify(claims)), cipher.final()]);
    const pieces = [Buffer.alloc(12, 1), text, cipher.getAuthTag()].map((piece) => piece.toString('base64url'));
    return [encode({ alg: 'dir', enc: 'A256GCM' }), '', ...pieces].join('.');
  },
  'a token in a token': (world) => {
    const text = `${encode({ ...world.header, cty: 'JWT' })}.${encode(world.good)}`;
    return `${text}.${signRs256(text, stranger.privateKey)}`;
  },
  'longer than any token of ours': (world) => forged(world, {}, { padding: 'x'.repeat(9000) }),
  'header, payload and signature of nothing': () => '..',
  'a token that is none': () => 'let.me.in',
});

/** Genuine tokens of the issuer that were made for something else. */
export const strayTokens = [
  ...byToken(401, 'token-invalid', {
    'a token for another audience': ({ foreign }) => foreign,
    'a token of another realm, of its administrator': ({ master }) => master,
    'an ID token': ({ person }) => person.id,
    'a refresh token': ({ person }) => person.refresh,
  }),
  ...byToken(403, 'tenant-missing', { 'a token without a tenant': ({ untenanted }) => untenanted }),
];

/** Good tokens where no token belongs, and headers that only look like one. */
export const misplacedTokens = byRequest(401, 'token-missing', {
  'no token': () => ({}),
  'the token in the query': ({ good }) => ({ target: `/v1/sessions?access_token=${good}` }),
  'the token in a cookie': ({ good }) => ({
    headers: [['Cookie', `access_token=${good}; Authorization=Bearer ${good}`]],
  }),
  'the token in a form': ({ good }) => ({
    method: 'POST',
    headers: [['Content-Type', 'application/x-www-form-urlencoded']],
    body: `access_token=${good}`,
  }),
  'the token under another scheme': ({ good }) => ({ headers: [['Authorization', `Basic ${good}`]] }),
  'the token for DPoP, without a proof': ({ good }) => ({ headers: [['Authorization', `DPoP ${good}`]] }),
  'the token without a scheme': ({ good }) => ({ headers: [['Authorization', good]] }),
  'two tokens in one header': ({ good, other }) => ({ headers: [['Authorization', `Bearer ${good} ${other}`]] }),
  'two tokens with a comma': ({ good, other }) => ({ headers: [['Authorization', `Bearer ${good}, Bearer ${other}`]] }),
  'two headers, the good token first': ({ good }) => ({
    headers: [
      ['Authorization', `Bearer ${good}`],
      ['Authorization', 'Bearer let.me.in'],
    ],
  }),
  'two headers, the good token last': ({ good }) => ({
    headers: [
      ['Authorization', 'Bearer let.me.in'],
      ['Authorization', `Bearer ${good}`],
    ],
  }),
  'two headers with good tokens of two tenants': ({ good, other }) => ({
    headers: [
      ['Authorization', `Bearer ${good}`],
      ['authorization', `Bearer ${other}`],
    ],
  }),
  'a tab after the scheme': ({ good }) => ({ headers: [['Authorization', `Bearer\t${good}`]] }),
  'a token as JSON': ({ header, claims }) => ({
    headers: [
      ['Authorization', `Bearer {"protected":"${encode(header)}","payload":"${encode(claims)}","signature":"AA"}`],
    ],
  }),
  'a proxy header instead': ({ good }) => ({
    headers: [
      ['Proxy-Authorization', `Bearer ${good}`],
      ['X-Forwarded-Authorization', `Bearer ${good}`],
      ['X-Authorization', `Bearer ${good}`],
    ],
  }),
  'an identity by header': () => ({
    headers: [
      ['X-Tenant', 'acme'],
      ['X-User', 'admin'],
      ['X-Forwarded-User', 'admin'],
      ['X-Remote-User', 'admin'],
      ['X-Roles', 'operator'],
    ],
  }),
});
