import { gzipSync } from 'node:zlib';
import { type Attack, asAgent, byRequest, type WireRequest } from './attack.ts';
import type { World } from './world.ts';

const json: readonly [string, string] = ['Content-Type', 'application/json'];
const nobody = '00000000-0000-4000-8000-000000000000';

const post = (world: World, body: string | Uint8Array, ...headers: (readonly [string, string])[]): WireRequest => ({
  method: 'POST',
  headers: [asAgent(world), ...(headers.length === 0 ? [json] : headers)],
  body,
});

/** A request line and headers as they are, after a good token. */
const raw = ({ good }: World, head: string, rest = ''): WireRequest => ({
  bytes: `${head.replace('TOKEN', good)}\r\n\r\n${rest}`,
});

/** What the HTTP parser refuses before anybody looks at it: two readings of one message (RFC 9112 §11.2). */
export const smuggling: Attack[] = byRequest(400, null, {
  'length and chunks': (world) =>
    raw(
      world,
      'POST /v1/sessions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer TOKEN\r\nContent-Type: application/json\r\nContent-Length: 4\r\nTransfer-Encoding: chunked',
      '0\r\n\r\nGET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n',
    ),
  'chunks and length': (world) =>
    raw(
      world,
      'POST /v1/sessions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer TOKEN\r\nTransfer-Encoding: chunked\r\nContent-Length: 4',
      '0\r\n\r\n',
    ),
  'two different lengths': (world) =>
    raw(
      world,
      'POST /v1/sessions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer TOKEN\r\nContent-Length: 2\r\nContent-Length: 40',
      '{}',
    ),
  'a length with a sign': (world) =>
    raw(
      world,
      'POST /v1/sessions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer TOKEN\r\nContent-Length: +2',
      '{}',
    ),
  'a negative length': (world) =>
    raw(
      world,
      'POST /v1/sessions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer TOKEN\r\nContent-Length: -1',
      '{}',
    ),
  'an encoding that is not chunked at last': (world) =>
    raw(
      world,
      'POST /v1/sessions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer TOKEN\r\nTransfer-Encoding: chunked, identity',
      '0\r\n\r\n',
    ),
  'an encoding that looks like chunked': (world) =>
    raw(
      world,
      'POST /v1/sessions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer TOKEN\r\nTransfer-Encoding: xchunked',
      '0\r\n\r\n',
    ),
  'a chunk whose size is no number': (world) =>
    raw(
      world,
      'POST /v1/sessions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer TOKEN\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked',
      'ZZ\r\n{}\r\n0\r\n\r\n',
    ),
  'a folded header': (world) =>
    raw(
      world,
      'GET /v1/sessions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer let.me.in\r\n TOKEN',
    ),
  'a space before the colon': (world) =>
    raw(world, 'GET /v1/sessions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization : Bearer TOKEN'),
  'a null byte in a header': (world) =>
    raw(
      world,
      'GET /v1/sessions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX-Tenant: acme\0globex\r\nAuthorization: Bearer TOKEN',
    ),
  'a line end without a carriage return in a header': (world) =>
    raw(
      world,
      'GET /v1/sessions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAccept: text/event-stream\nX-Injected: 1\r\nAuthorization: Bearer TOKEN',
    ),
  'a name that is none': (world) =>
    raw(
      world,
      'GET /v1/sessions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX Tenant: acme\r\nAuthorization: Bearer TOKEN',
    ),
  'no host': (world) => raw(world, 'GET /v1/sessions HTTP/1.1\r\nConnection: close\r\nAuthorization: Bearer TOKEN'),
  'a method that is none': (world) =>
    raw(world, 'GETS /v1/sessions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer TOKEN'),
  'a version that is none': (world) =>
    raw(world, 'GET /v1/sessions HTTP/3.7\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer TOKEN'),
  'a space in the path': (world) =>
    raw(world, 'GET /v1/sessions x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer TOKEN'),
  'a backslash in the path': (world) => ({ target: '/v1\\sessions', headers: [asAgent(world)] }),
  'no HTTP at all': () => ({ bytes: 'HELO gateway\r\n\r\n' }),
});

