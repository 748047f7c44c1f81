import { connect } from 'node:tls';
import type { WireRequest } from './attack.ts';

/** What came back over the wire. */
export interface WireAnswer {
  readonly status: number;
  /** Header lines, names in lower case. */
  readonly headers: ReadonlyMap<string, string>;
  readonly body: string;
}

const timeoutMs = 20_000;

/** The bytes of a request. */
export function bytesOf({
  method = 'GET',
  target = '/v1/sessions',
  headers = [],
  body,
  bytes,
  bare,
}: WireRequest): Buffer {
  if (bytes !== undefined) return Buffer.from(bytes, 'latin1');
  const content = body === undefined ? Buffer.alloc(0) : Buffer.from(body);
  const framed = headers.some(([name]) => /^(content-length|transfer-encoding)$/i.test(name.trim()));
  const own: (readonly [string, string])[] = bare
    ? []
    : [
        ['Host', 'localhost'],
        ['Connection', 'close'],
      ];
  if (!bare && body !== undefined && !framed) own.push(['Content-Length', String(content.length)]);
  const lines = [`${method} ${target} HTTP/1.1`, ...[...own, ...headers].map(([name, value]) => `${name}: ${value}`)];
  return Buffer.concat([Buffer.from(`${lines.join('\r\n')}\r\n\r\n`, 'latin1'), content]);
}

/** A server that is attacked. */
export interface Victim {
  /** `https://host:port`. */
  readonly origin: string;
  /** Name in its certificate. @default the host of `origin` */
  readonly servername?: string;
  readonly ca: string;
}

/** Sends a request over TLS as it is and reads the first answer to its end. @throws when there is none */
export function exchange({ origin, ca, ...victim }: Victim, request: WireRequest): Promise<WireAnswer> {
  const { hostname, port } = new URL(origin);
  const { servername = hostname } = victim;
  const { promise, resolve, reject } = Promise.withResolvers<WireAnswer>();
  const chunks: Buffer[] = [];
  const socket = connect({
    host: hostname,
    port: Number(port || 443),
    ca,
    servername,
    ALPNProtocols: ['http/1.1'],
  });
  const finish = (why?: Error) => {
    socket.destroy();
    const answer = parse(Buffer.concat(chunks));
    if (answer === undefined) reject(why ?? new Error('the connection was closed without an answer'));
    else resolve(answer);
  };
  socket.setTimeout(timeoutMs, () => finish(new Error(`no answer within ${timeoutMs / 1000} s`)));
  socket.once('secureConnect', () => socket.write(bytesOf(request)));
  socket.on('data', (chunk) => {
    chunks.push(chunk);
    if (isWhole(Buffer.concat(chunks))) finish();
  });
  socket.once('error', finish);
  socket.once('close', () => finish());
  return promise;
}

function split(bytes: Buffer): { head: string; rest: Buffer } | undefined {
  const end = bytes.indexOf('\r\n\r\n');
  return end < 0 ? undefined : { head: bytes.toString('latin1', 0, end), rest: bytes.subarray(end + 4) };
}

function headersOf(head: string): ReadonlyMap<string, string> {
  const lines = head.split('\r\n').slice(1);
  return new Map(
    lines.map((line) => [line.slice(0, line.indexOf(':')).toLowerCase(), line.slice(line.indexOf(':') + 1).trim()]),
  );
}

/** Whether the first answer has arrived with all of its body. */
function isWhole(bytes: Buffer): boolean {
  const parts = split(bytes);
  if (parts === undefined) return false;
  const headers = headersOf(parts.head);
  const length = headers.get('content-length');
  if (length !== undefined) return parts.rest.length >= Number(length);
  return headers.get('transfer-encoding') === 'chunked' && parts.rest.includes('\r\n0\r\n\r\n');
}

function parse(bytes: Buffer): WireAnswer | undefined {
  const parts = split(bytes);
  const status = Number(/^HTTP\/1\.1 (\d{3})/.exec(parts?.head ?? '')?.[1]);
  if (parts === undefined || Number.isNaN(status)) return undefined;
  const headers = headersOf(parts.head);
  const body = headers.get('transfer-encoding') === 'chunked' ? unchunked(parts.rest) : parts.rest;
  return { status, headers, body: body.toString('utf8') };
}

function unchunked(bytes: Buffer): Buffer {
  const pieces: Buffer[] = [];
  for (let at = 0; at < bytes.length; ) {
    const end = bytes.indexOf('\r\n', at);
    const size = Number.parseInt(bytes.toString('latin1', at, end), 16);
    if (!(size > 0)) break;
    pieces.push(bytes.subarray(end + 2, end + 2 + size));
    at = end + 2 + size + 2;
  }
  return Buffer.concat(pieces);
}