/** More header than a request of ours has. */
export const tooMuchHeader: Attack[] = byRequest(431, null, {
  'headers of 20,000 bytes': (world) => ({ headers: [asAgent(world), ['X-Padding', 'x'.repeat(20_000)]] }),
});

/** Headers by which a proxy or a framework would be talked into another path, method or identity. */
export const overrides: Attack[] = [
  ...byRequest(401, 'token-missing', {
    'another path by X-Original-URL': () => ({
      headers: [
        ['X-Original-URL', '/openapi.json'],
        ['X-Rewrite-URL', '/healthz'],
      ],
    }),
    'an address of ours by X-Forwarded-For': () => ({
      headers: [
        ['X-Forwarded-For', '127.0.0.1'],
        ['X-Real-IP', '127.0.0.1'],
        ['Forwarded', 'for=127.0.0.1;proto=https'],
        ['X-Client-Cert', 'CN=gateway'],
      ],
    }),
    'a preflight of a foreign page': () => ({
      method: 'OPTIONS',
      headers: [
        ['Origin', 'https://attacker.example'],
        ['Access-Control-Request-Method', 'DELETE'],
      ],
    }),
    'HEAD instead of GET': () => ({ method: 'HEAD' }),
    'an upgrade to a socket': () => ({
      headers: [
        ['Upgrade', 'websocket'],
        ['Sec-WebSocket-Key', 'AAAAAAAAAAAAAAAAAAAAAA=='],
        ['Sec-WebSocket-Version', '13'],
      ],
    }),
    'an upgrade to HTTP/2 without TLS': () => ({
      headers: [
        ['Upgrade', 'h2c'],
        ['HTTP2-Settings', 'AAMAAABkAAQAoAAAAAIAAAAA'],
      ],
    }),
  }),
  ...byRequest(404, 'not-found', {
    'DELETE by X-HTTP-Method-Override': (world) => ({
      method: 'POST',
      target: `/v1/sessions/${world.session}`,
      headers: [asAgent(world), ['X-HTTP-Method-Override', 'DELETE'], ['X-Method-Override', 'DELETE']],
    }),
    'DELETE by the query': (world) => ({
      method: 'POST',
      target: `/v1/sessions/${world.session}?_method=DELETE`,
      headers: [asAgent(world)],
    }),
    'a known path by X-Original-URL': (world) => ({
      target: '/v1/nothing',
      headers: [asAgent(world), ['X-Original-URL', '/v1/sessions']],
    }),
    'PUT where only GET and DELETE are': (world) => ({
      method: 'PUT',
      target: `/v1/sessions/${world.session}`,
      headers: [asAgent(world)],
    }),
  }),
];

/** Bodies that are too large, no JSON, or JSON that nobody asked for. */
export const bodies: Attack[] = [
  ...byRequest(413, 'body-too-large', {
    'a body of 100,000 bytes': (world) => post(world, JSON.stringify({ prompt: 'x'.repeat(100_000) })),
    'a body of a declared terabyte': (world) => ({
      method: 'POST',
      headers: [asAgent(world), json, ['Content-Length', '1099511627776']],
    }),
    'chunks without end': (world) => ({
      method: 'POST',
      headers: [asAgent(world), json, ['Transfer-Encoding', 'chunked']],
      body: `${'2000\r\n'}${'x'.repeat(0x2000)}\r\n`.repeat(10),
    }),
  }),
  ...byRequest(415, 'media-type', {
    'JSON as text': (world) => post(world, '{}', ['Content-Type', 'text/plain']),
    'a form': (world) => post(world, 'prompt=x', ['Content-Type', 'application/x-www-form-urlencoded']),
    'a form of parts': (world) => post(world, '--x--', ['Content-Type', 'multipart/form-data; boundary=x']),
    'XML with an entity': (world) =>
      post(world, '<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><x>&e;</x>', [
        'Content-Type',
        'application/xml',
      ]),
    'two media types': (world) => post(world, '{}', ['Content-Type', 'application/json, text/plain']),
    'no media type': (world) => post(world, '{}', ['X-None', '1']),
  }),
  ...byRequest(400, 'invalid-request', {
    'no body': (world) => ({ method: 'POST', headers: [asAgent(world), json] }),
    'half a body': (world) => post(world, '{"prompt": "x'),
    'two values': (world) => post(world, '{}{}'),
    'a list': (world) => post(world, '[]'),
    null: (world) => post(world, 'null'),
    'not a number': (world) => post(world, '{"prompt": NaN}'),
    comments: (world) => post(world, '{/* x */}'),
    'lists in lists, 30,000 deep': (world) => post(world, `{"prompt":${'['.repeat(30_000)}${']'.repeat(30_000)}}`),
    'objects in objects, 10,000 deep': (world) => post(world, `${'{"a":'.repeat(10_000)}1${'}'.repeat(10_000)}`),
    'a field too many': (world) => post(world, '{"tenant":"globex"}'),
    'a key given twice, the wrong one last': (world) => post(world, '{"persona":"guide","persona":7}'),
    __proto__: (world) => post(world, '{"__proto__":{"tenant":"globex"}}'),
    'constructor.prototype': (world) => post(world, '{"constructor":{"prototype":{"tenant":"globex"}}}'),
    'a prompt that is an object': (world) => post(world, '{"prompt":{"$gt":""}}'),
    'a prompt of nothing but spaces': (world) => post(world, '{"prompt":"   "}'),
    'a persona too long': (world) => post(world, JSON.stringify({ persona: 'x'.repeat(4001) })),
    'bytes that are no UTF-8': (world) => post(world, Buffer.from('7b22706572736f6e61223a22fffe80227d', 'hex')),
    'UTF-16': (world) => post(world, Buffer.from('{}', 'utf16le')),
    'a gzip bomb': (world) => post(world, gzipSync(Buffer.alloc(20_000_000, 0x20)), json, ['Content-Encoding', 'gzip']),
    'bytes of gzip, said to be JSON': (world) => post(world, gzipSync('{}')),
  }),
];

/** Ways to a route, or past its name. None of them leads anywhere without a token; with one there is nothing there. */
const ways: Readonly<Record<string, string>> = {
  'an encoded slash': '/v1%2Fsessions',
  'a slash encoded twice': '/v1%252Fsessions',
  'two slashes': '//v1/sessions',
  'a slash at the end': '/v1/sessions/',
  'a semicolon': '/v1/sessions;tenant=globex',
  'a format at the end': '/v1/sessions.json',
  'a space at the end': '/v1/sessions%20',
  'a null byte at the end': '/v1/sessions%00',
  'a line end in the path': '/v1/sessions%0d%0aX-Injected:%201',
  capitals: '/V1/SESSIONS',
  'letters of full width': '/v1/%EF%BD%93essions',
  'half an escape': '/v1/sessions%',
  'a way up and out': '/v1/sessions/../../etc/passwd',
  'a way up, encoded': '/v1/sessions/%2e%2e/%2e%2e/secrets/ca/ca.crt',
  'a way up, encoded twice': '/v1/sessions/%252e%252e/admin',
  'a way up with a semicolon': '/v1/sessions/..;/admin',
  'the health port': '/healthz',
  metrics: '/metrics',
  'the list of routes': '/routes',
  'a star': '/*',
};

export const paths: Attack[] = [
  ...byRequest(
    401,
    'token-missing',
    Object.fromEntries(Object.entries(ways).map(([name, target]) => [`${name}, no token`, () => ({ target })])),
  ),
  ...byRequest(
    404,
    'not-found',
    Object.fromEntries(
      Object.entries(ways).map(([name, target]) => [name, (world) => ({ target, headers: [asAgent(world)] })]),
    ),
  ),
  ...byRequest(401, 'token-missing', {
    'dots that lead back, no token': () => ({ target: '/v1/nothing/../sessions' }),
    'a whole address of another host, no token': () => ({ target: 'https://attacker.example/v1/sessions' }),
  }),
  ...byRequest(400, 'invalid-request', {
    'a session that is no id': (world) => ({ target: '/v1/sessions/1', headers: [asAgent(world)] }),
    'a session with a null byte': (world) => ({ target: `/v1/sessions/${nobody}%00`, headers: [asAgent(world)] }),
    'a session with SQL': (world) => ({ target: `/v1/sessions/${nobody}'%20or%20'1'='1`, headers: [asAgent(world)] }),
    'a session with a way up': (world) => ({ target: `/v1/sessions/..%2f${nobody}`, headers: [asAgent(world)] }),
  }),
  ...byRequest(404, 'not-found', {
    'a session that nobody has': (world) => ({ target: `/v1/sessions/${nobody}`, headers: [asAgent(world)] }),
    'a session of another tenant': (world) => ({
      target: `/v1/sessions/${world.otherSession}`,
      headers: [asAgent(world)],
    }),
    'events of another tenant': (world) => ({
      target: `/v1/sessions/${world.otherSession}/events`,
      headers: [asAgent(world)],
    }),
    'a turn in a session of another tenant': (world) => ({
      ...post(world, '{"prompt":"x"}'),
      target: `/v1/sessions/${world.otherSession}/turns`,
    }),
    'closing a session of another tenant': (world) => ({
      method: 'DELETE',
      target: `/v1/sessions/${world.otherSession}`,
      headers: [asAgent(world)],
    }),
  }),
];

/** Queries and headers with values that are none. */
export const values: Attack[] = byRequest(400, 'invalid-request', {
  'a page of nothing': (world) => ({ target: '/v1/sessions?limit=0', headers: [asAgent(world)] }),
  'a page of everything': (world) => ({ target: '/v1/sessions?limit=1000000000', headers: [asAgent(world)] }),
  'a page of minus one': (world) => ({ target: '/v1/sessions?limit=-1', headers: [asAgent(world)] }),
  'a page of words': (world) => ({ target: '/v1/sessions?limit=1;drop%20table%20session', headers: [asAgent(world)] }),
  'two limits, the wrong one first': (world) => ({
    target: '/v1/sessions?limit=1000&limit=1',
    headers: [asAgent(world)],
  }),
  'a cursor that is none': (world) => ({ target: '/v1/sessions?cursor=AAAA', headers: [asAgent(world)] }),
  'a cursor with SQL': (world) => ({
    target: `/v1/sessions?cursor=${Buffer.from(`2026-01-01' or '1'='1 ${nobody}`).toString('base64url')}`,
    headers: [asAgent(world)],
  }),
  'a cursor of 10,000 letters': (world) => ({
    target: `/v1/sessions?cursor=${'A'.repeat(10_000)}`,
    headers: [asAgent(world)],
  }),
  'an idempotency key too long': (world) => post(world, '{}', json, ['Idempotency-Key', 'k'.repeat(129)]),
  'an empty idempotency key': (world) => post(world, '{}', json, ['Idempotency-Key', '']),
  'a last event in words': (world) => ({
    target: `/v1/sessions/${world.session}/events`,
    headers: [asAgent(world), ['Last-Event-ID', '1; id: 2']],
  }),
  'a last event below nothing': (world) => ({
    target: `/v1/sessions/${world.session}/events`,
    headers: [asAgent(world), ['Last-Event-ID', '-1']],
  }),
  'a last event beyond all numbers': (world) => ({
    target: `/v1/sessions/${world.session}/events`,
    headers: [asAgent(world), ['Last-Event-ID', '1e400']],
  }),
});
